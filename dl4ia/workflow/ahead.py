"""How many workers a study has, and trainings that follow its search, several at once.

Such trainings are kept in the study or in files, and whoever needs one that is not kept trains it.
So those that are known to be needed may be trained ahead, in any order and in any process.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from dl4ia.command_line.process import GRACE
from dl4ia.errors import InputError, TrialFailure
from dl4ia.search.trials import seconds_of
from dl4ia.selection.ranking import ranked_trials
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.training.usage import give_memory_back
from dl4ia.workers.cluster import RayWorkers
from dl4ia.workers.jobs import Job, close_jobs, jobs_done, put_jobs, take_jobs
from dl4ia.workers.processes import Workers, WorkersDied, default_count

OFTEN = 0.5  # seconds between two looks
START_UP = 10.0  # seconds until workers train


def worker_count(session: Session) -> int:
    """As asked for, or as many as the machine has room for."""
    device = session.objective.device.type
    return session.arguments.workers or default_count(device, _gpus(session))


def open_workers(session: Session, count: int, flags: Sequence[str] = ()) -> Workers | RayWorkers:
    """Of this machine, or of a Ray cluster; they start with `with`."""
    arguments, gpus = session.arguments, _gpus(session)
    if arguments.ray:
        share = arguments.gpus_per_worker
        gpus_each = min(1, gpus) if share is None else share
        return RayWorkers(arguments.ray, count, gpus_each, session.task.cores_a_worker, flags)
    logs = arguments.out / "artifacts" / session.name / "workers"
    return Workers(count, logs, gpus, flags)


class Ahead:
    """Trainings by this machine's workers, which start when there are some and stay for more."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open = ExitStack()
        self._workers: Workers | RayWorkers | None = None
        self._count = 0

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, failure: type[BaseException] | None, *further: object) -> None:
        self.close(patience=0.0 if failure else GRACE)

    def train(self, jobs: Sequence[Job], heading: str = "") -> None:
        """Have `jobs` trained, where several at once are worth the workers' start.

        Each has a "kind", one of `work_ahead`'s ways. heading: of what is printed. Where workers
        die and die, the jobs are left to whoever needs them. Raises InputError where a worker does.
        """
        session, count = self._session, min(worker_count(self._session), len(jobs))
        is_open = self._workers is not None and count == self._count
        if count < 2 or session.arguments.ray:
            return
        if not (is_open or _is_worth_it(session, len(jobs), count)):
            return
        tqdm.write(f"{heading}  {plural(len(jobs), 'training')}, {count} at once")
        sys.stdout.flush()
        try:
            if not is_open:
                self.close()
                self._start(count)
            self._wait_for(jobs)
        except WorkersDied as error:
            tqdm.write(f"{error}; here the trainings go on one by one")
            self.close()

    def close(self, patience: float = GRACE) -> None:
        """End the workers: those that have nothing to do by themselves, within so many seconds."""
        if self._workers is not None:
            close_jobs(self._folder)
            end = time.monotonic() + patience
            with suppress(InputError):  # that one has died: nothing more is asked of it
                while time.monotonic() < end and self._workers.mend(False):
                    time.sleep(0.05)
        self._open.close()
        self._workers = None

    def _start(self, count: int) -> None:
        folder = self._open.enter_context(TemporaryDirectory())
        workers = open_workers(self._session, count, ["--jobs", folder])
        self._workers, self._count, self._folder = workers, count, Path(folder)
        self._open.enter_context(workers)

    def _wait_for(self, jobs: Sequence[Job]) -> None:
        assert self._workers is not None
        before, done, at_work = jobs_done(self._folder), 0, True
        put_jobs(self._folder, jobs)
        with tqdm(total=len(jobs), unit="training", disable=None, leave=False) as bar:
            while at_work and done < len(jobs):
                time.sleep(OFTEN)
                new = jobs_done(self._folder) - before - done
                at_work = self._workers.mend(new > 0)
                done += new
                bar.update(new)
        if not at_work:
            self.close()


def work_ahead(folder: Path, ways: Mapping[str, Callable[[Job], object]]) -> None:
    """In a worker: train the jobs in `folder` that no other one does, each in the way of its kind.

    A training that fails is left to whoever needs it, to fail there again and be told of.
    """
    for job in take_jobs(folder):
        try:
            ways[job["kind"]](job)
        except TrialFailure as failure:
            print(f"{job}: {failure}", flush=True)
        give_memory_back()


def _is_worth_it(session: Session, jobs: int, count: int) -> bool:
    """Whether `count` workers save more time than their start costs, going by the search's trials.

    Who asks for workers has them.
    """
    if session.arguments.workers:
        return True
    completed = ranked_trials(session.study)
    seconds = [seconds_of(trial) for trial in completed]
    return bool(seconds) and (jobs - jobs / count) * median(seconds) > START_UP


def _gpus(session: Session) -> int:
    return torch.cuda.device_count() if session.objective.device.type == "cuda" else 0
