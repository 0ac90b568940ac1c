"""A disk that is full, and an output folder that cannot be written to."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from commands import run_command
from conftest import ROOT, write_gland_folder
from optuna.exceptions import StorageInternalError

from dl4ia.search.trials import finished_trials
from dl4ia.workflow.keeper import Keeper

COMMAND = [sys.executable, str(ROOT / "studies" / "segmentation.py"), "--data", "Tiny Glands",
           "--trials", "12", "--epochs", "2", "--finalists", "1", "--repeats", "2",
           "--seeds", "1", "--workers", "1"]  # fmt: skip


def run(folder: Path) -> "subprocess.CompletedProcess[str]":
    return run_command(COMMAND, folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """mlruns/ is a disk of its own; its size in kilobytes can be changed by `resize`."""
    write_gland_folder(tmp_path / "Tiny Glands")
    place = tmp_path / "mlruns"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", "-l", str(place)], check=True)


def resize(folder: Path, kilobytes: int) -> None:
    options = f"remount,size={kilobytes}k"
    subprocess.run(["mount", "-o", options, str(folder / "mlruns")], check=True)


def test_a_full_disk_stops_the_study_and_loses_nothing(small_disk: Path) -> None:
    """It fills up at one moment after another, and each time the user makes some room."""
    stops, before = [], 0
    for kilobytes in (1500, 2500, 6000, 400_000):
        resize(small_disk, kilobytes)
        ended = run(small_disk)
        assert "Traceback" not in ended.stderr, ended.stderr
        if ended.returncode == 0:
            break
        stops.append(ended.stderr.strip().splitlines()[-1])
        assert ended.returncode == 2 and stops[-1].startswith("error: "), ended.stderr
        database = small_disk / "mlruns" / "optuna.db"
        if database.exists() and database.stat().st_size:
            found = count(small_disk)
            assert found >= before
            before = found
    print("\n".join(stops))
    assert len(stops) >= 2
    assert ended.returncode == 0 and count(small_disk) == 12


def test_what_keeps_the_records_leaves_a_full_disk_to_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes on looking, without a traceback of its own."""
    looks: list[int] = []

    def fail(keeper: Keeper) -> None:
        looks.append(1)
        raise StorageInternalError("database or disk is full")

    monkeypatch.setattr("dl4ia.workflow.keeper.SELDOM", 0.01)
    monkeypatch.setattr(Keeper, "write_missing", fail)
    keeper = Keeper.__new__(Keeper)
    keeper._wake = threading.Event()
    with keeper:
        end = time.monotonic() + 30
        while len(looks) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(looks) >= 3


def count(folder: Path) -> int:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/mlruns/optuna.db")
    names = optuna.get_all_study_names(storage)
    if not names:
        return 0
    return len(finished_trials(optuna.load_study(study_name=names[0], storage=storage)))


def test_a_folder_that_cannot_be_written_to_is_told_at_once(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    place = tmp_path / "mlruns"
    place.mkdir()
    mounted = os.getuid() == 0
    if mounted:  # who may write everywhere, but not on a disk that is only to be read
        options = ["-t", "tmpfs", "-o", "ro", "tmpfs", str(place)]
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("a disk that is only to be read cannot be mounted here")
    else:
        place.chmod(0o500)
    try:
        ended = run(tmp_path)
        (line,) = ended.stderr.splitlines()
        assert ended.returncode == 2 and line.startswith("error: --out mlruns: ")
        assert not list(place.iterdir())
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
        else:
            place.chmod(0o700)
