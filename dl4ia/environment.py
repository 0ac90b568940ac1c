"""What a result was made with: commit, versions, machine; and which processes are alive.

Imported before torch, so kept light.
"""

import ctypes
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import psutil

from dl4ia.cgroups import core_quota

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
CORES = "DL4IA_CORES"  # of the environment: the numbers of those that a worker may use
THREADS = "OMP_NUM_THREADS"  # of the environment: how many a training has
PACKAGES = ("torch", "torchvision", "optuna", "mlflow", "numpy")


def tune_process() -> None:
    """Make threads and memory cheap on shared CPU cores; call it before torch is imported.

    benchmarks/process_tuning.py measures both against the defaults:

    - OpenMP's threads sleep soon while they wait. libgomp spins for about a millisecond, and where
      another process wants a core every barrier then waits for the scheduler.
    - glibc keeps freed memory. By default every activation of more than 32 MB is a fresh mapping,
      which the kernel clears page by page. An older one takes no larger limit than these 32 MB, and
      would, if it were told of the trimming alone, map whatever has more than 128 KB.
    """
    if os.environ.get(CORES) and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in os.environ[CORES].split(",")})
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if core_count() < len(usable_cores()):  # with a thread on each a container would be throttled
        os.environ.setdefault(THREADS, str(core_count()))
    if platform.libc_ver()[0] == "glibc":
        keep_freed_memory(ctypes.CDLL(None).mallopt)


def keep_freed_memory(mallopt: Callable[[int, int], int]) -> None:
    """mallopt: the C library's, which returns 0 where it refuses."""
    if mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 32 << 20):
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def usable_cores() -> list[int]:
    """The numbers of the processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_count() -> int:
    """How many cores' time this process may use: a container may have less than its cores."""
    return int(max(1, min(len(usable_cores()), core_quota())))


def git_state(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """commit (40 digits, or "unknown" outside a checkout) and dirty ("True" with changes).

    A file that git does not know is a change where it is Python; a log beside the code is none.
    A virtual environment within a checkout is none of it.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")  # fails where it knows no file in the folder
        changed = git("status", "--porcelain", "--untracked-files=no")
        unknown = git("ls-files", "--others", "--exclude-standard", ":(top)*.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": str(bool(changed or unknown))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": "unknown"}


def describe_code(made: Mapping[str, str], digits: int = 40) -> str:
    """In words what `git_state` tells, whatever else `made` tells: so many digits of the commit."""
    changes = " (with uncommitted changes)" if made["dirty"] == "True" else ""
    return made["commit"][:digits] + changes


def describe_environment() -> dict[str, str]:
    """Commit, dirty flag, package versions, Python, system and processor, all as text."""
    return {
        **git_state(),
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(core_count()),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a benchmark does with fewer than a study
        return "not installed"


def _processor() -> str:
    """What it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def this_process() -> dict[str, str | float]:
    """Who runs a trial: where, process number and when that process began."""
    return dict(_identity(os.getpid()))


@cache  # so that it never differs by a second
def _identity(pid: int) -> dict[str, str | float]:
    return {**_here(), "pid": pid, "began": _began(psutil.Process(pid))}


def _here() -> dict[str, str]:
    """Where process numbers mean what they mean here.

    Machines may have the same name, as clones and containers do: Linux tells their present runs
    apart, and containers number their own processes.
    """
    return {"host": platform.node(), "boot": _boot(), "namespace": _namespace()}


def _began(process: psutil.Process) -> float:
    """Seconds after the machine's start, which stay the same when its clock is set."""
    return float(process.create_time() - psutil.boot_time())


def _boot() -> str:
    """The machine's present run, where it has a name: Linux gives it one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Which processes are numbered together, where that has a name, as Linux gives it one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def describe_process(process: dict[str, str | float]) -> str:
    """In words."""
    return f"process {process['pid']} on {process['host']}"


def is_dead(process: dict[str, str | float]) -> bool:
    """Whether a process, as `this_process` told, has ended; False where that is not known here.

    It is not of other machines, other containers, and what this machine ran before it was started.
    """
    return _is_here(process) and not _exists(process)


def is_alive(process: dict[str, str | float]) -> bool:
    """Whether a process still runs, or is stopped; False where that is not known here."""
    return _is_here(process) and _exists(process)


def _is_here(process: dict[str, str | float]) -> bool:
    return all(process.get(name, here) == here for name, here in _here().items())


def _exists(process: dict[str, str | float]) -> bool:
    try:
        found = psutil.Process(int(process["pid"]))
        # A number is given out again: only the same start is the same process. The machine's own
        # start is told to the second, now one and now the other.
        if abs(_began(found) - float(process["began"])) > 2:
            return False
        return bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
