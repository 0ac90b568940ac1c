"""Colour images of stained tissue as their two stains, for a model that was trained on these."""

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from dl4ia.addresses import check_folder
from dl4ia.data.gland_folder import SMALLEST_SIDE
from dl4ia.data.pixels import BLUE, Pixels
from dl4ia.data.stains import unmix
from dl4ia.data.unlabelled import find_images, read_unlabelled, unique_name
from dl4ia.errors import InputError
from dl4ia.text import printable

TABLE = "sources.csv"
COLUMNS = ("file", "source", "error")


def unmix_images(places: Sequence[Path], out: Path, size: int | None) -> tuple[int, list[str]]:
    """Write a PNG with the stains of each image into `out`, squeezed to `size` pixels a side.

    Beside them sources.csv says which is of which file. Returns how many there are, and a line for
    each image that could not be read. What an earlier call wrote among the images is passed over.
    Raises InputError where `out` holds anything or cannot be written, or there is no such image;
    `out` is then left as it was.
    """
    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is there already; expected a new or an empty folder")
    whole = out.resolve()
    tables = [file for place in places for file in place.rglob(TABLE)]
    earlier = [file.parent for file in tables if _is_ours(file)]
    files = find_images(places, skipped=earlier)
    whole.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=whole.parent, prefix=f".{whole.name}-"))
    try:
        failures = _write(files, unfinished / whole.name, size)
        if whole.exists():
            whole.rmdir()
        (unfinished / whole.name).replace(whole)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(files) - len(failures), failures


def _write(files: Sequence[Path], folder: Path, size: int | None) -> list[str]:
    failures: list[str] = []
    names: Counter[str] = Counter()
    folder.mkdir()
    # A name that is no text is written as its bytes.
    with (folder / TABLE).open("w", newline="", encoding="utf-8", errors="backslashreplace") as f:
        table = csv.writer(f)
        table.writerow(COLUMNS)
        for path in tqdm(files, unit="image", disable=None, leave=False):
            try:
                stains = unmix(_in_colour(path), (size, size) if size else None)
            except InputError as error:
                failures.append(printable(str(error)))
                table.writerow(("", path, failures[-1]))
            else:
                name = f"{unique_name(path, names)}.png"
                Image.fromarray(stains).save(folder / name)
                table.writerow((name, path, ""))
    return failures


def _is_ours(table: Path) -> bool:
    """Whether an earlier call has written it: others may call a table so too."""
    try:
        with table.open(newline="", encoding="utf-8", errors="replace") as opened:
            return tuple(next(csv.reader(opened), ())) == COLUMNS
    except (OSError, csv.Error):
        return False


def _in_colour(path: Path) -> Pixels:
    pixels = read_unlabelled(path, 3, SMALLEST_SIDE)
    if not pixels[..., BLUE].any() or (pixels == pixels[..., :1]).all():
        raise InputError(f"{path}: two stains, or grey all over; expected an image in colour")
    return pixels
