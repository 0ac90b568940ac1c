"""Images without labels: found in files and folders, read as a study's were, and named."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dl4ia.data.images import SUFFIXES, check_name, describe_contents
from dl4ia.data.pixels import KINDS, Pixels, read_pixels
from dl4ia.errors import InputError

LABELS, GLAS_LABEL = ("label", "instances"), "_anno"
LONGEST_NAME = 200  # bytes; a file system allows 255


def find_images(places: Sequence[Path], skipped: Sequence[Path] = ()) -> list[Path]:
    """The files among `places`, and the images in and below its folders, each once.

    Hidden files, labels (label_NN and instances_NN beside image_NN, GlaS's NAME_anno beside NAME)
    and what is in the folders `skipped` are passed over. Raises InputError where a place is missing
    or in one of these, or a folder has no image or cannot be read.
    """
    outside = {folder.resolve() for folder in skipped}
    found: dict[Path, None] = {}
    for place in places:
        whole = place.resolve()
        if outside & {whole, *whole.parents}:
            raise InputError(
                f"{place}: is output of an earlier run; expected other images, or another -o"
            )
        if place.is_dir():
            files = [path for path in _below(place) if path.suffix.lower() in SUFFIXES]
            stems = {path.with_suffix("") for path in files}
            images = [path for path in files if _is_image(path, place, stems, outside)]
            if not images:
                raise InputError(
                    f"{place}: no images in it, but {describe_contents(place)}; expected "
                    f"{', '.join(SUFFIXES)} files"
                )
        elif place.is_file():
            images = [place]
        else:
            raise InputError(f"{place}: no such file or folder; expected an image, or some in it")
        for path in images:
            check_name(path)
        found |= dict.fromkeys(images)
    return list(found)


def _below(place: Path) -> list[Path]:
    """All files in a folder and those below it, sorted; links to folders are not followed."""

    def tell(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: cannot be looked into ({error.strerror}); expected a folder that "
            "can be read"
        ) from error

    walk = os.walk(place, onerror=tell)
    return sorted(Path(folder, name) for folder, _, names in walk for name in names)


def read_unlabelled(path: Path, channels: int, smallest_side: int) -> Pixels:
    """(H, W, channels): grey, two stains, RGB, or RGBA.

    Raises InputError where the file cannot be read as that, or a side is below `smallest_side`.
    """
    kind = next(kind for kind, count in KINDS.items() if count == channels)
    pixels = read_pixels(path, kind)
    height, width, _ = pixels.shape
    if min(height, width) < smallest_side:
        raise InputError(
            f"{path}: {width}x{height} pixels; expected at least {smallest_side} a side"
        )
    return pixels


def unique_name(path: Path, taken: Counter[str]) -> str:
    """The file's name without its suffix, safe in any folder, and no other one's in `taken`."""
    plain = re.sub(r"[^\w.-]", "_", path.stem).lstrip(".") or "image"
    plain = plain.encode()[:LONGEST_NAME].decode(errors="ignore")
    name = plain
    while taken[name.casefold()]:  # some file systems know no capitals
        taken[plain.casefold()] += 1
        name = f"{plain}-{taken[plain.casefold()]}"
    taken[name.casefold()] += 1
    return name


def _is_image(path: Path, place: Path, stems: set[Path], outside: set[Path]) -> bool:
    """stems: of all files that may be images, without their ends."""
    if any(part.startswith(".") for part in path.relative_to(place).parts):
        return False
    kind, _, number = path.stem.partition("_")
    if kind in LABELS and path.with_name(f"image_{number}") in stems:
        return False
    image = path.stem.removesuffix(GLAS_LABEL)
    if image != path.stem and path.with_name(image) in stems:
        return False
    return not any(folder in outside for folder in path.resolve().parents)
