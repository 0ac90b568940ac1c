"""Whose images they are: patients.csv, which may stand beside Train/ and Test/."""

import csv
from collections.abc import Sequence
from pathlib import Path

from dl4ia.errors import InputError

FILE = "patients.csv"
COLUMNS = ("split", "image", "patient")  # whatever else it has is not read


def read_patients(folder: Path, part: str, images: Sequence[str]) -> tuple[str, ...] | None:
    """The patient of each of N `images`, file names in the folder's `part` ("Train" or "Test").

    None where the folder has no patients.csv. Only the rows of this part are looked at; those of
    images that are not asked for are passed over. Raises InputError, naming the file and the line
    or image, where the file cannot be read, lacks a column, or has for an image no row, two, or
    one without a patient.
    """
    file = folder / FILE
    if not file.exists():
        return None
    wanted = set(images)
    rows: dict[str, tuple[int, str]] = {}  # line and patient of each image
    for line, image, patient in _read_rows(file, part):
        if image not in wanted:
            continue
        if image in rows:
            raise InputError(
                f"{file}, line {line}: {part},{image} again, after line {rows[image][0]}; expected "
                "one row an image: remove one of them"
            )
        if not patient:
            raise InputError(
                f"{file}, line {line}: no patient for {part},{image}; expected a name or number: "
                "fill it in"
            )
        rows[image] = (line, patient)
    for image in images:
        if image not in rows:
            raise InputError(
                f"{file}: no row for {part}/{image}; expected one for every image: add "
                f"{part},{image} and its patient"
            )
    return tuple(rows[image][1] for image in images)


def _read_rows(file: Path, part: str) -> list[tuple[int, str, str]]:
    """Line, image and patient of each of the part's rows."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:  # Excel writes a mark first
            reader = csv.DictReader(lines, strict=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            _check_columns(file, reader.fieldnames)
            rows = []
            for row in reader:
                split, image, patient = ((row[name] or "").strip() for name in COLUMNS)
                if split == part:
                    rows.append((reader.line_num, image, patient))
            return rows
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); make it readable, or remove it"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{file}: cannot be read as CSV in UTF-8 ({error}); save it so, or remove it"
        ) from error


def _check_columns(file: Path, found: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise InputError(
            f"{file}, line 1: no column {' and no '.join(missing)} in {', '.join(found)!r:.100}; "
            f"expected {','.join(COLUMNS)}, with commas between: name the columns so"
        )
