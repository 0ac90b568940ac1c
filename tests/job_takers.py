"""What the processes of test_jobs.py run: without torch, they start at once."""

import os
import signal
import time
from pathlib import Path

from dl4ia.workers.jobs import take_jobs


def work(folder: Path, name: str) -> None:
    for job in take_jobs(folder):
        time.sleep(0.01)
        with (folder / name).open("a", encoding="utf-8") as log:
            log.write(f"{job['number']}\n")


def die(folder: Path) -> None:
    for job in take_jobs(folder):
        if job["number"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
