"""Which trials are pruned: asynchronous successive halving."""

import optuna
from optuna.trial import FrozenTrial

from dl4ia.search.trials import is_interrupted

REDUCTION = 4  # of the trials that go beyond a quarter of the epochs, a quarter go to the end


def rung(epochs: int) -> int:
    """The one epoch after which a trial of so many is pruned or goes on to its end."""
    return epochs // REDUCTION + 1


class Halving(optuna.pruners.BasePruner):
    """Asynchronous successive halving (Li et al. 2020) with one rung, deciding as Optuna's does.

    Of the trials that have come to epoch `rung`, the best one in REDUCTION go on; until there are
    so many, the best one. A trial that was cut off does not compete, as it would in Optuna's: its
    point is trained again, from the same seed, and would have its own ghost beside it. Nor do named
    points, which are trained to the end whatever comes.
    """

    def __init__(self, rung: int) -> None:
        self._rung = rung

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether `trial` is to end here: where it has come no further than the rung, and lost."""
        if trial.last_step != self._rung:
            return False
        value = trial.intermediate_values[self._rung]
        others = [
            other.intermediate_values[self._rung]
            for other in study.get_trials(deepcopy=False)
            if self._rung in other.intermediate_values
            and other.number != trial.number
            and "point" not in other.user_attrs
            and not is_interrupted(other)
        ]
        places = max(1, (len(others) + 1) // REDUCTION)
        return sum(other > value for other in others) >= places
