"""The tools' own servers, really started, on a free port of this machine."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
from commands import Command

PATIENCE = 120  # seconds


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def serving(
    folder: Path,
    command: list[str],
    probe: str,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[str]:
    """The address at which `command`, run in `folder`, answers to `probe`.

    end: what it is stopped with. A server that is asked to end may go on with a client it knows.
    """
    port = port or free_port()
    scripts = Path(sys.executable).parent
    words = [str(scripts / command[0]), *command[1:], "--host", "127.0.0.1", "--port", str(port)]
    path = {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    # One process of MLflow's instead of fourteen: seconds of start for nothing that is asked here.
    path |= {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    path |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / f"server-{port}.log"
    with log.open("ab") as opened:
        server = subprocess.Popen(
            words,
            cwd=folder,
            env=os.environ | path | dict(environment or {}),
            stdout=opened,
            stderr=opened,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{probe}", timeout=5):
                    break
            except OSError:
                said = log.read_text(errors="replace")[-2000:]
                assert server.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(server, end)


def stop(server: "subprocess.Popen[bytes]", end: signal.Signals = signal.SIGTERM) -> None:
    """It and whatever it has started."""
    os.killpg(server.pid, end)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, 9)
        server.wait()


def end_of(
    process: "subprocess.Popen[bytes] | Command",
    log: Path,
    until: Callable[[], bool] = lambda: False,
) -> int | None:
    """Its exit status; None where it is still at work when `until` is true.

    However long that takes beside other tests, it may not fall silent.
    """
    said, since = -1, time.monotonic()
    while process.poll() is None and not until():
        if (now := log.stat().st_size) != said:
            said, since = now, time.monotonic()
        assert time.monotonic() - since < 2 * PATIENCE, log.read_text()[-3000:]
        time.sleep(0.2)
    return process.poll()


def ended(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    """Whether they end soon. Where nobody asks for its status, an ended one stays a zombie."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = [each for each in processes if each.is_running()]
        if all(each.status() == psutil.STATUS_ZOMBIE for each in alive):
            return True
        time.sleep(0.1)
    return False


def look(folder: Path, query: str) -> int:
    """A number in the study's database, 0 before there is one; without a say in how it is made."""
    address = f"{(folder / 'mlruns' / 'optuna.db').as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0
