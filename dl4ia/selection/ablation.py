"""Which of the winner's choices matter: each is turned back, alone, to the report's value.

Each effect is a mean of differences, paired over repeats. These are not the repeats by which the
winner was chosen: there it had luck, which would be taken for what its choices buy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.search_space import Point, Space, applies
from dl4ia.selection.repeats import Repeats
from dl4ia.statistics import Estimate, estimate


@dataclass(frozen=True)
class Effect:
    """What one choice buys.

    differences: the winner's value minus that with the choice turned back, one a repeat.
    failure: why it could not be trained; "" where it could.
    """

    name: str
    chosen: Any
    turned_back: Any
    differences: tuple[float, ...]
    failure: str = ""

    def estimate(self, held_out: float) -> Estimate:
        """Mean and 95 % interval of the differences."""
        return estimate(self.differences, held_out)


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
    after_effect: Callable[[Effect], object],
) -> list[Effect]:
    """The effect of each choice of `winner`, largest first; those that failed last.

    turned: of `turned_back`. label: the winner's, for MLflow's runs. Raises TrialFailure where the
    winner itself fails, and OutOfMemory where the memory runs out for any: not for good.
    """
    labels = {name: f"{label}, {name} turned back" for name in turned}
    points = {label: winner} | {labels[name]: point for name, point in turned.items()}
    repeats.prepare(points, repeats.numbers)
    values = [repeats.value(winner, number, label, after_epoch) for number in repeats.numbers]
    effects = []
    for name, point in turned.items():
        differences, failure, without = [], "", labels[name]
        try:
            for number, value in zip(repeats.numbers, values, strict=True):
                differences.append(value - repeats.value(point, number, without, after_epoch))
        except OutOfMemory:
            raise
        except TrialFailure as error:
            failure = str(error)
        effect = Effect(name, winner[name], point[name], tuple(differences), failure)
        effects.append(effect)
        after_effect(effect)
    return sorted(effects, key=lambda each: (bool(each.failure), -_mean(each)))


def _mean(effect: Effect) -> float:
    return sum(effect.differences) / max(1, len(effect.differences))
