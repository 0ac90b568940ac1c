"""MLflow for real, on one SQLite database: what is written is what is read back."""

import math
import shutil
import sqlite3
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
import torch
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils

from dl4ia.errors import InputError, TrackingError, first_line
from dl4ia.tracking.runs import DatasetRecord, RunRecord
from dl4ia.tracking.writing import Tracker

START = datetime(2025, 3, 1, 12, 0, 0)
DATASET = DatasetRecord("glands", "a" * 36, "data/glands", {"images": 85}, "training")
TRIAL = RunRecord(
    name="trial 7 (model_5)",
    kind="trial",
    study="segmentation",
    tags={"dl4ia.trial": "7", "dl4ia.state": "COMPLETE"},
    parameters={"architecture": "unet", "batch_norm": True, "learning_rate": 3e-4, "width": 16},
    metrics={"best_val_dice": 0.875},
    history={"val_dice": [0.5, 0.75, 0.875], "train_loss": [1.0, 0.5, 0.25]},
    start=START,
    end=START + timedelta(seconds=30),
    status="FINISHED",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow with a space")


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/new/mlflow.db"


@pytest.fixture(scope="module")
def tracker(folder: Path, uri: str) -> Tracker:
    return Tracker(uri, "segmentation", folder / "artifacts")


@pytest.fixture(scope="module")
def client(uri: str, tracker: Tracker) -> MlflowClient:
    return MlflowClient(uri)


def test_a_trial_is_read_back_as_it_was_written(tracker: Tracker, client: MlflowClient) -> None:
    parent = tracker.write(replace(TRIAL, kind="study", end=None, status="RUNNING"), None, None)
    run = client.get_run(tracker.write(TRIAL, DATASET, parent))

    assert run.info.run_name == TRIAL.name
    assert run.info.status == "FINISHED"
    assert run.info.start_time == TRIAL.start.timestamp() * 1000
    assert run.info.end_time - run.info.start_time == 30_000
    assert run.data.params == {
        "architecture": "unet",
        "batch_norm": "True",
        "learning_rate": "0.0003",
        "width": "16",
    }
    expected = {"dl4ia.kind": "trial", "dl4ia.study": "segmentation", "mlflow.parentRunId": parent}
    assert (expected | dict(TRIAL.tags)).items() <= run.data.tags.items()
    assert run.data.metrics == {"best_val_dice": 0.875, "val_dice": 0.875, "train_loss": 0.25}
    history = client.get_metric_history(run.info.run_id, "val_dice")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.75), (3, 0.875)]
    assert [point.timestamp - run.info.start_time for point in history] == [10_000, 20_000, 30_000]
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("glands", "a" * 36)
    assert dataset.dataset.profile == '{"images": 85}'
    assert mlflow.data.get_source(dataset.dataset).to_dict() == {"uri": "data/glands"}
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}

    unet = "params.architecture = 'unet' AND params.batch_norm = 'True'"
    (found,) = client.search_runs(
        [run.info.experiment_id], f"{unet} AND attributes.status='FINISHED'"
    )
    assert found.info.run_id == run.info.run_id


def test_files_go_under_the_artifacts_folder(tracker: Tracker, folder: Path) -> None:
    run = tracker.write(replace(TRIAL, study="files"), None, None)
    picture = folder / "épreuve 1.png"
    picture.write_bytes(b"picture")
    tracker.log_files(run, [picture], "pictures")

    names = [file.name for file in (folder / "artifacts" / run).rglob("*") if file.is_file()]
    assert names == ["épreuve 1.png"]


def test_more_than_one_batch_of_everything(tracker: Tracker, client: MlflowClient) -> None:
    record = replace(
        TRIAL,
        study="large",
        tags={"long": "t" * 9000},
        parameters={f"parameter_{i}": i for i in range(150)} | {"long": "p" * 7000},
        history={f"metric_{i}": [float(epoch) for epoch in range(300)] for i in range(8)},
    )
    run = client.get_run(tracker.write(record, None, None))
    assert len(run.data.params) == 151
    assert run.data.params["long"] == "p" * 5999 + "…"
    assert run.data.tags["long"] == "t" * 7999 + "…"
    assert len(client.get_metric_history(run.info.run_id, "metric_7")) == 300
    assert len(run.data.metrics) == 9


