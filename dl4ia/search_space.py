"""A search space is data: a flat dict from hyperparameter name to a typed domain.

It is read to sample a point from a trial (`sample`), to check that a named point lies inside
(`check_point`), to tell one space from another (`fingerprint`), and to write the table of
search_spaces/README.md (`markdown_table`).

A domain may carry `when`, the values of earlier hyperparameters for which it applies. Where it
does not apply it is absent from the point: neither sampled nor logged, so that it cannot blur the
importances of those that do.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Protocol, TypeVar

Settings = TypeVar("Settings")  # a dataclass
Value = bool | int | float | str
Point = dict[str, Any]
Condition = Mapping[str, tuple[Value, ...]]


class Suggester(Protocol):
    """The part of `optuna.Trial` that sampling needs."""

    def suggest_categorical(self, name: str, choices: tuple[Value, ...]) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int) -> int: ...


@dataclass(frozen=True)
class Choice:
    """One of `values`, in no order."""

    values: tuple[Value, ...]
    doc: str
    when: Condition = field(default_factory=dict)

    def suggest(self, trial: Suggester, name: str) -> Value:
        chosen: Value = trial.suggest_categorical(name, self.values)
        return chosen

    def __contains__(self, value: object) -> bool:
        # True == 1 in Python, but `residual=1` is a mistake.
        return any(value == known and type(value) is type(known) for known in self.values)

    def __str__(self) -> str:
        return ", ".join(f"`{value}`" for value in self.values)


@dataclass(frozen=True)
class Real:
    """A float in [low, high], uniform in its logarithm where `log`."""

    low: float
    high: float
    log: bool
    doc: str
    when: Condition = field(default_factory=dict)

    def suggest(self, trial: Suggester, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Integer:
    """An int in [low, high]."""

    low: int
    high: int
    doc: str
    when: Condition = field(default_factory=dict)

    def suggest(self, trial: Suggester, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high)

    def __contains__(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" if self.low < self.high else f"{self.low}"


Domain = Choice | Real | Integer
Space = Mapping[str, Domain]


class SpaceModule(Protocol):
    """What a file of `search_spaces` declares."""

    SPACE: Space
    REPORT_MODELS: dict[str, Point]
    REPORT_NOTE: str  # what to bear in mind when they are compared with the other trials
    BASELINE: str  # the report model that an ablation turns the winner's choices back to
    REFERENCE_MODELS: dict[str, Point]  # further named points, run after the report's


def choice(*values: Value, doc: str, when: Condition | None = None) -> Choice:
    """One of `values`."""
    return Choice(values, doc, when or {})


def real(
    low: float, high: float, *, log: bool = False, doc: str, when: Condition | None = None
) -> Real:
    """A float in [low, high]."""
    return Real(low, high, log, doc, when or {})


def integer(low: int, high: int, *, doc: str, when: Condition | None = None) -> Integer:
    """An int in [low, high]."""
    return Integer(low, high, doc, when or {})


def applies(domain: Domain, point: Mapping[str, Any]) -> bool:
    """Whether the hyperparameter of this domain has a meaning at this (partial) point."""
    return all(point.get(name) in values for name, values in domain.when.items())


def sample(space: Space, trial: Suggester) -> Point:
    """Draw a point: one value for every hyperparameter that applies, in the space's order."""
    point: Point = {}
    for name, domain in space.items():
        if applies(domain, point):
            point[name] = domain.suggest(trial, name)
    return point


def settings_of(kind: type[Settings], point: Mapping[str, Any]) -> Settings:
    """The hyperparameters of `point` that are fields of the dataclass `kind`."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: point[name] for name in point if name in names})


def defaults_of(kind: type) -> Point:
    """What the fields of the dataclass `kind` are where `settings_of` has no value for them."""
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def check_point(space: Space, point: Mapping[str, Any], label: str) -> None:
    """Raise ValueError, naming `label` and the value, where `point` is not a point of `space`.

    Optuna only warns when an enqueued value is out of range, and samples a missing one.
    """
    for name in point:
        if name not in space:
            raise ValueError(f"{label}: {name} is not in the space; known: {', '.join(space)}")
    for name, domain in space.items():
        if applies(domain, point):
            if name not in point:
                raise ValueError(f"{label}: {name} is missing; expected {domain}")
            if point[name] not in domain:
                raise ValueError(f"{label}: {name}={point[name]!r} is outside {domain}")
        elif name in point:
            raise ValueError(f"{label}: {name} does not apply here; it needs {dict(domain.when)}")


def fingerprint(space: Space) -> str:
    """Twelve hexadecimal digits that change whenever a name, range, choice or condition does."""
    described = {}
    for name, domain in space.items():
        described[name] = {"kind": type(domain).__name__, **asdict(domain)}
        del described[name]["doc"]  # a reworded meaning is the same space
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]


def space_table(space: Space) -> str:
    """The space as a Markdown table."""
    lines = ["| hyperparameter | values | applies when | meaning |", "|---|---|---|---|"]
    for name, domain in space.items():
        conditions = "; ".join(
            f"{other} is {' or '.join(str(value) for value in values)}"
            for other, values in domain.when.items()
        )
        lines.append(f"| `{name}` | {domain} | {conditions} | {domain.doc} |")
    return "\n".join(lines) + "\n"


def markdown_table(space: Space, points: Mapping[str, Mapping[str, Any]]) -> str:
    """The space and its named points as two Markdown tables."""
    names = " | ".join(f"`{name}`" for name in points)
    lines = [space_table(space), f"| named point | {names} |"]
    lines.append("|---" * (len(points) + 1) + "|")
    for name in space:
        row = " | ".join(str(point.get(name, "–")) for point in points.values())
        lines.append(f"| `{name}` | {row} |")
    return "\n".join(lines) + "\n"
