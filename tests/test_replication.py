"""The report's tables: their facts, their arithmetic, and the whole command on little data."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import runs_of
from mlflow import MlflowClient

from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.replication.tables import Row, Table, as_markdown, as_text, cells, spread
from dl4ia.replication.trainings import Bench, Outcome, Training
from dl4ia.search_space import check_point
from dl4ia.segmentation import SegmentationTask
from search_spaces import classification, segmentation
from search_spaces.segmentation import REPORT_MODELS

SCRIPT = Path(__file__).parent.parent / "studies" / "replicate.py"
SPACES = {"classification": classification.SPACE, "segmentation": segmentation.SPACE}
TRAINING = Training("baseline", "segmentation", REPORT_MODELS["baseline"], 2)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[Table]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from report_tables import TABLES

    return list(TABLES)


def outcome(accuracy: float, seed: int = 0) -> Outcome:
    return Outcome(
        "x", seed, {"epochs": 7}, {"scored_accuracy": accuracy}, 1234, 3.0, {}, {"device": "cpu"},
        "2026-01-01T00:00:00", "2026-01-01T00:00:03",
    )  # fmt: skip


def test_every_training_is_a_point_of_its_space_and_names_are_unique(tables: list[Table]) -> None:
    trainings: dict[str, Training] = {}
    for table in tables:
        for row in table.rows:
            training = row.training
            check_point(SPACES[training.task], training.point, training.name)
            assert trainings.setdefault(training.name, training) == training


def test_the_reports_figures(tables: list[Table]) -> None:
    """Those that its text and its tables both give."""
    figures = {
        (table.name, row.label): row.report for table in tables for row in table.rows if row.report
    }
    assert figures[("table-2", "PyTorch")] == {"scored_accuracy": 0.9722, "seconds": 22.28}
    assert figures[("table-4", "CNN")] == {"scored_accuracy": 0.9855}
    assert figures[("table-7", "Adam")] == {"scored_accuracy": 0.9869, "seconds": 73}
    assert figures[("exercise-2-3", "ResNet")] == {"scored_dice_pooled": 0.84}
    leak = "model_5, validation, turned before the split"
    assert figures[("table-16", leak)] == {"scored_dice_pooled": 0.94}


def test_spreads() -> None:
    assert spread([0.98, 0.99, 0.97], "scored_accuracy") == "98.00 ± 1.00 %"
    assert spread([0.8444], "scored_dice") == "0.844"
    assert spread([3.0, 5.0], "hausdorff_95") == "4.0 ± 1.4 px"


def test_columns_without_a_figure_of_the_report_are_left_out() -> None:
    rows = [
        Row("a", replace(TRAINING, name="a"), {"scored_accuracy": 0.9}),
        Row("b | c", replace(TRAINING, name="b"), {}),
    ]
    table = Table("t", "A table", rows, {"scored_accuracy": "accuracy"}, "Why.")
    outcomes = {"a": [outcome(0.91), outcome(0.93, 1)]}
    header, first, second = cells(table, outcomes)
    assert header == ["model", "accuracy, report", "accuracy, ours", "weights", "epochs",
                      "seconds, ours", "device"]  # fmt: skip
    assert first == ["a", "90.00 %", "92.00 ± 1.41 %", "1,234", "7", "3 ± 0", "cpu"]
    assert second == ["b | c", "–", "–", "–", "2", "–", "–"]
    assert "A table" in as_text(table, outcomes) and "Why." in as_text(table, outcomes)
    assert "| b \\| c | – |" in as_markdown(table, outcomes)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    source = EmbeddedGlands()
    folder = tmp_path_factory.mktemp("bench")
    dataset = source.train().subset(range(10))
    environment = {"commit": "abc"}
    return Bench(SegmentationTask(), source, dataset, torch.device("cpu"), environment, folder)


def test_validation_images_have_turned_copies_in_training_only_with_the_leak(bench: Bench) -> None:
    def shared(**changes: Any) -> int:
        """How many validation images have a copy, turned or not, among those trained on."""
        train, scored = bench.parts(replace(TRAINING, **changes), seed=0)
        trained = {image.rot90(turns, (1, 2)).numpy().tobytes()
                   for image in train.images for turns in range(4)}  # fmt: skip
        return sum(image.numpy().tobytes() in trained for image in scored.images)

    assert shared(scored_on="validation") == 0
    assert shared(scored_on="leaky_validation") > 0
    train, scored = bench.parts(TRAINING, seed=0)
    assert len(train) == 10 and len(scored) == 60


def test_a_kept_training_is_not_trained_again_and_another_recipe_is(bench: Bench) -> None:
    trained: list[int] = []
    first = bench.outcome(TRAINING, 0, lambda: trained.append(1))
    assert len(trained) == 2
    assert bench.outcome(TRAINING, 0, lambda: trained.append(1)) == first
    assert len(trained) == 2
    longer = bench.outcome(replace(TRAINING, epochs=3), 0, lambda: trained.append(1))
    assert len(trained) == 5 and len(longer.history["scored_dice"]) == 3
    assert {"surface_dice_1px", "surface_dice_2px", "hausdorff_95"} <= first.metrics.keys()
    assert bench.predictions(TRAINING, 0).shape == (60, 64, 64)


def command(*flags: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--quick", "--seeds", "2", *flags]


def test_the_whole_command_and_again(tmp_path: Path, tables: list[Table]) -> None:
    words = command("--only", "table-2", "table-16")
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert '"HomeCooked NN"' in ended.stdout and "model_5, test" in ended.stdout
    reports = tmp_path / "mlruns" / "reports"
    page = (reports / "replication-quick.html").read_text(encoding="utf-8")
    assert page.count("<table>") == 2 and "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")  # it opens without a network
    files = sorted((tmp_path / "mlruns" / "artifacts" / "replication-quick").rglob("*.json"))
    assert len(files) == 2 * (2 + 6)
    before = {file: json.loads(file.read_text(encoding="utf-8"))["end"] for file in files}
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert again.stdout == ended.stdout
    for file, end in before.items():
        assert json.loads(file.read_text(encoding="utf-8"))["end"] == end
    uri = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    runs = runs_of(MlflowClient(uri, registry_uri=uri), "replication-quick", "replication")
    assert len(runs) == len(files)
    assert {run.data.tags["dl4ia.scored_on"] for run in runs} == {
        "test", "validation", "leaky_validation",
    }  # fmt: skip


def test_an_unknown_table_is_told_in_one_line(tmp_path: Path) -> None:
    words = command("--only", "table-3")
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "--only table-3: expected table-2, table-4" in line
    assert not list(tmp_path.iterdir())