def test_a_class_of_any_name_is_a_metric(tracker: Tracker, client: MlflowClient) -> None:
    metrics = {"accuracy_one, or I": 0.5, "accuracy_ä/β": 0.25}
    record = replace(TRIAL, study="names", metrics=metrics, history={})
    run = client.get_run(tracker.write(record, None, None))
    assert run.data.metrics == {"accuracy_one_ or I": 0.5, "accuracy_ä/β": 0.25}


def test_values_that_are_not_finite_are_kept_as_nan_and_match_no_filter(
    tracker: Tracker, client: MlflowClient
) -> None:
    history = {"val_loss": [1.0, math.inf, -math.inf, math.nan]}
    record = replace(TRIAL, study="not finite", metrics={"loss": math.nan}, history=history)
    run = client.get_run(tracker.write(record, None, None))
    assert math.isnan(run.data.metrics["loss"])
    values = [point.value for point in client.get_metric_history(run.info.run_id, "val_loss")]
    assert values[0] == 1.0 and all(math.isnan(value) for value in values[1:])
    query = "tags.`dl4ia.study` = 'not finite' AND metrics.loss < 1"
    assert not client.search_runs([run.info.experiment_id], query)


def test_a_run_that_cannot_be_written_whole_is_not_left_behind(tracker: Tracker) -> None:
    with pytest.raises(TrackingError, match="bad"):
        tracker.write(replace(TRIAL, study="bad", parameters={"bad\nname": 1}), None, None)
    assert tracker.find("bad", "trial") == {}
    assert list(tracker._search("bad", "trial", "")) == []


@pytest.mark.parametrize("study", ["glands", "o'neill", 'the "best"'])
def test_find_turns_pages_and_keeps_to_its_study(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, study: str
) -> None:
    monkeypatch.setattr("dl4ia.tracking.search.RUNS_PER_PAGE", 2)
    short = replace(TRIAL, study=study, parameters={}, metrics={}, history={})
    written = {
        str(number): tracker.write(replace(short, tags={"dl4ia.trial": str(number)}), None, None)
        for number in range(5)
    }
    tracker.write(replace(short, study="another"), None, None)
    winner = tracker.write(replace(short, kind="winner", tags={}), None, None)
    assert tracker.find(study, "trial") == written
    assert tracker.find(study, "winner") == {"": winner}
    assert tracker.find("none", "trial") == {}


def test_a_trial_that_was_cut_off_is_not_found_and_can_be_discarded(tracker: Tracker) -> None:
    cut_off = replace(TRIAL, study="cut off", end=None, status="RUNNING")
    tracker.write(cut_off, None, None)
    study = tracker.write(replace(cut_off, kind="study", tags={}), None, None)
    assert tracker.find("cut off", "trial") == {}
    assert tracker.find("cut off", "study") == {"": study}
    whole = tracker.write(replace(TRIAL, study="cut off"), None, None)
    tracker.discard_unfinished("cut off")
    assert [run.info.run_id for run in tracker._search("cut off", "trial", "")] == [whole]


def test_of_runs_that_were_cut_off_one_row_s_alone_can_be_discarded(tracker: Tracker) -> None:
    cut_off = replace(TRIAL, kind="replication", study="rows", end=None, status="RUNNING")
    runs = [tracker.write(replace(cut_off, tags={"dl4ia.row": row}), None, None) for row in "ab"]
    tracker.discard_unfinished("rows", ["replication"], "a")
    left = tracker._search("rows", "replication", "")
    assert [run.info.run_id for run in left] == runs[1:]


def test_a_model_whose_logging_was_cut_off_is_discarded_too(
    tracker: Tracker, client: MlflowClient
) -> None:
    cut_off = replace(TRIAL, kind="winner", study="model", end=None, status="RUNNING")
    run = tracker.write(cut_off, None, None)
    logged = client.create_logged_model(tracker._experiment, "model", source_run_id=run)
    kept = client.create_logged_model(tracker._experiment, "another")
    tracker.discard_unfinished("model")
    known = client.search_logged_models([tracker._experiment])
    assert logged.model_id not in {each.model_id for each in known}
    assert kept.model_id in {each.model_id for each in known}


