"""A study of a part of a search space: `--within`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dl4ia.errors import InputError
from dl4ia.search_space import (
    Choice,
    Domain,
    Integer,
    Point,
    Real,
    Space,
    SpaceModule,
    Value,
)
from dl4ia.text import printable

NONE_OF_THE_REPORTS = "None of the report's models is inside what --within leaves to search."


@dataclass
class Part:
    """Of what a file of `search_spaces` declares: a smaller space, and the points inside it."""

    SPACE: Space
    REPORT_MODELS: dict[str, Point]
    REPORT_NOTE: str
    BASELINE: str
    REFERENCE_MODELS: dict[str, Point]


def narrowed(whole: SpaceModule, within: Sequence[tuple[str, str]]) -> SpaceModule:
    """`whole` with fewer values of some hyperparameters, and the named points that keep to them.

    Hyperparameters that then apply nowhere are left out. within: a hyperparameter's name, and some
    of its values as text: `unet,resnet` of a choice, `3` or `2..4` of numbers. Raises InputError
    where that is none, or where it could never apply.
    """
    if not within:
        return whole
    space = dict(whole.SPACE)
    for name, text in within:
        if name not in whole.SPACE:
            raise InputError(
                f"--within {name}={printable(text)}: no hyperparameter of this study; expected "
                f"some of {', '.join(space)}"
            )
        if space[name] is not whole.SPACE[name]:
            raise InputError(f"--within {name}={printable(text)}: {name} is given twice")
        space[name] = _part_of(space[name], name, text)
    for name, text in within:
        if missing := _missing(space, name):
            raise InputError(
                f"--within {name}={printable(text)}: {name} applies where {missing} is "
                f"{' or '.join(map(str, space[name].when[missing]))}, which --within leaves out"
            )
    space = {name: domain for name, domain in space.items() if not _missing(space, name)}
    reports = _inside(space, whole.REPORT_MODELS)
    references = _inside(space, whole.REFERENCE_MODELS)
    note = _note(whole, reports)
    return Part(space, reports, note, whole.BASELINE, references)


def _note(whole: SpaceModule, inside: Mapping[str, Point]) -> str:
    """What to bear in mind of the report's models, when some are not run."""
    if not inside:
        return NONE_OF_THE_REPORTS
    outside = [label for label in whole.REPORT_MODELS if label not in inside]
    if not outside:
        return whole.REPORT_NOTE
    said = f"Of the report's models --within leaves out {', '.join(outside)}."
    return f"{whole.REPORT_NOTE} {said}"


def spelled(whole: SpaceModule, part: SpaceModule) -> str:
    """What `--within` has left of the whole: the same text for the same part, "" for all of it."""
    return " ".join(
        f"{name}={_spelled(domain)}"
        for name, domain in part.SPACE.items()
        if domain != whole.SPACE[name]
    )


def left_out(part: Space, point: Point) -> list[str]:
    """What of a point of the whole space is outside the part, as `name=value`."""
    return [
        f"{name}={value!r}"
        for name, value in point.items()
        if name not in part or value not in part[name]
    ]


def _spelled(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return ",".join(map(str, domain.values))
    if domain.low == domain.high:
        return str(domain.low)
    return f"{domain.low}..{domain.high}"


def _part_of(domain: Domain, name: str, text: str) -> Domain:
    """The domain with the values of `text` alone."""
    if isinstance(domain, Choice):
        words = text.split(",")
        chosen = [value for value in domain.values if any(_is(value, word) for word in words)]
        if len(chosen) < len(words):
            some = ", ".join(map(str, domain.values))
            raise InputError(
                f"--within {name}={printable(text)}: expected some of {some}, each once, with "
                "commas between"
            )
        # In the space's order: the same values are the same space, however they are written.
        return replace(domain, values=tuple(chosen))
    first, dots, last = text.partition("..")
    low, high = (_number(word, domain) for word in (first, last if dots else first))
    if low is None or high is None or low > high:
        raise InputError(
            f"--within {name}={printable(text)}: expected a {_kind(domain)}, or two as in "
            f"LOW..HIGH, within {domain}"
        )
    ends: dict[str, Any] = {"low": low, "high": high}
    return replace(domain, **ends)


def _is(value: Value, word: str) -> bool:
    """Whether a word of the command line means this value: `True` or `true`, `0` for 0.0."""
    if str(value).lower() == word.lower():
        return True
    return type(value) in (int, float) and _float(word) == value


def _number(word: str, domain: Real | Integer) -> float | int | None:
    """One inside the domain; None where the word is none."""
    value = _float(word)
    if not math.isfinite(value):
        return None
    number = int(value) if isinstance(domain, Integer) and value == int(value) else value + 0.0
    return number if number in domain else None


def _float(word: str) -> float:
    try:
        return float(word) if word.isascii() else math.nan  # not of any script's digits
    except ValueError:
        return math.nan


def _kind(domain: Real | Integer) -> str:
    return "whole number" if isinstance(domain, Integer) else "number"


def _missing(space: Space, name: str) -> str | None:
    """By which other hyperparameter's values this one can apply at no point of the space."""
    for other, values in space[name].when.items():
        if not any(value in space[other] for value in values) or _missing(space, other):
            return other
    return None


def _inside(space: Space, points: Mapping[str, Point]) -> dict[str, Point]:
    return {label: point for label, point in points.items() if not left_out(space, point)}
