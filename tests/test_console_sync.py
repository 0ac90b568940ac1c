"""`dl4ia sync`: MLflow is written anew from Optuna's storage, and nothing twice."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from conftest import dl4ia, run_study, runs_of
from mlflow import MlflowClient

from dl4ia.search.trials import history_of
from dl4ia.search.turns import Turns

NAME = "segmentation-tiny-glands"


@pytest.fixture
def folder(gland_study: Path, tmp_path: Path) -> Path:
    """A finished study, without its images."""
    shutil.copytree(gland_study / "mlruns", tmp_path / "mlruns")
    return tmp_path


def told(folder: Path, kind: str) -> dict[str, tuple[object, ...]]:
    """What MLflow says of the runs of a kind, by their names."""
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    found = {}
    for run in runs_of(client, "segmentation", kind):
        history = client.get_metric_history(run.info.run_id, "val_dice")
        values = [(each.step, each.value) for each in history]
        tags = {key: value for key, value in run.data.tags.items() if "parentRunId" not in key}
        data = [each.dataset.digest for each in run.inputs.dataset_inputs]
        found[run.info.run_name] = (run.data.params, run.data.metrics, values, tags, data)
    return found


def test_a_new_database_is_as_the_old_one(folder: Path) -> None:
    before = {kind: told(folder, kind) for kind in ("trial", "repeat")}
    (folder / "mlruns" / "mlflow.db").unlink()
    for said in ("10 trials and 2 repeats written", "0 trials and 0 repeats written"):
        ended = dl4ia(folder, "sync", NAME)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == f"{NAME}: {said}\n"
        assert {kind: told(folder, kind) for kind in before} == before
        (study,) = told(folder, "study")
        assert study == NAME


def test_a_study_begun_again_under_its_name_is_another_one(gland_study: Path, folder: Path) -> None:
    """Its runs in MLflow, too: those of the deleted one are no longer taken for its own."""
    database = folder / "mlruns" / "optuna.db"
    optuna.delete_study(study_name=NAME, storage=f"sqlite:///{database}")
    (folder / "Tiny Glands").symlink_to(gland_study / "Tiny Glands")
    flags = ("--data", "Tiny Glands", "--image-shift", "0.5", "--seed", "1")
    run_study(folder, "segmentation.py", *flags)
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{database}")
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    for kind, count in (("study", 1), ("trial", 10), ("repeat", 2), ("winner", 1)):
        runs = runs_of(client, "segmentation", kind)
        mine = [run for run in runs if run.data.tags["dl4ia.study_id"] == study.user_attrs["id"]]
        assert (len(runs), len(mine)) == (2 * count, count), kind
        for run in mine if kind == "trial" else ():
            trial = study.trials[int(run.data.tags["dl4ia.trial"])]
            assert run.data.metrics["val_dice"] == history_of(trial)["val_dice"][-1]


def test_what_cannot_be_is_told_in_one_line(folder: Path) -> None:
    storage = f"sqlite:///{folder}/mlruns/optuna.db"
    optuna.create_study(storage=storage, study_name="foreign")
    words = {
        "nobody": f"no study 'nobody'; expected one of {NAME}, foreign",
        "foreign": "study 'foreign': is none of dl4ia's",
    }
    for name, said in words.items():
        ended = dl4ia(folder, "sync", name)
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: ") and said in line
    with Turns(storage, NAME).take("keep"):
        ended = dl4ia(folder, "sync", NAME)
    assert ended.returncode == 2 and "another process keeps its records" in ended.stderr


def test_an_mlflow_that_fails_is_told_in_one_line(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        connection.execute("DROP TABLE runs")
    ended = dl4ia(folder, "sync", NAME)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "failed (no such " in line and "is intact" in line


def test_a_study_that_has_not_ended_is_not_said_to(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlruns" / "optuna.db")) as connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key = 'selection'")
        connection.commit()
    (folder / "mlruns" / "mlflow.db").unlink()
    assert dl4ia(folder, "sync", NAME).returncode == 0
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    (run,) = runs_of(client, "segmentation", "study")
    assert run.info.status == "KILLED"
