"""Worker processes: the same command again, as one that only trains.

Each has its share of the processor's cores to itself, or a GPU, which it may share. One that dies
is replaced; its trial is claimed again by whoever finds it dead. All end when the process that
started them does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import psutil

from dl4ia.cgroups import memory_left
from dl4ia.command_line.process import GRACE
from dl4ia.environment import CORES, THREADS, core_count, usable_cores
from dl4ia.errors import InputError
from dl4ia.text import plural

FLAG = "--worker"
MOST_DEATHS = 5  # in a row, without a trial that finished between them
GPUS = "CUDA_VISIBLE_DEVICES"  # of the environment: those that a process may use
MISTAKE = 2  # exit status after a user's mistake
MEMORY = 3 << 30  # bytes that a worker may need of the machine


def default_count(device: str, gpus: int) -> int:
    """A worker a GPU; on the processor one a core; either as far as the memory reaches.

    Two trainings side by side, a core each, are through sooner than one after the other on both:
    `python benchmarks/study_throughput.py` compares one worker with two.
    """
    memory = min(psutil.virtual_memory().available, memory_left())
    most = gpus if device == "cuda" else core_count()
    return max(1, min(most, int(memory // MEMORY)))


class WorkersDied(InputError):
    """They died and died."""


class Deaths:
    """Of workers in a row: they are replaced, but not for ever."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0

    def forget(self) -> None:
        """A trial has finished in the meantime."""
        self._count = 0

    def note(self, status: int, said: str, where: str = "") -> None:
        """A worker has ended with `status`, after it `said` all this; where: to read it, in words.

        Raises InputError where it was a user's mistake, WorkersDied where they die and die.
        """
        self._count += 1
        lines = [line for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else "it said nothing"
        if status == MISTAKE:
            raise InputError(last.removeprefix("error: "))
        if self._count >= self._most:
            raise WorkersDied(
                f"{plural(self._count, 'worker')} died in a row, the last with status "
                f"{status} ({last}){where}: the study is intact; fewer workers (--workers 1) need "
                "less memory"
            )


def worker_command(flags: Sequence[str] = ()) -> list[str]:
    """This very command, as one that only trains; flags: besides its own."""
    return [sys.executable, *sys.argv, FLAG, *flags]


class Workers:
    """So many processes, from `with` on until its end."""

    def __init__(self, count: int, logs: Path, gpus: int, flags: Sequence[str] = ()) -> None:
        """logs: a folder for what they print. gpus: how many to deal out; 0: processor cores.

        flags: of the command besides its own.
        """
        self._logs, self._gpus, self._flags = logs, gpus, flags
        self._cores = _shares(usable_cores(), count)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._begins = [0] * count  # what each has said, in its log: after so many bytes
        self._deaths = Deaths(MOST_DEATHS)

    def __enter__(self) -> "Workers":
        self._logs.mkdir(parents=True, exist_ok=True)
        for number in range(len(self._processes)):
            self._start(number)
        return self

    def __exit__(self, *failure: object) -> None:
        alive = [each for each in self._processes if each is not None and each.poll() is None]
        for process in alive:
            process.terminate()
        end = time.monotonic() + GRACE
        for process in alive:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def at_work(self) -> bool:
        """Whether any has not ended."""
        return any(each is not None and each.poll() is None for each in self._processes)

    def mend(self, progress: bool) -> bool:
        """Replace those that have died; whether any is still at work.

        progress: whether trials have finished since the last call. Raises InputError where a worker
        ended with a user's mistake, or they die and die.
        """
        if progress:
            self._deaths.forget()
        for number, process in enumerate(self._processes):
            status = None if process is None else process.poll()
            if process is None or status is None:
                continue
            self._processes[number] = None
            if status == 0:
                continue
            log = self._log(number)
            said = log.read_bytes()[self._begins[number] :].decode(errors="replace")
            self._deaths.note(status, said, f"; {log} has what it said")
            self._start(number)
        return any(self._processes)

    def _start(self, number: int) -> None:
        cores = self._cores[number]
        environment = os.environ | {CORES: ",".join(map(str, cores))}
        environment[THREADS] = str(_threads(len(cores)))
        if self._gpus:
            names = os.environ.get(GPUS) or ",".join(map(str, range(self._gpus)))
            environment[GPUS] = names.split(",")[number % self._gpus]
        with self._log(number).open("ab") as log:
            self._begins[number] = log.tell()
            self._processes[number] = subprocess.Popen(
                worker_command(self._flags),
                stdin=subprocess.PIPE,  # its end tells the worker that this process has ended
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone
            )

    def _log(self, number: int) -> Path:
        return self._logs / f"worker_{number}.log"


def _threads(cores: int) -> int:
    """Of a worker with so many cores: as many, but no more than the user said for one process.

    Nor more than its share of a container's quota.
    """
    most = max(1, round(cores * core_count() / len(usable_cores())))
    asked = os.environ.get(THREADS, "")
    return min(most, int(asked)) if asked.isdecimal() and int(asked) else most


def _shares(cores: Sequence[int], count: int) -> list[list[int]]:
    """Each worker's cores: neighbours, as equal as can be; shared where there are too few."""
    if count >= len(cores):
        return [[cores[number % len(cores)]] for number in range(count)]
    bounds = [round(number * len(cores) / count) for number in range(count + 1)]
    return [list(cores[low:high]) for low, high in pairwise(bounds)]
