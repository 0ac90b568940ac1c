"""Both tools' pages, on free ports of this machine only, until the user has seen enough."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from dl4ia.addresses import check_has_study, check_tracked, hide_password
from dl4ia.errors import InputError

HOST = "127.0.0.1"
START_SECONDS = 120  # on a busy machine; 10 on a free one
STOP_SECONDS = 5
POLL_SECONDS = 0.2
DASHBOARD = (
    "from importlib.metadata import entry_points;"
    "(tool,) = entry_points(group='console_scripts', name='optuna-dashboard');"
    "tool.load()()"
)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server:
    """A process that answers on a port of its own; its children end with it."""

    def __init__(self, name: str, page: str, words: Sequence[str], port: int) -> None:
        self.name = name
        self.port = port
        self.address = f"http://{HOST}:{port}"
        self._page = page
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ
            | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,  # a group: MLflow's server has children
        )

    def check_alive(self) -> None:
        """Raise InputError, with the last line that it said, where the process has ended."""
        if self._process.poll() is not None:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").split("\n")
            last = next((line for line in reversed(said) if line.strip()), "it says nothing")
            raise InputError(f"{self.name} has ended ({last.strip()}); start 'dl4ia ui' again")

    def answers(self) -> bool:
        """Whether its page is there by now; raises InputError as `check_alive` does."""
        self.check_alive()
        # Not urllib: it would ask the proxy that the environment names.
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=5)) as connection:
            try:
                connection.request("GET", self._page)
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def stop(self) -> None:
        """End it and all its children, by force after `STOP_SECONDS`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(STOP_SECONDS)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._log.close()


def serve(storage: str, tracking_uri: str, artifacts: Path) -> None:
    """Start both, print their addresses, and stop both on Ctrl-C, SIGTERM or a closed terminal.

    artifacts: what the dashboard shows beside the trials, if there is such a folder. MLflow's own
    server, where `tracking_uri` is one, is left as it is.

    Raises InputError where there is no study yet, or one of them ends by itself.
    """
    check_has_study(storage)
    check_tracked(tracking_uri)
    stopped: list[int] = []
    # Noted, not raised: nothing may interrupt a start between a process and its being known.
    for number in STOPPING:
        signal.signal(number, lambda number, frame: stopped.append(number))
    ports = free_ports(2)
    servers: list[Server] = []
    try:
        words = [sys.executable, "-c", DASHBOARD, "--host", HOST, "--port", str(ports[0])]
        words += ["--artifact-dir", str(artifacts)] if artifacts.is_dir() else []
        servers.append(Server("optuna-dashboard", "/dashboard", [*words, storage], ports[0]))
        if tracking_uri.startswith("sqlite:"):
            words = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(ports[1])]
            words += ["--workers", "1", "--backend-store-uri", tracking_uri]
            servers.append(Server("mlflow ui", "/health", words, ports[1]))
        _wait_until_answered(servers, stopped)
        if not stopped:
            address = servers[1].address if len(servers) == 2 else hide_password(tracking_uri)
            print(f"Optuna: {servers[0].address}/dashboard")
            print(f"MLflow: {address}")
            print("Ctrl-C stops both.", flush=True)
        while not stopped:
            time.sleep(POLL_SECONDS)
            for server in servers:
                server.check_alive()
    finally:
        for server in servers:
            server.stop()
    raise KeyboardInterrupt


def _wait_until_answered(servers: Sequence[Server], stopped: list[int]) -> None:
    end = time.monotonic() + START_SECONDS
    waiting = list(servers)
    while waiting and not stopped:
        waiting = [server for server in waiting if not server.answers()]
        if waiting and time.monotonic() > end:
            raise InputError(
                f"{waiting[0].name} does not answer within {START_SECONDS} s; start 'dl4ia ui' "
                "again when the machine is less busy"
            )
        time.sleep(POLL_SECONDS)


def free_ports(count: int) -> list[int]:
    """As many different ones: all are held before the first is let go."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
