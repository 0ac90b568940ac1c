"""Jobs in a folder that several processes share: each job is done by one of them.

A job is taken by locking a file, which the system lets go of when its holder dies. More jobs may be
put into the folder, until it is closed.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

JOB, DONE, CLOSED = ".json", ".done", "closed"  # a job's files are called by its number
PAUSE = 0.1  # seconds between two looks for more jobs

Job = Mapping[str, Any]  # as JSON has it


def put_jobs(folder: Path, jobs: Sequence[Job]) -> None:
    """Behind those that are there. One process alone puts jobs into a folder."""
    first = sum(1 for _ in folder.glob(f"*{JOB}"))
    for number, job in enumerate(jobs, start=first):
        unfinished = folder / f"{number}.part"
        unfinished.write_text(json.dumps(job), encoding="utf-8")
        unfinished.replace(folder / f"{number}{JOB}")


def close_jobs(folder: Path) -> None:
    """No more will be put there."""
    (folder / CLOSED).touch()


def take_jobs(folder: Path) -> Iterator[Job]:
    """One after another those that no other process does or has done; waits for more until closed.

    Done is a job when the next one is asked for.
    """
    while True:
        closed = (folder / CLOSED).exists()  # before the look: what was put there first is seen
        yield from _take_known(folder)
        if closed:
            return
        time.sleep(PAUSE)


def _take_known(folder: Path) -> Iterator[Job]:
    for file in sorted(folder.glob(f"*{JOB}"), key=lambda file: int(file.stem)):
        mark = file.with_suffix(DONE)
        if mark.exists():  # most are, and a lock takes its time
            continue
        try:
            with FileLock(file.with_suffix(".lock"), timeout=0):
                if not mark.exists():
                    yield json.loads(file.read_text(encoding="utf-8"))
                    mark.touch()
        except Timeout:
            continue


def jobs_done(folder: Path) -> int:
    """How many of the folder's jobs are done."""
    return sum(1 for _ in folder.glob(f"*{DONE}"))
