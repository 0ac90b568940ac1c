"""Opening image files, with one line for each that cannot be read, and naming their folders."""

import re
from collections import Counter
from pathlib import Path

from PIL import Image

from dl4ia.errors import InputError


def open_image(path: Path) -> Image.Image:
    """The decoded image; raises InputError, naming the file, where it is empty or broken."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        empty = path.exists() and path.stat().st_size == 0
        reason = "it is empty" if empty else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as an image ({reason}); replace or remove it"
        ) from error


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
