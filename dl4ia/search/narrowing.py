"""A study of a part of a search space: `--only`."""

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
    check_point,
)
from dl4ia.text import printable

NONE_OF_THE_REPORTS = "None of the report's models is inside what --only leaves to search."


@dataclass
class Part:
    """Of what a file of `search_spaces` declares: a smaller space, and the points inside it."""

    SPACE: Space
    REPORT_MODELS: dict[str, Point]
    REPORT_NOTE: str
    BASELINE: str
    REFERENCE_MODELS: dict[str, Point]


def narrowed(searched: SpaceModule, only: Sequence[tuple[str, str]]) -> SpaceModule:
    """`searched` with fewer values of some hyperparameters, and the named points that keep to them.

    only: a hyperparameter's name, and some of its values as text: `unet,resnet` of a choice, `3` or
    `2..4` of numbers. Raises InputError where that is none, or where it could never apply.
    """
    if not only:
        return searched
    space = dict(searched.SPACE)
    for name, text in only:
        if name not in searched.SPACE:
            raise InputError(
                f"--only {name}={printable(text)}: no hyperparameter of this study; expected some "
                f"of {', '.join(space)}"
            )
        if space[name] is not searched.SPACE[name]:
            raise InputError(f"--only {name}={printable(text)}: {name} is given twice")
        space[name] = _part_of(space[name], name, text)
    for name, text in only:
        if missing := _missing(space, name):
            raise InputError(
                f"--only {name}={printable(text)}: {name} applies where {missing} is "
                f"{' or '.join(map(str, space[name].when[missing]))}, which --only leaves out"
            )
    reports = _inside(space, searched.REPORT_MODELS)
    note = searched.REPORT_NOTE if reports else NONE_OF_THE_REPORTS
    references = _inside(space, searched.REFERENCE_MODELS)
    return Part(space, reports, note, searched.BASELINE, references)


def spelled(whole: SpaceModule, part: SpaceModule) -> str:
    """What `--only` has left of the whole: the same text for the same part, "" for all of it."""
    return " ".join(
        f"{name}={_spelled(domain)}"
        for name, domain in part.SPACE.items()
        if domain != whole.SPACE[name]
    )


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
                f"--only {name}={printable(text)}: expected some of {some}, each once, with commas "
                "between"
            )
        # In the space's order: the same values are the same space, however they are written.
        return replace(domain, values=tuple(chosen))
    first, dots, last = text.partition("..")
    low, high = (_number(word, domain) for word in (first, last if dots else first))
    if low is None or high is None or low > high:
        raise InputError(
            f"--only {name}={printable(text)}: expected a {_kind(domain)}, or two as in LOW..HIGH, "
            f"within {domain}"
        )
    ends: dict[str, Any] = {"low": low, "high": high}
    return replace(domain, **ends)


def _is(value: Value, word: str) -> bool:
    """Whether a word of the command line means this value: `True` or `true`, `0` for 0.0."""
    if str(value).lower() == word.lower():
        return True
    return isinstance(value, float) and _float(word) == value


def _number(word: str, domain: Real | Integer) -> float | int | None:
    """One inside the domain; None where the word is none."""
    value = _float(word)
    if not math.isfinite(value):
        return None
    number = int(value) if isinstance(domain, Integer) and value == int(value) else value
    return number if number in domain else None


def _float(word: str) -> float:
    try:
        return float(word) if word.isascii() else math.nan
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
    """Those that are points of the space."""
    inside = {}
    for label, point in points.items():
        try:
            check_point(space, point, label)
        except ValueError:
            continue
        inside[label] = point
    return inside
