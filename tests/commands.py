"""The project's commands, run as a user would, without the seconds that their imports take.

They run in processes of their own, forked from one that has imported what they need: to import
torch, MLflow and Optuna takes seconds. What a command does as it starts from nothing, and as Python
ends, is left to those tests that start one by `subprocess`; among them are whole studies of both
tasks.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from dl4ia.environment import tune_process

tune_process()
# Before a test has changed it. A thread each, since there are several test processes.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

IMPORTED = [
    "dl4ia.workflow.whole_study",
    "dl4ia.tasks.segmentation",
    "dl4ia.tasks.classification",
    "dl4ia.replication.run",
    "dl4ia.console.results",
    "dl4ia.console.predict",
    "dl4ia.report.study_page",
    "dl4ia.tracking.models",
    # What these import as they need it.
    "matplotlib.pyplot",
    "monai.metrics",
    "optuna_dashboard",
    "plotly",
    "torch._dynamo",
    "torchvision",
]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(IMPORTED)


class Command:
    """One that runs; as `subprocess.Popen`, whose methods these are."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        out: Path,
        error: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """words: Python's path and a script's, or `-m` and a module, and flags.

        out, error: files to which is added what it says; they may be the same. environment: the
        test's, unless told otherwise.
        """
        assert words[0] == sys.executable
        with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):
            forkserver.ensure_running()
        said, environment = (str(out), str(error)), dict(environment or os.environ)
        told = (list(words[1:]), str(folder), said, environment)
        self._process = FORKED.Process(target=_run, args=told)
        self._process.start()
        atexit.register(self.kill)  # a test may fail without waiting for it
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_command(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """`words`, run in `folder` to their end."""
    with tempfile.TemporaryDirectory() as said:
        out, error = Path(said, "out"), Path(said, "error")
        command = Command(words, folder, out, error, environment)
        try:
            status = command.wait()
        finally:
            command.kill()
        texts = (out.read_text(), error.read_text())
    return subprocess.CompletedProcess(list(words), status, *texts)


def _run(
    words: list[str], folder: str, said: tuple[str, str], environment: Mapping[str, str]
) -> None:
    """In the process of the command."""
    from dl4ia.search import storage

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(said, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(each, "w", buffering=1, closefd=False) for each in (1, 2))
    atexit.register(storage._close)  # from Python 3.13 on what is registered before is forgotten
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:  # as where Python ends by itself, which a forked process does not
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
