"""What Linux's control groups, of either version, leave to a process."""

import math
from pathlib import Path

import pytest

from dl4ia import environment
from dl4ia.cgroups import core_quota, memory_left

GIGABYTE = 1 << 30


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_container_of_the_second_version(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    write(
        tmp_path,
        cpu__max="250000 100000",
        memory__max=str(8 * GIGABYTE),
        memory__current=str(6 * GIGABYTE),
        memory__stat=f"anon 1\ninactive_file {GIGABYTE}\nactive_file 5",
    )
    assert core_quota(tmp_path, own) == 3
    assert memory_left(tmp_path, own) == 3 * GIGABYTE


def test_of_a_group_and_those_above_it_the_tightest_limit_holds(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    write(tmp_path / "job", cpu__max="400000 100000", memory__max="500", memory__current="100")
    write(tmp_path / "job" / "step", cpu__max="max 100000", memory__max="max", memory__current="7")
    assert core_quota(tmp_path, own) == 4
    assert memory_left(tmp_path, own) == 400
    own.write_text("0::/elsewhere\n")  # as the host calls it, which is not to be seen
    assert core_quota(tmp_path, own) == memory_left(tmp_path, own) == math.inf


def test_a_container_of_the_first_version(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/docker/0123\n3:cpuacct,cpu:/docker/0123\n0::/docker/0123\n")
    write(tmp_path / "cpu", **{"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"})
    assert core_quota(tmp_path, own) == math.inf
    write(tmp_path / "cpu", **{"cpu__cfs_quota_us": "50000"})
    write(
        tmp_path / "memory",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="900",
        memory__stat="inactive_file 1\ntotal_inactive_file 300",
    )
    assert core_quota(tmp_path, own) == 1
    assert memory_left(tmp_path, own) == 400


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert core_quota(tmp_path, tmp_path / "none") == math.inf
    assert memory_left(tmp_path, tmp_path / "none") == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 8), (3, 3), (1, 1), (64, 8)])
def test_a_quota_counts_as_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float, expected: int
) -> None:
    monkeypatch.setattr(environment, "usable_cores", lambda: list(range(8)))
    monkeypatch.setattr(environment, "core_quota", lambda: quota)
    assert environment.core_count() == expected
