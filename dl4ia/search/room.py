"""Memory that trials side by side have to share."""

import time

from optuna.trial import FrozenTrial, TrialState

from dl4ia.environment import is_alive

MOST_WAIT = 600.0  # seconds, for memory


class Room:
    """Whether there may be memory for a trial, after one of this process's had none.

    There may be as one of those trials has ended that this machine trained beside it, or after
    MOST_WAIT: it may be what others do that ends, or the process of the neighbour is stopped.
    """

    def __init__(self) -> None:
        self._neighbours: set[int] = set()
        self._end = 0.0

    def was_missing(self, trials: list[FrozenTrial]) -> None:
        """For a trial of this process that has just ended."""
        self._end = time.monotonic() + MOST_WAIT
        self._neighbours = {
            trial.number
            for trial in trials
            if trial.state == TrialState.RUNNING
            and "process" in trial.user_attrs  # else it is just claimed
            and is_alive(trial.user_attrs["process"])
        }

    def is_there(self, trials: list[FrozenTrial]) -> bool:
        """Among these trials, as they are now."""
        running = {trial.number for trial in trials if trial.state == TrialState.RUNNING}
        all_run = bool(self._neighbours) and self._neighbours <= running
        return not all_run or time.monotonic() > self._end
