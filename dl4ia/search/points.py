"""Points that the user knows to be good, read from a file: `--points`."""

import json
from pathlib import Path
from typing import Any

from dl4ia.errors import InputError, first_line
from dl4ia.search_space import Point, Space, check_point
from dl4ia.text import printable

EXPECTED = (
    "expected JSON: a study.json of `dl4ia results`, an object of hyperparameters such as those of "
    "search_spaces/README.md, or a list of such objects"
)


LARGEST_EXACT = 2**53  # whole number that a float holds, and all below it
LONGEST_NAME = 100  # of a study


def read_points(file: Path, space: Space) -> dict[str, Point]:
    """Label -> point. Raises InputError where the file holds anything but points of `space`."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--points {file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"--points {file}: {EXPECTED} ({first_line(error)})") from error
    found = held if isinstance(held, list) else [held]
    points: dict[str, Point] = {}
    for number, each in enumerate(found, start=1):
        if not isinstance(each, dict) or not each:
            raise InputError(f"--points {file}: {EXPECTED}")
        label, held_point = _labelled(each, f"{printable(file.stem)} {number}")
        point = _with_reals(held_point, space)
        if label in points:
            label += f" {number}"
        try:
            check_point(space, point, label)
        except ValueError as error:
            raise InputError(f"--points {file}: {error}") from error
        points[label] = point
    if not points:
        raise InputError(f"--points {file}: {EXPECTED}; it is an empty list")
    return points


def _with_reals(point: Point, space: Space) -> Point:
    """JSON has one kind of number: 1 for a real is 1.0."""
    return {
        name: float(value)
        if type(value) is int
        and abs(value) <= LARGEST_EXACT
        and name in space
        and value not in space[name]
        and float(value) in space[name]
        else value
        for name, value in point.items()
    }


def _labelled(held: dict[str, Any], label: str) -> tuple[str, Point]:
    """Of a study's record its winner; of anything else itself."""
    if isinstance(held.get("point"), dict):
        if "study" in held:
            label = f"winner of {printable(str(held['study']))[:LONGEST_NAME]}"
        return label, held["point"]
    return label, held
