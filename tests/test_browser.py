"""What users see of a finished study in a browser: the dashboard, MLflow, and the report page."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from browser import Browser, needs_chromium
from commands import run_command
from conftest import runs_of, write_gland_folder
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna_dashboard import get_note
from servers import serving

pytestmark = needs_chromium

SCRIPT = Path(__file__).parent.parent / "studies" / "segmentation.py"
NAME = "seen"
DATA = "<img src=x onerror=console.error(1)>|`*Glands*"  # must be shown as it is
FLAGS = ["--data", DATA, "--study-name", NAME, "--trials", "10", "--epochs", "1",
         "--finalists", "1", "--repeats", "2",
         "--seeds", "1", "--ablate", "--workers", "1"]  # fmt: skip
# MLflow 3.17 asks its server for the user, which it does not know, and resizes in two steps.
MLFLOWS_OWN = "users/current|ResizeObserver loop"
STORAGE = "sqlite:///mlruns/optuna.db"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_gland_folder(folder / DATA)
    words = [sys.executable, str(SCRIPT), *FLAGS]
    ended = run_command(words, folder)
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
    command = ["optuna-dashboard", STORAGE, "--artifact-dir", "mlruns/artifacts/optuna"]
    with serving(finished, command, "/api/studies") as address:
        yield f"{address}/dashboard/studies/1"


@pytest.fixture(scope="module")
def mlflow_pages(finished: Path) -> Iterator[str]:
    """The address of MLflow's pages, started as the summary says."""
    command = ["mlflow", "ui", "--backend-store-uri", "sqlite:///mlruns/mlflow.db"]
    with serving(finished, command, "/health") as address:
        yield f"{address}/#"


def tracked(finished: Path, kind: str) -> Run:
    """The study's only run of a kind, or the first."""
    return runs_of(MlflowClient(f"sqlite:///{finished}/mlruns/mlflow.db"), "segmentation", kind)[0]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.open("about:blank")
    chromium.errors.clear()
    yield chromium
    chromium.evaluate("0")  # what the page has said since is read with the answer
    assert [error for error in chromium.errors if not re.search(MLFLOWS_OWN, error)] == []


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


def test_mlflows_runs(
    finished: Path, study: optuna.Study, mlflow_pages: str, browser: Browser
) -> None:
    """The study among the training runs, and its trials below it once they are unfolded."""
    experiment = tracked(finished, "study").info.experiment_id
    browser.open(f"{mlflow_pages}/experiments/{experiment}/runs")
    browser.wait_for_text(NAME)
    browser.wait_for_text("Model training")
    unfold = "document.querySelector(\".ag-cell[col-id*='Run Name'] button\")"
    browser.wait_for(unfold)
    browser.evaluate(f"{unfold}.click()")
    winner = f"winner (trial {study.user_attrs['winner']['trial']})"
    for name in ("trial 0 (baseline)", "trial 8", winner):
        browser.wait_for_text(name)


def test_mlflows_page_of_the_study(finished: Path, mlflow_pages: str, browser: Browser) -> None:
    run = tracked(finished, "study").info
    browser.open(f"{mlflow_pages}/experiments/{run.experiment_id}/runs/{run.run_id}")
    for words in ("Leaderboard", "resnet (report)", "measured optimism", DATA):
        browser.wait_for_text(words)
    assert browser.evaluate("document.querySelector('img[src=x]') === null")


def test_mlflows_page_of_the_winner(
    finished: Path, study: optuna.Study, mlflow_pages: str, browser: Browser
) -> None:
    run, winner = tracked(finished, "winner"), study.user_attrs["winner"]
    page = f"{mlflow_pages}/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    browser.open(page)
    for words in ("test_dice", "dl4ia.commit", NAME, f"Trial {winner['trial']}, retrained on all"):
        browser.wait_for_text(words)
    browser.open(f"{page}/artifacts/pictures/history.png")
    browser.wait_for("[...document.images].some(image => image.naturalWidth > 400)")
    browser.open("about:blank")  # the next address differs in its fragment alone
    browser.open(f"{page}/artifacts/report/index.html")
    browser.wait_for("[...document.querySelectorAll('iframe')].some(f => f.clientHeight > 100)")


def test_mlflows_page_of_the_model(finished: Path, mlflow_pages: str, browser: Browser) -> None:
    browser.open(f"{mlflow_pages}/models/{NAME}")
    for words in ("Version 1", "champion", "val_dice", "The winners of the study"):
        browser.wait_for_text(words)


def test_a_trials_system_metrics(finished: Path, mlflow_pages: str, browser: Browser) -> None:
    run = tracked(finished, "trial").info
    page = f"{mlflow_pages}/experiments/{run.experiment_id}/runs/{run.run_id}"
    browser.open(f"{page}/system-metrics")
    browser.wait_for_text("cpu_utilization_percentage")
    browser.open(f"{page}/model-metrics")
    browser.wait_for_text("val_dice")
