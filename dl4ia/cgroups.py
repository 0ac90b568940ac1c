"""What a container or a batch system lets this process have of its machine: Linux's control groups.

Both versions of them are read (docs.kernel.org/admin-guide/cgroup-v2.html, …/cgroup-v1). Of a group
and those above it the tightest limit holds. Elsewhere nothing is known to be limited.
"""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def core_quota(root: Path = ROOT, own: Path = OWN) -> float:
    """How many cores' time this process may use, rounded up; infinite without a limit."""
    quotas: list[float] = [math.inf]
    for folder in _groups("cpu", root, own):
        for found in (
            _numbers(folder / "cpu.max"),
            [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")],
        ):
            if len(found) == 2 and 0 < found[0] < math.inf:  # -1, or max: no limit
                quotas.append(math.ceil(found[0] / found[1]))
    return min(quotas)


def memory_left(root: Path = ROOT, own: Path = OWN) -> float:
    """Bytes that this process may still take, its group's file cache given up; or infinite."""
    left = [math.inf]
    for folder in _groups("memory", root, own):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            found = [*_numbers(folder / limit), *_numbers(folder / used)]
            if len(found) == 2:
                left.append(found[0] - found[1] + _statistic(folder / "memory.stat", cache))
    return max(0.0, min(left))


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's group and of those above it, as far as they are mounted."""
    for line in _read(own).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            bases = [root, root / "unified"]
        elif controller in controllers.split(","):
            bases = [root / controller]
        else:
            continue
        for base in bases:
            # In a container the path may be the host's, of which only the base is to be seen.
            group = base / path.strip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(base))


def _numbers(file: Path) -> list[float]:
    """Infinite where it says `max`; none where there is no such file, or it says anything else."""
    try:
        return [math.inf if word == "max" else float(word) for word in _read(file).split()]
    except ValueError:
        return []


def _statistic(file: Path, name: str) -> float:
    found = [line.split() for line in _read(file).splitlines() if line.startswith(f"{name} ")]
    return float(found[0][1]) if found else 0.0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
