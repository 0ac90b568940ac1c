"""Colour images of stained tissue as their two stains, for a model that was trained on these."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from dl4ia.data.pixels import BLUE, Pixels, read_pixels
from dl4ia.data.stains import unmix
from dl4ia.data.unlabelled import find_images, unique_name
from dl4ia.errors import InputError
from dl4ia.text import printable


def unmix_images(places: Sequence[Path], out: Path, size: int | None) -> tuple[int, list[str]]:
    """Write a PNG with the stains of each image into `out`, squeezed to `size` pixels a side.

    Returns how many there are, and a line for each image that could not be read. Raises InputError
    where `out` holds anything, or there is no such image.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already; expected a new or an empty folder")
    files = find_images(places)
    out.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    names: Counter[str] = Counter()
    for path in tqdm(files, unit="image", disable=None, leave=False):
        try:
            stains = unmix(_in_colour(path), (size, size) if size else None)
        except InputError as error:
            failures.append(printable(str(error)))
        else:
            Image.fromarray(stains).save(out / f"{unique_name(path, names)}.png")
    return len(files) - len(failures), failures


def _in_colour(path: Path) -> Pixels:
    pixels = read_pixels(path, "rgb")
    if not pixels[..., BLUE].any() or (pixels == pixels[..., :1]).all():
        raise InputError(f"{path}: two stains, or grey; expected an image in colour")
    return pixels
