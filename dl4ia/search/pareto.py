"""Several objectives: the trials that no other beats in all of them, and the knee among these."""

import math
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from dl4ia.errors import InputError


def pareto_front(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials that no other beats, best first objective first.

    Raises InputError where no trial is completed.
    """
    front = sorted(study.best_trials, key=lambda trial: (-trial.values[0], trial.number))
    if not front:
        raise InputError(
            f"study {study.study_name!r} has no completed trial; more trials (--trials) may help"
        )
    return front


def knee_point(front: Sequence[FrozenTrial]) -> FrozenTrial:
    """The trial nearest to the best of every objective: the compromise solution of Zeleny (1973).

    Each objective runs from 0, the front's best, to 1, its worst; all but the first, weights and
    seconds, by their logarithms, since they differ by factors. Of equals the one that comes first.
    """
    columns = []
    for number in range(len(front[0].values)):
        values = [trial.values[number] for trial in front]
        column = [-value for value in values] if number == 0 else [math.log(v) for v in values]
        best, worst = min(column), max(column)
        columns.append([(value - best) / (worst - best or 1.0) for value in column])
    distances = [math.hypot(*losses) for losses in zip(*columns, strict=True)]
    return front[distances.index(min(distances))]