def test_a_study_is_closed_and_reopened(tracker: Tracker, client: MlflowClient) -> None:
    record = replace(TRIAL, kind="study", study="closed", tags={}, end=None, status="RUNNING")
    run = tracker.write(record, None, None)
    tracker.close(run, "KILLED", START + timedelta(hours=1), {"trials": 5}, "**Best**")
    closed = client.get_run(run)
    assert closed.info.status == "KILLED"
    assert closed.info.end_time - closed.info.start_time == 3_600_000
    assert closed.data.metrics == {
        **TRIAL.metrics,
        "val_dice": 0.875,
        "train_loss": 0.25,
        "trials": 5,
    }
    assert closed.data.tags["mlflow.note.content"] == "**Best**"
    tracker.reopen(run)
    assert client.get_run(run).info.status == "RUNNING"
    tracker.close(run, "FINISHED")
    assert client.get_run(run).info.status == "FINISHED"


def test_opening_again_finds_the_same_experiment(
    tracker: Tracker, uri: str, tmp_path: Path
) -> None:
    run = tracker.write(replace(TRIAL, study="again"), None, None)
    assert Tracker(uri, "segmentation", tmp_path).find("again", "trial") == {"7": run}


def test_a_new_database_is_made_in_silence_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = Tracker("sqlite:///new/mlflow.db", "segmentation", Path("artifacts"))
    run = tracker.write(TRIAL, DATASET, None)
    file = tmp_path / "text.txt"
    file.write_text("text", encoding="utf-8")
    tracker.log_files(run, [file], "texts")
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "artifacts", "text.txt"}


def test_a_moved_folder_is_written_into_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old's", tmp_path / "new"
    artifacts = Path("artifacts", "mlflow")

    def opened(folder: Path) -> Tracker:
        return Tracker(f"sqlite:///{folder}/mlflow.db", "segmentation", folder / artifacts)

    (tmp_path / "a.txt").write_text("text")
    first = opened(old).write(TRIAL, None, None)
    opened(old).log_files(first, [tmp_path / "a.txt"], "texts")
    old.rename(new)
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())  # as in a new process
    tracker = opened(new)
    tracker.log_files(first, [tmp_path / "a.txt"], "more")
    tracker.log_files(tracker.write(TRIAL, None, None), [tmp_path / "a.txt"], "texts")
    assert not old.exists()
    assert len(list(new.rglob("a.txt"))) == 3
    client = MlflowClient(f"sqlite:///{new}/mlflow.db")
    assert client.list_artifacts(first, "texts")[0].path == "texts/a.txt"


def test_a_database_of_several_folders_keeps_its_places(tmp_path: Path) -> None:
    uri, (one, two) = f"sqlite:///{tmp_path}/db/mlflow.db", (tmp_path / "one", tmp_path / "two")
    for folder in (one, two):
        Tracker(uri, "segmentation", folder / "artifacts" / "mlflow")
    found = MlflowClient(uri).get_experiment_by_name("segmentation")
    assert found is not None and found.artifact_location == str(one / "artifacts" / "mlflow")


def test_a_folder_inside_the_databases_own_is_no_moved_one(tmp_path: Path) -> None:
    uri, inner = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "second" / "artifacts" / "mlflow"
    (tmp_path / "a.txt").write_text("text")
    tracker = Tracker(uri, "segmentation", inner)
    run = tracker.write(TRIAL, None, None)
    tracker.log_files(run, [tmp_path / "a.txt"], "texts")
    Tracker(uri, "segmentation", tmp_path / "artifacts" / "mlflow")
    assert MlflowClient(uri).list_artifacts(run, "texts")[0].path == "texts/a.txt"


