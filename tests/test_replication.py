"""The report's tables: their facts, their arithmetic, and the whole command on little data."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run_command
from conftest import runs_of, write_gland_folder, write_idx_files
from mlflow import MlflowClient

from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.replication.run import kept_outcomes, replicate
from dl4ia.replication.tables import Row, Table, as_markdown, as_text, cells, spread
from dl4ia.replication.trainings import Bench, Outcome, Training
from dl4ia.search_space import check_point
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.tracking.writing import Tracker
from search_spaces import classification, segmentation
from search_spaces.segmentation import REPORT_MODELS

BEGIN, END = "<!-- replication: begin -->", "<!-- replication: end -->"

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
    leak = "model_5, validation, turned and then split"
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
    environment = {"commit": "abc", "device": "cpu"}
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
    assert shared(scored_on="training") == 8  # as the report's code scores
    train, scored = bench.parts(TRAINING, seed=0)
    assert len(train) == 10 and len(scored) == 60


def test_the_loss_of_the_code_is_trained_with(bench: Bench) -> None:
    """Of 64 rows, half of them glands, it begins at about 64 / 2 log 64."""
    plain = replace(TRAINING, name="plain", epochs=1)
    coded = replace(plain, name="coded", loss_as_coded=True)
    losses = [bench.outcome(t, 0, lambda: None).history["train_loss"][0] for t in (plain, coded)]
    assert losses[0] < 3 < 50 < losses[1] < 300
    assert coded.trained_point == dict(TRAINING.point) | {"loss": "report_code"}
    kept = bench.kept(plain, 0)
    assert kept is not None and "loss_as_coded" not in kept.recipe


@pytest.mark.parametrize("model", ["model_1", "model_4", "model_5"])
def test_with_and_without_the_leak_as_many_images_are_trained_on(
    bench: Bench, tables: list[Table], model: str
) -> None:
    """The last step's learning rate of a cosine schedule tells how many steps there were."""
    rows = {row.label: row.training for table in tables for row in table.rows}
    rates = []
    for order in ("turned and then split", "split and then turned"):
        training = rows[f"{model}, validation, {order}"]
        point = dict(training.point) | {"schedule": "cosine", "batch_size": 4}
        short = replace(training, point=point, epochs=1)
        rates.append(bench.outcome(short, 0, lambda: None).history["learning_rate"][0])
    assert rates[0] == pytest.approx(rates[1])


def test_a_kept_training_is_not_trained_again_and_another_recipe_is(bench: Bench) -> None:
    trained: list[int] = []
    first = bench.outcome(TRAINING, 0, lambda: trained.append(1))
    assert len(trained) == 2
    assert bench.outcome(TRAINING, 0, lambda: trained.append(1)) == first
    assert len(trained) == 2
    longer = bench.outcome(replace(TRAINING, epochs=3), 0, lambda: trained.append(1))
    assert len(trained) == 5 and len(longer.history["scored_dice"]) == 3
    assert {"surface_dice_1px", "surface_dice_2px", "hausdorff_95"} <= first.metrics.keys()
    assert bench.predictions(first).shape == (60, 64, 64)
    assert bench.kept(TRAINING, 0) == first  # a shorter and a longer one are kept side by side


