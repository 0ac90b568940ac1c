"""What is printed while the search runs: a line for each trial, and a bar."""

import sys
import time

import optuna
from optuna.trial import FrozenTrial
from tqdm import tqdm

from dl4ia.report import terminal
from dl4ia.search.trials import ended_trials, finished_trials
from dl4ia.selection.ranking import best_value


class Progress:
    """The trials of a study that are to be `trials` in all, as they finish."""

    def __init__(self, study: optuna.Study, trials: int) -> None:
        self._study, self._trials = study, trials
        self._seen = {trial.number for trial in self._ended()}
        self._before = len(finished_trials(study))
        self._start = time.perf_counter()

    def __enter__(self) -> "Progress":
        self._bar = tqdm(
            total=max(self._trials, self._before),
            initial=self._before,
            unit="trial",
            disable=None,
            leave=False,
        )
        return self

    def __exit__(self, *failure: object) -> None:
        self._bar.close()

    @property
    def missing(self) -> int:
        """How many trials are still to finish."""
        return max(0, self._trials - len(finished_trials(self._study)))

    def new_trials(self) -> list[FrozenTrial]:
        """What has ended, in any process, and has not been shown."""
        return [trial for trial in self._ended() if trial.number not in self._seen]

    def show(self, trial: FrozenTrial) -> None:
        """A line, and a step of the bar."""
        self._seen.add(trial.number)
        done = len(finished_trials(self._study))
        best = best_value(self._study)
        elapsed = time.perf_counter() - self._start
        left = elapsed / max(1, done - self._before) * max(0, self._trials - done)
        tqdm.write(terminal.trial_line(trial, done, self._trials, best, left))
        sys.stdout.flush()
        if best is not None:
            self._bar.set_postfix(best=f"{best:.4f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def _ended(self) -> list[FrozenTrial]:
        return ended_trials(self._study)
