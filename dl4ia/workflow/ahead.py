"""How many workers a study has, and trainings that follow its search, several at once.

Such trainings are kept in the study or in files, and whoever needs one that is not kept trains it.
So those that are known to be needed may be trained ahead, in any order and in any process.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from dl4ia.errors import TrialFailure
from dl4ia.search.trials import seconds_of
from dl4ia.selection.ranking import ranked_trials
from dl4ia.session import Session
from dl4ia.text import plural
from dl4ia.training.usage import give_memory_back
from dl4ia.workers.cluster import RayWorkers
from dl4ia.workers.jobs import Job, jobs_done, put_jobs, take_jobs
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


def train_ahead(session: Session, jobs: Sequence[Job], heading: str = "") -> None:
    """Have `jobs` trained by this machine's workers, where that is worth their start.

    Each has a "kind", one of `work_ahead`'s ways. heading: of what is printed. Where workers die
    and die, the jobs are left to whoever needs them. Raises InputError where a worker does.
    """
    count = min(worker_count(session), len(jobs))
    if count < 2 or session.arguments.ray or not _is_worth_it(session, len(jobs), count):
        return
    tqdm.write(f"{heading}  {plural(len(jobs), 'training')}, {count} at once")
    sys.stdout.flush()
    with TemporaryDirectory() as name:
        folder = Path(name)
        put_jobs(folder, jobs)
        bar = tqdm(total=len(jobs), unit="training", disable=None, leave=False)
        try:
            with bar, open_workers(session, count, ["--jobs", name]) as workers:
                done, at_work = 0, True
                while at_work:
                    time.sleep(OFTEN)
                    new = jobs_done(folder) - done
                    at_work = workers.mend(new > 0)
                    done += new
                    bar.update(new)
        except WorkersDied as error:
            tqdm.write(f"{error}; here the trainings go on one by one")


def work_ahead(folder: Path, ways: Mapping[str, Callable[[Job], object]]) -> None:
    """In a worker: train the jobs in `folder` that no other one does, each in the way of its kind.

    A training that fails is left to whoever needs it, to fail there again and be told of.
    """
    for job in take_jobs(folder):
        give_memory_back()
        try:
            ways[job["kind"]](job)
        except TrialFailure as failure:
            print(f"{job}: {failure}", flush=True)


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
