"""What the documentation says is so."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import mlflow
import optuna
import pytest
from conftest import ROOT, run_study
from mlflow.entities import Run
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from optuna.trial import FrozenTrial, TrialState
from PIL import Image

from dl4ia import best_runs
from search_spaces.segmentation import SPACE

PAGE = (ROOT / "docs" / "querying-mlflow.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("| to find | filter |") :]
FILTERS = re.findall(r"^\| ([^|]+) \| `+([^|]+?)`+ \|$", TABLE, re.MULTILINE)


def test_the_table_is_found() -> None:
    assert len(FILTERS) == TABLE.count("\n| ")


def last_value(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


# What a filter is to find, as Optuna knows it: of trials which, of other runs how many.
Wanted = Callable[[FrozenTrial, float], bool]
TRIALS: dict[str, Wanted] = {
    "the trials of one study": lambda *_: True,
    "completed trials (": lambda trial, _: trial.state == TrialState.COMPLETE,
    "trials of an architecture": lambda trial, _: trial.params["architecture"] == "unet",
    "the report's models": lambda trial, _: "report_model" in trial.user_attrs,
    "one of them": lambda trial, _: trial.user_attrs.get("report_model") == "baseline",
    "small and good": lambda trial, good: (
        trial.user_attrs["weights"] < 30_000 and last_value(trial) > good
    ),
    "trials of a commit": lambda *_: True,
    "trials on the very images": lambda *_: True,
}
OTHERS = {
    "what was run in a git checkout": 10 + 2 * 1 + 2,
    "the study's own run": 1,
    "the winner, with": 1,
    "the finalists' repeats": 2,
    "the first repeat": 1,
}


@pytest.fixture
def asked(gland_study: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[optuna.Study]:
    """The study, in the folder of which MLflow is asked."""
    monkeypatch.chdir(gland_study)
    (name,) = optuna.get_all_study_names("sqlite:///mlruns/optuna.db")
    with _use_tracking_uri("sqlite:///mlruns/mlflow.db"):
        yield optuna.load_study(study_name=name, storage="sqlite:///mlruns/optuna.db")


def found(condition: str) -> list[Run]:
    runs: Any = mlflow.search_runs(
        experiment_names=["segmentation"], filter_string=condition, output_format="list"
    )
    return list(runs)


@pytest.mark.parametrize(("purpose", "condition"), FILTERS)
def test_every_filter_finds_what_it_says(asked: optuna.Study, purpose: str, condition: str) -> None:
    trials = asked.get_trials()
    good = median(map(last_value, trials))
    (first, *_) = found("tags.`dl4ia.kind` = 'trial'")
    condition = condition.replace("segmentation-warwick", asked.study_name)
    condition = condition.replace("val_dice > 0.85", f"val_dice > {good}")  # it had one epoch
    for word, tag in (("COMMIT", "dl4ia.commit"), ("FINGERPRINT", "dl4ia.data_fingerprint")):
        condition = condition.replace(word, first.data.tags[tag])
    (expected,) = [e for start, e in (TRIALS | OTHERS).items() if purpose.startswith(start)]
    runs = found(condition)
    if isinstance(expected, int):
        assert len(runs) == expected
    else:
        numbers = {trial.number for trial in trials if expected(trial, good)}
        assert {int(run.data.tags["dl4ia.trial"]) for run in runs} == numbers != set()


def test_the_columns_of_best_runs(asked: optuna.Study) -> None:
    (shown,) = re.findall(r"^\| column \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    cells = " ".join(line.split("|")[1] for line in shown.splitlines() if line)
    columns = set(best_runs("segmentation", study=asked.study_name).columns)
    documented = set(re.findall(r"`(\w+)`", cells)) - {"val_accuracy"}
    assert documented == columns - SPACE.keys() and columns & SPACE.keys()


def test_the_best_trial_of_each_architecture(asked: optuna.Study) -> None:
    names: dict[str, Any] = {}
    (code,) = blocks("querying-mlflow.md", "python")
    exec(compile(code, "querying-mlflow.md", "exec"), names)
    best: dict[str, float] = {}
    for trial in asked.get_trials(states=[TrialState.COMPLETE]):
        architecture = trial.params["architecture"]
        best[architecture] = max(best.get(architecture, 0.0), last_value(trial))
    shown = names["best"].set_index("params.architecture")["metrics.val_dice"].to_dict()
    assert shown == pytest.approx(best) and len(best) > 1


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def blocks(page: str, language: str) -> list[str]:
    """What a page of the documentation has in fences of a language."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of its indented commands."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [line.split() for line in re.findall(r"^    ((?:python|dl4ia) .*)$", text, re.MULTILINE)]


def test_own_data_from_the_folder_to_the_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("own-data.md", "python")
    exec(compile(code, "own-data.md", "exec"), {})
    study, predict = commands("own-data.md")
    assert study[:4] == ["python", "studies/segmentation.py", "--data", "coins"]
    run_study(tmp_path, "segmentation.py", "--data", "coins")
    console = [sys.executable, "-m", "dl4ia.console.main"]  # as a user starts it, from nothing
    ended = subprocess.run([*console, *predict[1:]], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    with Image.open("predictions/masks/coins.png") as mask:
        assert mask.size == (384, 303)
    with Path("predictions/predictions.csv").open(encoding="utf-8") as table:
        (row,) = csv.DictReader(table)
    assert row["file"] == "coins.png" and float(row["gland_share"]) <= 1


TRY_OUT = """
import torch
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.search.objective import train_point
from dl4ia.search_space import check_point
from dl4ia.tasks.segmentation import SegmentationTask
from search_spaces.segmentation import REFERENCE_MODELS, REPORT_MODELS, SPACE

for label, point in (REPORT_MODELS | REFERENCE_MODELS).items():
    check_point(SPACE, point, label)
point = REFERENCE_MODELS["modern_unet"] | {"architecture": "linknet", "label_smoothing": 0.1}
del point["convolutions"]
check_point(SPACE, point, "linknet")
images = EmbeddedGlands().train().subset(range(6))
model, results = train_point(
    SegmentationTask(), point, images, images, 8, 0, torch.device("cpu")
)
losses = [result["train_loss"] for result in results]
assert type(model.network).__name__ == "LinkNet" and losses[-1] < losses[0], losses
"""


def test_the_choice_and_the_network_that_are_added_can_be_trained(tmp_path: Path) -> None:
    """In fewer than twenty lines each."""
    if "label_smoothing" in SPACE:
        pytest.skip("this checkout has what the page adds")
    for folder in ("dl4ia", "search_spaces"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    patches = blocks("adding-a-choice.md", "diff")
    assert len(patches) == 2
    for patch in patches:
        assert len(re.findall(r"^[+-](?![+-]).*\S", patch, re.MULTILINE)) < 20
        applied = subprocess.run(
            ["git", "apply", "--unidiff-zero", "-"],
            cwd=tmp_path,
            input=patch,
            text=True,
            capture_output=True,
        )
        assert applied.returncode == 0, applied.stderr
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for words in (["-m", "search_spaces"], ["-c", TRY_OUT]):
        ended = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
    assert "`label_smoothing`" in (tmp_path / "search_spaces" / "README.md").read_text()
