"""Jobs in a folder that several processes share: each job is done by one of them.

A job is taken by locking a file, which the system lets go of when its holder dies.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LIST, DONE = "jobs.json", ".done"

Job = Mapping[str, Any]  # as JSON has it


def put_jobs(folder: Path, jobs: Sequence[Job]) -> None:
    """Into an empty folder."""
    (folder / LIST).write_text(json.dumps(list(jobs)), encoding="utf-8")


def take_jobs(folder: Path) -> Iterator[Job]:
    """One after another those that no other process does or has done.

    Done is a job when the next one is asked for.
    """
    for number, job in enumerate(json.loads((folder / LIST).read_text(encoding="utf-8"))):
        mark = folder / f"{number}{DONE}"
        try:
            with FileLock(folder / f"{number}.lock", timeout=0):
                if not mark.exists():
                    yield job
                    mark.touch()
        except Timeout:
            continue


def jobs_done(folder: Path) -> int:
    """How many."""
    return sum(1 for _ in folder.glob(f"*{DONE}"))
