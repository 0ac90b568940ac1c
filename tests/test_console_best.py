"""`dl4ia best` and `dl4ia.best_runs`, asked of a real study."""

import csv
import io
import json
from datetime import datetime
from pathlib import Path

import optuna
import pandas as pd
import pytest
from conftest import dl4ia

from dl4ia import best_runs
from dl4ia.console.best import METRICS, best_records
from dl4ia.errors import InputError
from dl4ia.search.trials import hidden, history_of
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.tracking.runs import RunRecord
from dl4ia.tracking.writing import Tracker
from search_spaces.segmentation import REPORT_MODELS, SPACE

NAME = "segmentation-tiny-glands"


@pytest.fixture(scope="module")
def uri(gland_study: Path) -> str:
    return f"sqlite:///{gland_study / 'mlruns' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def study(gland_study: Path) -> optuna.Study:
    return optuna.load_study(
        study_name=NAME, storage=f"sqlite:///{gland_study / 'mlruns' / 'optuna.db'}"
    )


def test_it_knows_the_tasks_metrics() -> None:
    tasks = (SegmentationTask, ClassificationTask)
    assert {task.name: f"val_{task.metric}" for task in tasks} == METRICS


def test_the_frame_is_the_study(uri: str, study: optuna.Study) -> None:
    """Every completed trial, best first, with all that the study knows of it."""
    runs = best_runs("segmentation", top=100, tracking_uri=uri)
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert sorted(runs["trial"]) == [trial.number for trial in trials]
    assert list(runs["rank"]) == list(range(1, len(trials) + 1))
    assert runs["val_dice"].is_monotonic_decreasing
    for row in runs.to_dict("records"):
        trial = study.trials[row["trial"]]
        assert row["study"] == NAME and row["val_dice"] == pytest.approx(trial.value)
        assert row["weights"] == trial.user_attrs["weights"]
        assert row["point"] == trial.user_attrs.get("point", "")
        pooled = history_of(trial)["val_dice_pooled"][-1]
        assert row["val_dice_pooled"] == pytest.approx(pooled)
        assert row["commit"] == hidden(trial, "environment")["commit"] and row["run_id"]
        for name in SPACE:
            if name in trial.params:
                assert row[name] == trial.params[name]
                assert type(row[name]) is type(trial.params[name])
            elif name in row:
                assert pd.isna(row[name])
    assert len(best_runs("segmentation", top=2, tracking_uri=uri)) == 2


def test_text_stays_text(tmp_path: Path) -> None:
    """A study may be called 007, and no trial of it be a named point."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    now = datetime.now()
    tags = {"dl4ia.trial": "3", "dl4ia.state": "COMPLETE", "dl4ia.commit": "1234567"}
    record = RunRecord(name="3", kind="trial", study="007", tags=tags, parameters={"depth": "2"},
                       metrics={"val_dice": 0.5, "weights": 10.0}, history={},
                       start=now, end=now, status="FINISHED")  # fmt: skip
    Tracker(uri, "segmentation", tmp_path / "artifacts").write(record, None, None)
    (row,) = best_runs("segmentation", tracking_uri=uri).to_dict("records")
    assert (row["study"], row["point"], row["commit"]) == ("007", "", "1234567")
    assert row["depth"] == 2


def test_conditions(uri: str) -> None:
    unets = best_runs("segmentation", where="params.architecture = 'unet'", tracking_uri=uri)
    assert set(unets["architecture"]) == {"unet"} and "unet" in set(unets["point"])
    small = best_runs("segmentation", where="metrics.weights < 100000", tracking_uri=uri)
    assert 0 < len(small) < 10 and (small["weights"] < 100_000).all()
    assert len(best_runs("segmentation", study=NAME, tracking_uri=uri)) == 10
    none = best_runs("segmentation", study=NAME, where="metrics.weights < 1", tracking_uri=uri)
    assert none.empty and "val_dice" in none


def test_the_table_is_readable_in_100_columns(gland_study: Path) -> None:
    ended = dl4ia(gland_study, "best", "segmentation", "--top", "20")
    assert ended.returncode == 0 and ended.stderr == ""
    header, *lines = ended.stdout.splitlines()
    words = ["rank", "trial", "val", "dice", "pooled", "weights", "point", "architecture"]
    assert header.split()[: len(words)] == words
    assert max(map(len, [header, *lines])) <= 100
    assert {line.split()[5] for line in lines[:10]} >= set(REPORT_MODELS)
    assert lines[10].endswith("more hyperparameters differ: --format csv")
    nothing = dl4ia(gland_study, "best", "segmentation", "--where", "metrics.weights < 1")
    assert nothing.returncode == 0 and nothing.stdout == "No trial.\n"


def test_csv_and_json_say_the_same(gland_study: Path, uri: str) -> None:
    expected = best_runs("segmentation", 3, tracking_uri=uri)
    words = ("best", "segmentation", "--top", "3", "--format")
    rows = list(csv.DictReader(io.StringIO(dl4ia(gland_study, *words, "csv").stdout)))
    objects = json.loads(dl4ia(gland_study, *words, "json").stdout)
    assert [row["run_id"] for row in rows] == [each["run_id"] for each in objects]
    assert [row["run_id"] for row in rows] == list(expected["run_id"])
    assert list(rows[0]) == list(objects[0]) == list(expected)
    for name in ("learning_rate", "weight_decay", "val_dice"):
        assert [each[name] for each in objects] == [
            None if row[name] == "" else float(row[name]) for row in rows
        ]


def test_json_has_every_digit() -> None:
    frame = pd.DataFrame({"rate": [1.23456789012345e-06, float("nan")], "trial": [1, 2]})
    assert json.loads(json.dumps(best_records(frame))) == [
        {"rate": 1.23456789012345e-06, "trial": 1},
        {"rate": None, "trial": 2},
    ]


@pytest.mark.parametrize(
    ("experiment", "further", "said"),
    [
        ("glands", {}, "experiment 'glands': expected segmentation or classification"),
        ("classification", {}, "has no trial of it; run 'python studies/classification.py'"),
        ("segmentation", {"where": "architecture is unet"}, "Invalid clause"),
        (
            "segmentation",
            {"study": "an 'other'"},
            f"no such study in segmentation; there is {NAME}",
        ),
        ("segmentation", {"where": "params.architecture > 'unet'"}, "Invalid comparator"),
        ("segmentation", {"tracking_uri": "sqlite:///nowhere.db"}, "no such database"),
        ("segmentation", {"tracking_uri": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_what_is_refused(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    experiment: str,
    further: dict[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as refused:
        best_runs(experiment, **({"tracking_uri": uri} | further))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
