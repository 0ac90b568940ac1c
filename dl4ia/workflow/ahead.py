"""How many workers a study has, and trainings that follow its search, several at once.

Such trainings are kept in the study or in files, and whoever needs one that is not kept trains it.
So those that are known to be needed may be trained ahead, in any order and in any process.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from dl4ia.command_line.process import GRACE
from dl4ia.errors import TrialFailure
from dl4ia.search.trials import seconds_of
from dl4ia.selection.ranking import ranked_trials
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.training.usage import give_memory_back
from dl4ia.workers.cluster import RayWorkers
from dl4ia.workers.jobs import Job, close_jobs, jobs_done, put_jobs, take_jobs
from dl4ia.workers.processes import Workers, WorkersDied, default_count

OFTEN = 0.5  # seconds between two looks
FAILED = "failed"  # a file among the jobs: that one of them has
START_UP = 10.0  # seconds until workers train


def worker_count(session: Session) -> int:
    """As asked for, or as many as the machine has room for.

    One where the seconds of an epoch are an objective: others would slow it down.
    """
    device = session.objective.device.type
    room = 1 if "seconds" in session.arguments.objectives else default_count(device, _gpus(session))
    return session.arguments.workers or room


def open_workers(session: Session, count: int, flags: Sequence[str] = ()) -> Workers | RayWorkers:
    """Of this machine, or of a Ray cluster; they start with `with`."""
    arguments, gpus = session.arguments, _gpus(session)
    if arguments.ray:
        share = arguments.gpus_per_worker
        gpus_each = min(1, gpus) if share is None else share
        cores = session.task.cores_a_worker
        return RayWorkers(arguments.ray, count, gpus_each, cores, flags, session.storage)
    return local_workers(session, count, flags)


def local_workers(session: Session, count: int, flags: Sequence[str]) -> Workers:
    """Of this machine; they start with `with`."""
    logs = session.arguments.out / "artifacts" / session.name / "workers"
    return Workers(count, logs, _gpus(session), flags)


class Ahead:
    """Trainings by this machine's workers, which start when there are some and stay for more."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open = ExitStack()
        self._workers: Workers | None = None
        self._count = self._most = 0  # workers that are open, and that there was room for

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, failure: type[BaseException] | None, *further: object) -> None:
        self.close(patience=0.0 if failure else GRACE)

    def train(self, jobs: Sequence[Job], heading: str = "") -> None:
        """Have `jobs` trained, where several at once are worth the workers' start.

        Each has a "kind", one of `work_ahead`'s ways. heading: of what is printed. Where workers
        die and die, the jobs are left to whoever needs them. Raises InputError where a worker does.
        """
        # Open ones take of the memory that would be counted.
        most = self._most if self._workers else worker_count(self._session)
        count = min(most, len(jobs))
        if count < 2 or self._session.arguments.ray:
            return
        # Half as many would have twice the cores each.
        fit = self._count // 2 < count <= self._count
        starts = not fit and _is_worth_it(self._session, len(jobs), count)
        if not (starts or self._workers):
            return
        at_once = count if starts else min(count, self._count)
        tqdm.write(f"{heading}  {plural(len(jobs), 'training')}, {at_once} at once")
        sys.stdout.flush()
        try:
            if starts:
                self.close()
                self._start(count, most)
            self._wait_for(jobs)
        except WorkersDied as error:
            tqdm.write(f"{error}; here the trainings go on one by one")
            self.close()

    def close(self, patience: float = GRACE) -> None:
        """End the workers: those that have nothing to do by themselves, within so many seconds."""
        try:
            if self._workers is not None:
                close_jobs(self._folder)
                end = time.monotonic() + patience
                while time.monotonic() < end and self._workers.at_work():
                    time.sleep(0.05)
        finally:
            self._workers, self._count = None, 0
            self._open.close()

    def _start(self, count: int, most: int) -> None:
        folder = self._open.enter_context(TemporaryDirectory())
        self._folder = Path(folder)
        self._workers = local_workers(self._session, count, ["--jobs", folder])
        self._count, self._most = count, most
        self._open.enter_context(self._workers)

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
        # What failed may do so for want of memory: it is to be alone when it is trained again.
        if not at_work or (self._folder / FAILED).exists():
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
            (folder / FAILED).touch()
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
