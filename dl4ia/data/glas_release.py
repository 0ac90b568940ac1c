"""From the release of the GlaS contest to the folder that the gland study reads.

The release is not downloaded: its licence asks people to agree to it. It holds `train_N.bmp`,
`testA_N.bmp` and `testB_N.bmp`, labels `…_anno.bmp` in which each gland has a number of its own,
and `Grade.csv`.
"""

import csv
import io
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dl4ia.data.images import MOST_PIXELS, open_image
from dl4ia.data.patients import COLUMNS, FILE
from dl4ia.data.pixels import read_pixels
from dl4ia.data.stains import unmix
from dl4ia.errors import InputError, first_line

PARTS = {"testA": ("testA",), "testB": ("testB",), "both": ("testA", "testB")}
NAME = re.compile(r"(train|testA|testB)_(\d+)\.bmp")
GRADES = "Grade.csv"
FIRST_OF_B = 60  # images of testA come before those of testB
LARGEST_FILE = 4 * MOST_PIXELS  # bytes, unpacked: of four channels


@dataclass(frozen=True)
class Release:
    """Where a release lies: file name -> what opens it."""

    place: Path
    files: Mapping[str, Path]


def prepare_glas(
    release: Path, out: Path, size: int, split: str, after_image: Callable[[], object]
) -> dict[str, int]:
    """Write Train/ and Test/ with image_NN.png, label_NN.png and instances_NN.png into `out`.

    release: a folder with the release's files, however deep, or its zip file.
    size: pixels of a side; the images are squeezed to squares, as the course's are.
    split: the test images, "testA", "testB" or "both".

    Returns the number of images of each part. Raises InputError where `out` holds anything, the
    release is incomplete, or a file of it cannot be read; `out` is then left as it was.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there already; expected a new or an empty folder")
    try:
        place = out.resolve()  # of a link, what it leads to
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({first_line(error)})") from error
    try:
        found = _find(release, unfinished / "release")
        patients = _read_grades(found)
        counts, rows = {}, []
        for part, sources in (("Train", ("train",)), ("Test", PARTS[split])):
            (unfinished / part).mkdir(parents=True)
            images = list(_images(found, sources))
            if not images:
                raise InputError(f"{release}: no {sources[0]}_N.bmp in it; expected GlaS's release")
            for name, number in images:
                image, label = found.files[f"{name}.bmp"], found.files[f"{name}_anno.bmp"]
                _write(image, label, unfinished / part, number, size)
                if patients:
                    rows.append((part, f"image_{number:02d}.png", *patients[name]))
                after_image()
            counts[part] = len(images)
        if rows:
            with (unfinished / FILE).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([(*COLUMNS, "grade", "subtype"), *rows])
        shutil.rmtree(unfinished / "release", ignore_errors=True)
        unfinished.chmod(0o777 & ~_umask())
        if place.exists():
            place.rmdir()
        unfinished.replace(place)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({first_line(error)})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return counts


def _umask() -> int:
    """What is kept from others in new files; a temporary folder is kept from them altogether."""
    known = os.umask(0)
    os.umask(known)
    return known


def count_images(release: Path, split: str) -> int:
    """How many images `prepare_glas` will write, as far as the names tell."""
    names = _names(release)
    sources = ("train", *PARTS[split])
    return sum(bool(found and found[1] in sources) for found in map(NAME.fullmatch, names))


def _names(release: Path) -> list[str]:
    if release.is_dir():
        return [path.name for path in release.rglob("*")]
    try:
        with zipfile.ZipFile(release) as archive:
            return [Path(name).name for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{release}: is neither a folder nor a zip file; expected GlaS's release, which is to "
            "be had from its authors at the University of Warwick (the GlaS challenge contest)"
        ) from error


def _find(release: Path, unpacked: Path) -> Release:
    """The release's own files; those of a zip are unpacked, by their last names alone."""
    _names(release)
    if release.is_dir():
        found = {path.name: path for path in sorted(release.rglob("*")) if _is_ours(path.name)}
        return Release(release, found)
    unpacked.mkdir(parents=True)
    files = {}
    with zipfile.ZipFile(release) as archive:
        for member in archive.infolist():
            name = Path(member.filename).name
            if not _is_ours(name):
                continue
            if member.file_size > LARGEST_FILE:
                raise InputError(
                    f"{release}: {member.filename} has {member.file_size} bytes unpacked; expected "
                    f"at most {LARGEST_FILE}: it is not of GlaS's release"
                )
            files[name] = unpacked / name
            try:
                with archive.open(member) as source, files[name].open("wb") as target:
                    shutil.copyfileobj(source, target)
            except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
                raise InputError(
                    f"{release}: {member.filename} cannot be unpacked ({first_line(error)}); "
                    "fetch the release again"
                ) from error
    return Release(release, files)