@pytest.mark.parametrize("suffix", ["json", "npz"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_broken_file_is_trained_again(bench: Bench, suffix: str, kept: float) -> None:
    known = bench.outcome(TRAINING, 1, lambda: None)
    file = bench.folder / "baseline" / f"seed_1_{known.key}.{suffix}"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    assert bench.kept(TRAINING, 1) is None
    again = bench.outcome(TRAINING, 1, lambda: None)
    assert again.metrics == known.metrics and bench.kept(TRAINING, 1) == again


def test_the_network_in_numpy_is_of_the_processor(tmp_path: Path) -> None:
    source = EmbeddedDigits()
    task, environment = ClassificationTask(source.classes), {"device": "a GPU", "precision": "x"}
    device, folder = torch.device("cpu"), tmp_path
    dataset = source.train().subset(range(100))
    bench = Bench(task, source, dataset, device, environment, folder)
    point = classification.REPORT_MODELS["exercise_1_1"]
    training = Training("home_cooked", "classification", point, 1, engine="numpy")
    found = bench.outcome(training, 0, lambda: None)
    assert found.environment == {"device": "cpu", "precision": "float32"}  # digits, always
    assert found.weights == 109_386 and bench.predictions(found).shape == (360,)


def test_a_training_that_fails_is_left_out_and_the_others_go_on(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = replace(TRAINING, name="wild", point=dict(TRAINING.point) | {"learning_rate": 1e30})
    tame = replace(TRAINING, name="tame")
    rows = [Row("wild", wild, {}), Row("tame", tame, {})]
    table = Table("t", "Two", rows, {"scored_dice": "Dice"})
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "replication", tmp_path)
    replicate([table], {"segmentation": bench}, 1, tracker)
    told = capsys.readouterr().out
    assert "wild failed: epoch 1:" in told and "Two" in told
    outcomes = kept_outcomes([table], {"segmentation": bench})
    assert [len(outcomes[name]) for name in ("wild", "tame")] == [0, 1]


def test_remarks_are_of_the_trainings_that_they_name(tables: list[Table]) -> None:
    assert all(table.remark for table in tables)
    assert not any(table.shortened(2).remark for table in tables)
    text = as_text(tables[0], {})
    assert text.endswith(f"In docs/replication.md: {tables[0].remark}")


def test_all_that_is_kept_is_shown_however_few_seeds_are_asked_for(bench: Bench) -> None:
    training = replace(TRAINING, name="shown")
    table = Table("t", "One", [Row("it", training, {})], {"scored_dice": "Dice"})
    for seed in (0, 1, 3):
        bench.outcome(training, seed, lambda: None)
    outcomes = kept_outcomes([table], {"segmentation": bench})
    assert [each.seed for each in outcomes["shown"]] == [0, 1]


def command(*flags: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--quick", "--seeds", "2", *flags]


def test_the_whole_command_and_again(tmp_path: Path, tables: list[Table]) -> None:
    write_gland_folder(tmp_path / "data" / "WARWICK")
    write_idx_files(tmp_path / "data" / "MNIST" / "raw")
    words = command("--only", "table-2", "table-16")
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nMore.\n", encoding="utf-8")
    words += ["--readme", str(readme)]
    ended = run_command(words, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert '"HomeCooked NN"' in ended.stdout and "model_5, test" in ended.stdout
    reports = tmp_path / "mlruns" / "reports"
    page = (reports / "replication-quick.html").read_text(encoding="utf-8")
    assert page.count("<table") == 4  # two more share a training
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")  # it opens without a network
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n") and text.endswith("\n\nMore.\n") and "old" not in text
    assert "| | PyTorch | 97.22 % | " in text.replace("|  |", "| |")
    assert "at commit" in text
    files = sorted((tmp_path / "mlruns" / "artifacts" / "replication-quick").rglob("*.json"))
    assert len(files) == 2 * (2 + 6)
    before = {file: json.loads(file.read_text(encoding="utf-8"))["end"] for file in files}
    again = run_command(words, tmp_path)
    assert again.stdout == ended.stdout
    other = run_command(command("--only", "table-2"), tmp_path)
    assert other.returncode == 0
    assert (reports / "replication-quick.html").read_text(encoding="utf-8") == page
    for file, end in before.items():
        assert json.loads(file.read_text(encoding="utf-8"))["end"] == end
    uri = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    runs = runs_of(MlflowClient(uri, registry_uri=uri), "replication-quick", "replication")
    assert len(runs) == len(files)
    assert {run.data.tags["dl4ia.scored_on"] for run in runs} == {
        "test", "validation", "leaky_validation",
    }  # fmt: skip


def test_a_readme_without_marks_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Title\n", encoding="utf-8")
    words = command("--readme", "README.md")
    ended = run_command(words, tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: --readme README.md: expected a text with the lines {BEGIN}")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_an_unknown_table_is_told_in_one_line(tmp_path: Path) -> None:
    words = command("--only", "table-3")
    ended = run_command(words, tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "--only table-3: expected table-2, table-4" in line
    assert not list(tmp_path.iterdir())