def test_two_studies_may_begin_at_once(tmp_path: Path) -> None:
    """Neither takes the other's half-made database away."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    names = ("segmentation", "classification", "segmentation")
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: Tracker(uri, name, tmp_path / "artifacts"), names))
    found = MlflowClient(uri).search_experiments()
    assert {each.name for each in found} == {"Default", *names}


def test_a_deleted_experiment_is_named(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(InputError, match=r"'deleted' .* was deleted; restore it with"):
        Tracker(uri, "deleted", tmp_path)


def test_a_database_left_in_the_middle_of_a_migration_is_named(
    tracker: Tracker, folder: Path, tmp_path: Path
) -> None:
    tracker.find("segmentation", "study")  # the database to copy exists
    shutil.copy(folder / "new" / "mlflow.db", tmp_path / "broken.db")
    with sqlite3.connect(tmp_path / "broken.db") as connection:
        connection.execute("DROP TABLE metrics")
        connection.execute("UPDATE alembic_version SET version_num = 'cut off'")
    connection.close()
    with pytest.raises(InputError, match=r"broken.db' cannot be opened: .*cut off"):
        Tracker(f"sqlite:///{tmp_path}/broken.db", "segmentation", tmp_path)


def test_a_registered_model_is_loaded_and_takes_any_batch(
    tracker: Tracker,
    client: MlflowClient,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Dropout(0.5),
        torch.nn.Conv2d(8, 1, 1),
    ).to(memory_format=torch.channels_last)
    images = np.random.default_rng(0).random((7, 3, 64, 48), dtype=np.float32)
    run = tracker.write(replace(TRIAL, kind="winner", study="registered"), None, None)
    name, tags, description = "segmentation model", {"dice": "0.9"}, "The winner"
    assert tracker.register_model(run, model, images[:2], name, tags, description) == "1"
    assert model.training
    assert capfd.readouterr() == ("", "")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # MLflow chooses "cuda" like this on a machine that has one; the model must stay on the CPU.
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cuda")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(images)).numpy()
    for n in (1, 7):
        np.testing.assert_allclose(loaded.predict(images[:n]), expected[:n], atol=1e-5)
    with pytest.raises(mlflow.MlflowException, match="shape"):
        loaded.predict(images[:, :, :32])

    other = torch.nn.Conv2d(4, 1, 1)
    pair = np.random.default_rng(1).random((2, 4, 128, 128), dtype=np.float32)
    assert tracker.register_model(run, other, pair, name, tags, description) == "2"
    champion = client.get_model_version_by_alias(name, "champion")
    assert (str(champion.version), champion.run_id) == ("2", run)
    assert (champion.description, champion.tags) == (description, tags)
    info = mlflow.models.Model.load(str(champion.source))
    assert info.signature.inputs.inputs[0].shape == (-1, 4, 128, 128)
    assert info.signature.outputs.inputs[0].shape == (-1, 1, 128, 128)
    np.testing.assert_array_equal(info.load_input_example(str(champion.source)), pair)


def test_versions_that_others_have_registered_are_left_alone(
    tracker: Tracker, client: MlflowClient
) -> None:
    """By hand, without a run; and with one that `mlflow gc` has removed."""
    run = tracker.write(replace(TRIAL, kind="winner", study="shared"), None, None)
    client.create_registered_model("shared")
    client.create_model_version("shared", "file:///elsewhere")
    client.create_model_version("shared", "file:///elsewhere", "0" * 32)
    images, model = np.zeros((2, 3, 8, 8), dtype=np.float32), torch.nn.Conv2d(3, 1, 1)
    assert tracker.register_model(run, model, images, "shared", {}, "The winner") == "3"
    versions = client.search_model_versions("name = 'shared'")
    assert sorted(int(version.version) for version in versions) == [1, 2, 3]


def test_a_database_that_fails_is_told_in_one_line(
    tracker: Tracker, uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(Path(uri.removeprefix("sqlite:///")).read_bytes())
    failing = Tracker(f"sqlite:///{path}", "experiment", tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE runs")
    with pytest.raises(TrackingError) as failed:
        failing.find("study", "trial")
    assert first_line(failed.value) == "no such table: runs"
    assert "Traceback" not in capfd.readouterr().err


def test_an_upload_that_is_refused_is_told_as_mlflows(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises what is an OSError, as a full disk of this machine does."""

    def refuse(*_: object) -> None:
        raise requests.HTTPError("413 Client Error: Request Entity Too Large")

    monkeypatch.setattr(tracker._client, "log_artifact", refuse)
    with pytest.raises(TrackingError, match="413"):
        tracker.log_files("a run", [tmp_path / "picture.png"], "pictures")