def _is_ours(name: str) -> bool:
    return name == GRADES or bool(NAME.fullmatch(name.replace("_anno", "")))


def _images(release: Release, sources: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """(name, number) of the images of these parts, in order; each has its label."""
    for source in sources:
        found = sorted(
            (int(match[2]), match[0].removesuffix(".bmp"))
            for match in map(NAME.fullmatch, release.files)
            if match and match[1] == source
        )
        for number, name in found:
            if f"{name}_anno.bmp" not in release.files:
                raise InputError(
                    f"{release.files[f'{name}.bmp']}: its label is missing; expected "
                    f"{name}_anno.bmp beside it"
                )
            yield name, number + (FIRST_OF_B if source == "testB" else 0)


def _read_grades(release: Release) -> dict[str, tuple[str, str, str]]:
    """Image -> patient, grade and subtype; empty where the release has no Grade.csv.

    Raises InputError where an image has no row.
    """
    if GRADES not in release.files:
        return {}
    file = release.files[GRADES]
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no text in UTF-8; fetch the release again") from error
    found = {}
    for line, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        cells = [cell.strip() for cell in row]
        if line == 1 or not any(cells):
            continue
        if len(cells) < 4:
            raise InputError(
                f"{file}, line {line}: {len(cells)} columns; expected name, patient, grade, subtype"
            )
        found[cells[0]] = (cells[1], cells[2], cells[3])
    for match in map(NAME.fullmatch, release.files):
        name = match[0].removesuffix(".bmp") if match else ""
        if match and name not in found:
            raise InputError(f"{file}: no row for {name}; expected one for every image")
    return found


def _write(image: Path, label: Path, folder: Path, number: int, size: int) -> None:
    pixels = read_pixels(image, "rgb")
    glands = np.array(open_image(label))
    if glands.ndim != 2 or glands.shape != pixels.shape[:2]:
        raise InputError(
            f"{label}: {'x'.join(map(str, glands.shape))} numbers; expected one a pixel of "
            f"{image.name}, {pixels.shape[0]}x{pixels.shape[1]}"
        )
    instances = resize_instances(glands, size)
    kind = np.uint8 if instances.max(initial=0) < 256 else np.uint16
    suffix = f"{number:02d}.png"
    Image.fromarray(unmix(pixels, (size, size))).save(folder / f"image_{suffix}")
    Image.fromarray(np.uint8(255) * (instances > 0)).save(folder / f"label_{suffix}")
    Image.fromarray(instances.astype(kind)).save(folder / f"instances_{suffix}")


def resize_instances(glands: np.ndarray, size: int) -> np.ndarray:
    """(H, W) numbers of glands, 0 for none -> (size, size), on the same grid as the image.

    A cell is gland where glands cover at least half of its area, and of the one that covers most.
    """
    numbers = [int(number) for number in np.unique(glands) if number]
    shares = np.zeros((1 + len(numbers), size, size), np.float32)
    for row, number in enumerate(numbers, start=1):
        mask = Image.fromarray((glands == number).astype(np.float32))
        shares[row] = np.asarray(mask.resize((size, size), Image.Resampling.BOX))
    covered = shares.sum(0) >= 0.5
    return np.where(covered, np.array([0, *numbers])[shares.argmax(0)], 0)
