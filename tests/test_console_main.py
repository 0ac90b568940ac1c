"""The command as a whole: what `--help` costs, and how mistakes are said."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

HEAVY = ("torch", "mlflow", "optuna", "pandas", "numpy", "PIL")


def dl4ia(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """As a user starts it, from nothing."""
    command = [sys.executable, "-m", "dl4ia.console.main", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_script_is_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["scripts"]["dl4ia"].split(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    "statement",
    ["import dl4ia", "from dl4ia.console.main import commands; commands(['predict', '--help'])"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    code = f"import atexit, sys\natexit.register(lambda: print(*sys.modules))\n{statement}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = ended.stdout.splitlines()[-1].split()
    assert "dl4ia" in loaded and not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("command", ["best", "predict", "ui"])
def test_help(tmp_path: Path, command: str) -> None:
    ended = dl4ia(tmp_path, command, "--help")
    assert ended.returncode == 0 and ended.stderr == ""
    assert "--tracking-uri URI" in ended.stdout and max(map(len, ended.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing command."),
        (["bets"], "No such command 'bets'."),
        (["best", "segmentation", "--top", "0"], "'--top': 0 is not in the range 1<=x<=1000000."),
        (["best", "segmentation"], "mlruns/mlflow.db': no such database; run a study first"),
        (["predict", "x.png", "-o", "out"], "Missing option '--model'."),
        (["predict", "x.png", "--model", "m@champion", "-o", "out"], "x.png: no such file"),
        (["ui"], "sqlite:///mlruns/optuna.db: no study there yet; run one first"),
        (["data", "prepare-glas", "x.zip", "out"], "x.zip: is neither a folder nor a zip file"),
        (["data", "prepare-glas", ".", "out"], ".: no train_N.bmp in it; expected GlaS's release"),
        (["data", "unmix", "x.png", "-o", "out"], "x.png: no such file"),
        (["data", "unmix", ".", "-o", "out"], ".: no images in it, but nothing"),
        (["data", "unmix", ".", "-o", "out", "--size", "8"], "'--size': 8 is not in the range"),
        (["results", "../x"], "study '../x': expected up to 100 letters, digits, - and _"),
        (["ui", "--storage", "bogus"], "--storage bogus: cannot be reached"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    ended = dl4ia(tmp_path, *words)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and ended.stdout == ""
    assert line.startswith("error: ") and said in line
    assert not list(tmp_path.iterdir())
