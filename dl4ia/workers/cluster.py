"""Workers on a Ray cluster: each is a Ray task that runs the same command on some node.

The only file that imports ray, which is installed with `pip install -e '.[cluster]'`.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl4ia.addresses import CONNECTION_SECONDS
from dl4ia.command_line.process import GRACE
from dl4ia.errors import InputError, first_line
from dl4ia.text import plural
from dl4ia.workers.processes import GPUS, MOST_DEATHS, Deaths, worker_command

LOCAL = "local"
TAIL = 2000  # characters of what a worker has said


class RayWorkers:
    """So many tasks, from `with` on until its end; as `dl4ia.workers.processes.Workers`."""

    def __init__(
        self,
        address: str,
        count: int,
        gpus: float,
        cores: int = 1,
        flags: Sequence[str] = (),
        storage: str = "",
    ) -> None:
        """address: of a running cluster, or "local" to start one on this machine.

        gpus: a worker's, such as 0.25; 0: none. cores: that a training makes good use of; a worker
        has as many where the cluster has them for all. flags: of the command besides its own.
        storage: the study's, which all machines of the cluster are to reach.
        """
        try:
            import ray
        except ImportError as error:
            raise InputError(
                "--ray: Ray is not installed; pip install -e '.[cluster]', or give --workers alone"
            ) from error
        self._ray: Any = ray
        self._address, self._count = address, count
        self._gpus, self._cores, self._flags, self._storage = gpus, cores, flags, storage
        self._deaths = Deaths(max(MOST_DEATHS, count + 1))  # a node takes all of its workers
        self._tasks: list[Any] = []

    def __enter__(self) -> "RayWorkers":
        # "local" is Ray's own word for a new cluster, whatever RAY_ADDRESS says.
        try:
            _check_reachable(self._address)
            handler = signal.getsignal(signal.SIGTERM)
            self._ray.init(self._address, log_to_driver=False, logging_level="ERROR")
            signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process without a word
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--ray {self._address}: cannot be reached ({first_line(error)}); expected the "
                "address of a running cluster, such as 10.0.0.1:6379, or local"
            ) from error
        try:
            self._check_nodes()
        except InputError:
            self._ray.shutdown()
            raise
        # No retries by Ray: a worker that ended well is not started again, and others are here.
        self._work = self._ray.remote(
            max_retries=0, num_gpus=self._gpus, num_cpus=self._cores_a_worker()
        )(_work)
        self._tasks = [self._start() for _ in range(self._count)]
        return self

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _check_nodes(self) -> None:
        """Raise InputError where the workers cannot do their work on the cluster's nodes."""
        machines = len({node["NodeManagerAddress"] for node in self._nodes()})
        if self._storage.startswith("sqlite") and machines > 1:
            raise InputError(
                f"--ray {self._address}: {plural(machines, 'machine')}, which cannot share the "
                "file that an SQLite database is; expected --storage postgresql://…"
            )
        most = max(node["Resources"].get("GPU", 0) for node in self._nodes())
        if most >= self._gpus:
            return
        if self._address == LOCAL:
            raise InputError(
                f"--gpus-per-worker {self._gpus:g}: this machine has {most:g}; expected as many at "
                "most, or 0"
            )
        print(  # it may grow
            f"no machine of the cluster has {self._gpus:g} GPUs now, the most is {most:g}: workers "
            "wait until one has",
            flush=True,
        )

    def _cores_a_worker(self) -> int:
        """Ray gives a worker as many threads; what asks for more than there is never starts."""
        if self._gpus:
            return 1
        nodes = [node["Resources"].get("CPU", 0) for node in self._nodes()]
        share = sum(nodes) // max(1, self._count)
        return int(max(1, min(self._cores, share, max(nodes))))

    def __exit__(self, *failure: object) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        if self._tasks:
            self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=GRACE)
        self._ray.shutdown()

    def mend(self, progress: bool) -> bool:
        """Replace those that have died, or whose node has; whether any is still at work."""
        if progress:
            self._deaths.forget()
        ended, running = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        self._tasks = running
        for task in ended:
            try:
                status, said = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                status, said = 1, first_line(error)
            if status == 0:
                continue
            self._deaths.note(status, said)
            self._tasks.append(self._start())
        return bool(self._tasks)

    def _start(self) -> Any:
        command = worker_command(self._flags)
        return self._work.remote(command, str(Path.cwd()), hides_gpus=not self._gpus)


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError where nobody answers: Ray itself would end this process."""
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), CONNECTION_SECONDS).close()


def _work(command: list[str], folder: str, hides_gpus: bool) -> tuple[int, str]:
    """On a node: the worker's exit status, and the last of what it said."""
    # Ray sets OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES to the task's share; but of a task without
    # GPUs it leaves the latter as it is, and all such workers would use the node's first one.
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | ({GPUS: ""} if hides_gpus else {}),
        stdin=subprocess.PIPE,  # closed when this task dies, and then the worker ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said = (said + line)[-TAIL:]
    return process.wait(), said
