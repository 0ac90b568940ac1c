"""Whole studies, workers and all, in which opening a test file too early ends the process."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, write_class_folder, write_gland_folder, write_idx_files

# Python imports it when it starts, in every process that inherits the environment.
WATCH = """
import os, sqlite3, sys

WORDS = ("/Test/", "t10k-")
QUERY = "SELECT count(*) FROM study_user_attributes WHERE key = 'test_openings'"
asked = False


def is_open():
    try:
        with sqlite3.connect("file:mlruns/optuna.db?mode=ro", uri=True) as database:
            return database.execute(QUERY).fetchone()[0] > 0
    except sqlite3.OperationalError:  # there is no study yet
        return False


def watch(event, arguments):
    global asked
    if event != "open" or asked or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    path = os.fsdecode(arguments[0])
    if any(word in path for word in WORDS):
        asked = True  # the database is opened too
        known = is_open()
        asked = False
        with open(os.environ["DL4IA_WATCH"], "a") as log:
            log.write(f"{known} {path}\\n")
        if not known:
            os._exit(99)


sys.addaudithook(watch)
"""


FEW = ["--epochs", "1", "--finalists", "1", "--repeats", "2", "--seeds", "1", "--workers", "2"]


def watched(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment whose Python processes watch, and the file that they write into."""
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    log = folder / "opened.txt"
    paths = [str(folder / "watch"), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "DL4IA_WATCH": str(log)}, log


@pytest.mark.parametrize(
    ("script", "write", "flags"),
    [
        ("segmentation.py", write_gland_folder, ["--trials", "10", "--ablate", "schedule"]),
        ("classification.py", write_class_folder, ["--trials", "2"]),
        ("classification.py", write_idx_files, ["--trials", "2"]),
    ],
    ids=["glands", "class folders", "IDX files"],
)
def test_no_test_file_is_read_before_the_evaluation(
    tmp_path: Path, script: str, write: Callable[[Path], Path], flags: list[str]
) -> None:
    write(tmp_path / "data")
    environment, log = watched(tmp_path)
    words = [str(ROOT / "studies" / script), "--data", "data", *FEW, *flags]
    ended = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Winner: trial" in ended.stdout
    lines = log.read_text().splitlines()
    assert lines and all(line.startswith("True ") for line in lines)
    with sqlite3.connect(tmp_path / "mlruns" / "optuna.db") as database:
        keys = [key for (key,) in database.execute("SELECT key FROM study_user_attributes")]
    assert "test_openings" in keys
    assert list(tmp_path.glob("mlruns/artifacts/*/workers/*"))  # they were there, and watched


def test_the_watch_works(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    write_gland_folder(tmp_path / "data")
    environment, log = watched(tmp_path)
    code = "from pathlib import Path; from dl4ia.data.gland_folder import GlandFolder; "
    code += "GlandFolder(Path('data')).test()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert ended.returncode == 99
    assert log.read_text().startswith("False ")
