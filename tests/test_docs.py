"""What the documentation says is so."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, dl4ia, run_study
from mlflow import MlflowClient
from PIL import Image

TABLE = (ROOT / "docs" / "querying-mlflow.md").read_text(encoding="utf-8")
FILTERS = re.findall(r"^\| ([^|]+) \| `+([^|]+?)`+ \|$", TABLE, re.MULTILINE)


def test_the_table_is_found() -> None:
    assert len(FILTERS) == TABLE.count("\n| ") - 1


@pytest.mark.parametrize(("purpose", "condition"), FILTERS)
def test_every_filter_finds_what_it_says(gland_study: Path, purpose: str, condition: str) -> None:
    uri = f"sqlite:///{gland_study / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("segmentation")
    assert experiment is not None
    (study, *_) = client.search_runs([experiment.experiment_id], "tags.`dl4ia.kind` = 'study'")
    (trial, *_) = client.search_runs([experiment.experiment_id], "tags.`dl4ia.kind` = 'trial'")
    condition = condition.replace("segmentation-warwick", study.data.tags["dl4ia.study"])
    condition = condition.replace("val_dice > 0.85", "val_dice > 0.01")  # it had one epoch
    for word, tag in (("COMMIT", "dl4ia.commit"), ("FINGERPRINT", "dl4ia.data_fingerprint")):
        condition = condition.replace(word, trial.data.tags[tag])
    assert client.search_runs([experiment.experiment_id], condition), purpose


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
    ended = dl4ia(tmp_path, *predict[1:])
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
