"""Opening image files, with one line for each that cannot be read, and naming their folders."""

import contextlib
import os
import re
import warnings
from collections import Counter
from pathlib import Path

from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from dl4ia.errors import InputError

# By content, whatever the file's name says. Not EPS: Pillow would have Ghostscript run it.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
# What folders are searched for.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
MOST_PIXELS = 89_478_485  # Pillow's own limit, above which it warns of a decompression bomb


def open_image(path: Path) -> Image.Image:
    """The decoded image, of several pages the first, turned as its EXIF orientation says.

    Raises InputError, naming the file, where it is empty, broken, larger than `MOST_PIXELS`, or of
    colours of 16 bits, of which Pillow keeps the upper eight.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that nothing here depends on
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Given the path, Pillow 13.0 maps a raw TIFF into memory and garbles a turned one.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                cut = _is_cut_to_8_bits(image)
                image.load()
                _turn(image)
    except Exception as error:  # decoders raise whatever hostile bytes make them stumble over
        raise InputError(
            f"{path}: cannot be read as an image ({_reason(path, error)}); replace or remove it"
        ) from error
    if cut:
        raise InputError(f"{path}: colours of 16 bits a channel; expected 8: convert it")
    return image


def check_name(path: Path) -> None:
    """Raise InputError where a name is not UTF-8, which no table and no picture could show."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="replace")
        raise InputError(f"{shown}: its name is not in UTF-8; expected one: rename it") from error


def _turn(image: Image.Image) -> None:
    """As its EXIF orientation says; what cannot be read as EXIF says nothing."""
    with contextlib.suppress(Exception):  # decoders raise whatever hostile bytes make them
        ImageOps.exif_transpose(image, in_place=True)


def _is_cut_to_8_bits(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has more bits than what it is loaded as."""
    if image.mode.startswith(("I", "F")):
        return False
    # Of planes one after the other the tiles do not tell.
    bits = image.tag_v2.get(BITSPERSAMPLE, ()) if isinstance(image, TiffImageFile) else ()
    if any(each > 8 for each in bits):
        return True
    known = [tile[3] for tile in getattr(image, "tile", ())]
    raw = [each[0] if isinstance(each, tuple) else each for each in known if each]
    return any(";16" in str(each) for each in raw)


def _reason(path: Path, error: Exception) -> str:
    if path.exists() and path.stat().st_size == 0:
        return "it is empty"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"more than {MOST_PIXELS // 1_000_000} million pixels"
    return type(error).__name__


def source_name(folder: Path) -> str:
    """The folder's name in small letters, digits and hyphens: it ends the study's name."""
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "data"


def describe_contents(folder: Path) -> str:
    """What is in a folder, for messages: "12 text files, folder 'test'", or "nothing"."""
    kinds: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            kinds[f"folder {path.name!r}"] += 1
        else:
            suffix = path.suffix.lower()
            kinds["text file" if suffix == ".txt" else f"{suffix} file".strip()] += 1
    told = [
        f"{count} {kind}{'s' if count > 1 else ''}" if kind.endswith("file") else kind
        for kind, count in kinds.most_common(3)
    ]
    return ", ".join(told + ["…"] * (len(kinds) > 3)) or "nothing"
