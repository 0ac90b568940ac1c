"""The search's trials: those that are missing, in this process or in several."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from optuna.trial import FrozenTrial

from dl4ia.report import dashboard
from dl4ia.report.progress import Progress
from dl4ia.search.loop import search
from dl4ia.search.trials import has_died
from dl4ia.session import Session
from dl4ia.workers.cluster import RayWorkers
from dl4ia.workers.processes import Workers
from dl4ia.workflow.ahead import OFTEN, open_workers, worker_count

# For each worker that nobody asked for. Of those trials that run at once none knows what the others
# come to, and each worker begins with one more that is random: of 50, 8 leave half to model.
TRIALS_A_WORKER = 6


class Trials:
    """Those that are missing when `with` begins; its workers, if any, start up at once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._progress = Progress(session.study, session.arguments.trials)
        self._open = ExitStack()

    def __enter__(self) -> "Trials":
        arguments = self._session.arguments
        count = min(worker_count(self._session), self._progress.missing)
        if not arguments.workers:
            count = min(count, max(1, arguments.trials // TRIALS_A_WORKER))
        self._workers: Workers | RayWorkers | None = None
        if count > 1 or (count and arguments.ray):
            # One that replaces another has no more time than that one had.
            end = self._session.search_time.end()
            flags = [] if end is None else ["--until", str(end)]
            self._workers = open_workers(self._session, count, flags)
            self._open.enter_context(self._workers)
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def run(self, look: Callable[[], object] = lambda: None) -> None:
        """Until all have finished, or the time is over; a line for each, after which `look`s."""
        with self._open, self._progress:

            def after_trial(trial: FrozenTrial) -> None:
                self._progress.show(trial)
                look()

            if self._workers is None:
                train_trials(self._session, after_trial)
                return
            at_work = True
            while at_work:
                time.sleep(OFTEN)
                new = self._progress.new_trials()
                at_work = self._workers.mend(any(not has_died(trial) for trial in new))
                for trial in new:
                    after_trial(trial)
                if new and not self._progress.missing:  # a cluster may have workers still to begin
                    break
            for trial in self._progress.new_trials():
                after_trial(trial)


def train_trials(
    session: Session, after_trial: Callable[[FrozenTrial], None] = lambda trial: None
) -> None:
    """Trials in this process, as long as any is missing; `after_trial` is shown each."""
    pictures = partial(dashboard.write_trial_pictures, session)
    objective = replace(session.objective, after_training=pictures)
    end = session.search_time.end()
    timeout = None if end is None else end - time.time()
    search(session.study, objective, session.arguments.trials, timeout, session.turns, after_trial)
