"""What users see of a finished study in a browser: the Optuna dashboard and the report page."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from browser import Browser, needs_chromium
from conftest import write_gland_folder
from optuna_dashboard import get_note

pytestmark = needs_chromium

SCRIPT = Path(__file__).parent.parent / "studies" / "segmentation.py"
NAME = "seen"
DATA = "<img src=x onerror=console.error(1)>|`*Glands*"  # must be shown as it is
FLAGS = ["--data", DATA, "--study-name", NAME, "--trials", "9", "--epochs", "1", "--finalists", "1",
         "--repeats", "2", "--seeds", "1", "--ablate"]  # fmt: skip
STORAGE = "sqlite:///mlruns/optuna.db"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_gland_folder(folder / DATA)
    words = [sys.executable, str(SCRIPT), *FLAGS]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    shown = f"optuna-dashboard {STORAGE} --artifact-dir mlruns/artifacts/optuna"
    assert shown in ended.stdout
    return folder


@pytest.fixture(scope="module")
def study(finished: Path) -> optuna.Study:
    return optuna.load_study(study_name=NAME, storage=f"sqlite:///{finished}/mlruns/optuna.db")


@pytest.fixture(scope="module")
def dashboard(finished: Path) -> Iterator[str]:
    """The address of the study in a dashboard, started as the summary says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), STORAGE]
    command += ["--artifact-dir", "mlruns/artifacts/optuna", "--host", "127.0.0.1", "--port", port]
    with (finished / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=finished, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5):
                    break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, "no dashboard"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/dashboard/studies/1"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        yield opened
        assert opened.errors == []


def test_the_studys_note(
    finished: Path, study: optuna.Study, dashboard: str, browser: Browser
) -> None:
    browser.open(f"{dashboard}/note")
    browser.wait_for_text("What is searched")
    text = browser.text()
    winner = study.user_attrs["winner"]
    assert f"Winner: trial {winner['trial']}" in text
    assert f"{winner['metrics']['test_dice']:.4f}" in text
    assert "baseline (report)" in text and "resnet (report)" in text
    assert DATA in text
    assert "mlruns/reports/seen/index.html" in text
    for heading in ("Leaderboard", "Finalists", "Data", "What is searched"):
        shown = "[...document.querySelectorAll('h2')].some(h => h.innerText.trim() === '{}')"
        browser.wait_for(shown.format(heading))
    run = re.search("MLflow run: `([0-9a-f]{32})`", get_note(study))
    assert run and f"MLflow run: {run[1]}" in text
    assert browser.evaluate("document.querySelector('img[src=x]') === null")


def test_a_trials_note_and_picture(study: optuna.Study, dashboard: str, browser: Browser) -> None:
    trial = study.trials[3]
    browser.open(f"{dashboard}/trials?numbers=3")
    browser.wait_for_text(f"Completed: validation dice {trial.value:.4f} after 1 epoch.")
    text = browser.text()
    assert "model_3, one of the report's models" in text
    assert str(trial.user_attrs["seed"]) in text
    browser.wait_for_text("segmentations.png")
    browser.wait_for(
        "[...document.images].some(i => i.src.includes('/artifacts/') && i.naturalWidth > 400)"
    )


def test_the_pushed_plots(study: optuna.Study, dashboard: str, browser: Browser) -> None:
    browser.open(dashboard)
    titles = {
        "finalists": "Finalists",
        "ablation": f"What each choice of trial {study.user_attrs['winner']['trial']} buys",
    }
    for name, title in titles.items():
        plot = f"document.getElementById('user-defined-plot:{name}')"
        browser.wait_for(f"{plot} && {plot}.querySelector('.scatterlayer .points path')")
        assert browser.evaluate(f"{plot}.querySelector('.gtitle').textContent") == title


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_page(finished: Path, study: optuna.Study, browser: Browser, dark: bool) -> None:
    browser.open((finished / "mlruns" / "reports" / NAME / "index.html").as_uri(), dark)
    headings = browser.evaluate("[...document.querySelectorAll('h1, h2')].map(h => h.innerText)")
    assert {NAME, "Test", "Finalists", "Search", "What each choice buys",
            "Where this comes from", "To make it again"} <= set(headings)  # fmt: skip
    plots = "[...document.querySelectorAll('.plotly-graph-div')]"
    browser.wait_for(f"{plots}.length >= 5")
    browser.wait_for(f"{plots}.every(p => p.querySelector('.main-svg').clientHeight > 100)")
    pictures = len(study.user_attrs["winner"]["pictures"])
    browser.wait_for(f"[...document.images].filter(i => i.naturalWidth > 400).length == {pictures}")
    assert DATA in browser.text()
    # Plots have the page's colours: light letters where it is dark.
    letters = f"getComputedStyle({plots}[0].querySelector('.xtick text')).fill"
    light = "Number({}.match(/[0-9]+/)[0]) > 128"
    browser.wait_for(f"({light.format(letters)}) === {str(dark).lower()}")
