"""Which of the winner's choices matter: each is turned back, alone, to the report's value.

Each effect is a mean of differences, paired over repeats. These are not the repeats by which the
winner was chosen: there it had luck, which would be taken for what its choices buy.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.search_space import Point, Space, applies
from dl4ia.selection.repeats import Repeats
from dl4ia.statistics import Estimate, estimate


@dataclass(frozen=True)
class Effect:
    """What one choice buys.

    differences: the winner's value minus that with the choice turned back, one for each repeat that
        was trained of both.
    failure: why it could not be trained; "" where it could.
    """

    name: str
    chosen: Any
    turned_back: Any
    differences: tuple[float, ...]
    failure: str = ""

    def estimate(self, held_out: float, step: float = 0.0) -> Estimate:
        """Mean and 95 % interval of the differences; step: of `Repeats.step`.

        It is cut off at -1 and 1: they are of shares, which a t does not know.
        """
        return estimate(self.differences, held_out, step).within(-1.0, 1.0)


def estimate_of(effect: Effect, record: Mapping[str, Any]) -> Estimate:
    """Of one of those that a study's attribute "ablation" holds."""
    return effect.estimate(record["held_out"], record.get("step", 0.0))


def effects_of(record: Mapping[str, Any]) -> list[Effect]:
    """Those that a study's attribute "ablation" holds."""
    return [
        Effect(**(each | {"differences": tuple(each["differences"])})) for each in record["effects"]
    ]


def turned_back(
    space: Space,
    winner: Mapping[str, Any],
    known: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Any],
) -> dict[str, Point]:
    """Hyperparameter -> `winner` with that one as in `known[0]`, the baseline.

    Those that have no value in both points, or the same, are left out. Where a hyperparameter
    applies only once another is turned back, it keeps the value that it has where it does not
    apply, of `defaults`, so that one thing changes; one that has none takes that of the first of
    `known` that has it, and where none has it the other one is left out.
    """
    points: dict[str, Point] = {}
    for name in space:
        if name in winner and name in known[0] and winner[name] != known[0][name]:
            point: Point = {}
            for other, domain in space.items():
                if applies(domain, point):
                    sources = known if other == name else [winner, defaults, *known]
                    values = [
                        source[other]
                        for source in sources
                        if other in source and source[other] in domain
                    ]
                    if not values:
                        break
                    point[other] = values[0]
            else:
                points[name] = point
    return points


def ablate(
    winner: Mapping[str, Any],
    turned: Mapping[str, Point],
    repeats: Repeats,
    label: str,
    after_epoch: Callable[[], object],
    after_repeat: Callable[[int, float], object],
) -> None:
    """Train `winner`, and it with each choice turned back, as far as that is missing.

    turned: of `turned_back`. label: the winner's, for MLflow's runs. after_repeat: gets a repeat's
    number and the winner's value there. Raises TrialFailure where the winner itself fails, and
    OutOfMemory where the memory runs out for any: not for good.
    """
    points = {f"{label}, {name} turned back": point for name, point in turned.items()}
    for number in repeats.numbers:
        repeats.prepare({label: winner} | points, [number])
        value = repeats.value(winner, number, label, after_epoch)
        for without, point in list(points.items()):
            try:
                repeats.value(point, number, without, after_epoch)
            except OutOfMemory:
                raise
            except TrialFailure:
                del points[without]
        after_repeat(number, value)


def measured_effects(
    winner: Mapping[str, Any], turned: Mapping[str, Point], repeats: Repeats
) -> list[Effect]:
    """What was trained says of each choice, largest effect first; those that failed last.

    Of a choice that was trained in no repeat that has the winner too it says nothing.
    """
    known, values = repeats.look_up(), {}
    for number in repeats.numbers:
        with suppress(TrialFailure):
            values[number] = known(winner, number)
    effects = []
    for name, point in turned.items():
        differences, failure = [], ""
        for number, value in values.items():
            try:
                without = known(point, number)
            except TrialFailure as error:
                failure = failure or str(error)
                continue
            if value is not None and without is not None:
                differences.append(value - without)
        if differences or failure:
            effects.append(Effect(name, winner[name], point[name], tuple(differences), failure))
    return sorted(effects, key=lambda each: (bool(each.failure), -_mean(each)))


def is_measured(effects: Sequence[Effect], names: Iterable[str], repeats: int) -> bool:
    """Whether each of those choices has an effect over as many repeats, or failed."""
    ended = {each.name for each in effects if each.failure or len(each.differences) == repeats}
    return ended.issuperset(names)


def _mean(effect: Effect) -> float:
    return sum(effect.differences) / max(1, len(effect.differences))
