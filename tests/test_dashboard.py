"""Notes, pictures and plots in a real SQLite study of two trials."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from conftest import write_gland_folder
from optuna.artifacts import get_all_artifact_meta
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from PIL import Image
from test_session import open_in

from dl4ia.markdown import plain
from dl4ia.report import dashboard
from dl4ia.report.notes import study_note, trial_note
from dl4ia.search.loop import search
from dl4ia.selection.finalists import Finalist, Selection
from dl4ia.session import Session

HOSTILE = "<script>alert(1)</script> | ![x](javascript:alert) `a` $b$ www.c.org\n# **d** &lt;"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The flag of one database for all: making one takes seconds."""
    return f"--tracking-uri=sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def session(tmp_path: Path, mlflow: str) -> Session:
    folder = write_gland_folder(tmp_path / "Glands <b>|`*")
    return open_in(tmp_path / "out", folder, mlflow)


def note(session: Session, trial: FrozenTrial, mlflow_run: str) -> None:
    dashboard.write_trial_note(
        session.study, session.task.metric, session.tracking_uri, trial, mlflow_run
    )


def run(session: Session, trials: int = 2) -> list[FrozenTrial]:
    """The finished trials of a search as a study runs it, without MLflow."""
    pictures = partial(dashboard.write_trial_pictures, session)
    objective = replace(session.objective, after_training=pictures)

    def after_trial(trial: FrozenTrial) -> None:
        note(session, trial, f"run-of-{trial.number}")

    search(session.study, objective, trials, None, session.turns, after_trial)
    return session.study.get_trials()[:trials]


def note_of(session: Session, trial: FrozenTrial) -> str:
    found: str = get_note(optuna.Trial(session.study, trial._trial_id))
    return found


def stored(session: Session) -> tuple[dict[str, Any], list[Path]]:
    """All that the dashboard is told, and the pictures' files."""
    study = session.study
    attributes = study._storage.get_study_system_attrs(study._study_id)
    return attributes, sorted(session.trial_pictures.iterdir())


def test_every_trial_has_a_note_and_its_pictures(session: Session) -> None:
    for trial in run(session):
        note = note_of(session, trial)
        assert f"**{trial.user_attrs['point']}**" in note
        assert "report's models" in note
        assert f"Completed: validation dice {trial.value:.4f} after 3 epochs." in note
        assert str(trial.user_attrs["seed"]) in note
        assert f"`run-of-{trial.number}`" in note
        (meta,) = get_all_artifact_meta(trial, storage=session.study._storage)
        assert (meta.filename, meta.mimetype) == ("segmentations.png", "image/png")
        with Image.open(session.trial_pictures / meta.artifact_id) as picture:
            assert picture.format == "PNG"
    assert len(stored(session)[1]) == 2


def test_the_pictures_are_of_the_validation_part(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def draw_trial(self: Any, model: Any, images: Any, device: Any, folder: Path) -> list[Path]:
        assert not model.training
        assert not torch.backends.cudnn.allow_tf32  # as the value is scored
        shown.append(images.names)
        return []

    monkeypatch.setattr("dl4ia.tasks.segmentation.SegmentationTask.draw_trial", draw_trial)
    run(session)
    (split,) = session.objective.splits
    assert shown == [session.dataset.subset(split.validation).names] * 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room: out of memory"),
        torch.OutOfMemoryError("no room: out of memory"),
        torch.AcceleratorError("no room: out of memory"),  # as where a kernel is loaded
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_trial_that_cannot_be_pictured_for_want_of_memory_counts(
    session: Session, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw_trial(*_: object) -> list[Path]:
        raise error

    monkeypatch.setattr("dl4ia.tasks.segmentation.SegmentationTask.draw_trial", draw_trial)
    for trial in run(session):
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert "Its pictures could not be written: no room" in note_of(session, trial)


def test_the_pictures_change_no_value(session: Session, tmp_path: Path, mlflow: str) -> None:
    trials = run(session)
    other = open_in(tmp_path / "other", tmp_path / "Glands <b>|`*", mlflow)
    search(other.study, other.objective, 2, None, other.turns, lambda trial: None)
    values = [trial.value for trial in other.study.get_trials()[:2]]
    assert values == [trial.value for trial in trials]


def test_a_full_disk_costs_a_trial_its_pictures_only(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(dashboard, "upload_artifact", full)
    for trial in run(session):
        assert trial.state == TrialState.COMPLETE
        assert "pictures could not be written: No space left on device" in note_of(session, trial)


def test_nothing_is_written_twice(session: Session) -> None:
    trials = run(session)
    dashboard.write_study(session, None, "parent")
    before = stored(session)
    run(session)
    for trial in trials:
        note(session, trial, f"run-of-{trial.number}")
    dashboard.write_study(session, None, "parent")
    assert stored(session) == before
    runs = {str(trial.number): f"run-of-{trial.number}" for trial in trials}
    assert dashboard.study_is_written(session, None, "parent", runs)
    assert not dashboard.study_is_written(session, None, "another run", runs)
    others = runs | {"1": "of another database"}
    assert not dashboard.study_is_written(session, None, "parent", others)
    assert dashboard.trials_without_note(session.study, others) == [session.study.get_trials()[1]]


def test_a_note_that_was_cut_off_is_missed(session: Session) -> None:
    dashboard.write_study(session, None, "parent")
    search(session.study, session.objective, 1, None, session.turns, lambda trial: None)
    (trial,) = dashboard.trials_without_note(session.study, {})
    assert not dashboard.study_is_written(session, None, "parent", {})
    note(session, trial, "run")
    assert dashboard.trials_without_note(session.study, {}) == []


def test_what_users_add_to_a_note_is_kept(session: Session) -> None:
    dashboard.write_study(session, None, "parent")
    assert "Leaderboard" not in get_note(session.study)
    save_note(session.study, get_note(session.study) + "\n\nSee page 3.")
    run(session)
    assert not dashboard.study_is_written(session, None, "parent", {})  # the leaderboard is new
    dashboard.write_study(session, None, "parent")
    told = get_note(session.study)
    assert "Leaderboard" in told and told.endswith("\n\nSee page 3.")
    assert dashboard.study_is_written(session, None, "parent", {})


def test_the_study_note(session: Session) -> None:
    run(session)
    note = study_note(session, None, "1234")
    assert note.startswith("# segmentation-glands")
    assert "MLflow run: `1234`" in note
    assert "baseline (report)" in note and "resnet (report), not run" in note
    assert r"Glands &#x3c;b\>\|\`\*" in note and "<b>" not in note
    assert "| `learning_rate` |" in note
    assert "Winner" not in note
    server = replace(session, tracking_uri="http://127.0.0.1:5000/")
    assert "[1234](<http://127.0.0.1:5000/#/runs/1234>)" in study_note(server, None, "1234")
    secret = replace(session, tracking_uri="http://me:secret@127.0.0.1:5000")
    assert "secret" not in study_note(secret, None, "1234")


def selection_of(trials: list[FrozenTrial]) -> Selection:
    finalists = [
        Finalist(trial.number, 100, 0.8, (0.7 - trial.number / 10, 0.72)) for trial in trials
    ]
    return Selection(tuple(finalists), 0, None, 1, 2, 0.25)


def test_the_plots_have_the_finalists_and_the_effects(session: Session) -> None:
    selection = selection_of(run(session))
    effect = {"name": "depth", "chosen": 3, "turned_back": 2, "differences": [0.1, 0.3]}
    failed = {"name": "loss", "chosen": "x", "turned_back": "y", "differences": [],
              "failure": HOSTILE}  # fmt: skip
    record = {"trial": 0, "repeats": 2, "held_out": 0.25, "baseline": "baseline"}
    session.study.set_user_attr("ablation", record | {"effects": [effect, failed]})
    for _ in range(2):
        dashboard.write_study(session, selection, "parent")
        plots = get_plotly_graph_objects(stored(session)[0])
        made = {name: json.loads(plot)["data"] for name, plot in plots.items()}
        assert made.keys() == {"finalists", "ablation"}
    means, searched = made["finalists"]
    assert means["y"] == ["trial 1: model_1", "trial 0: baseline"]
    assert means["x"] == pytest.approx([0.66, 0.71])
    assert searched["x"] == [0.8, 0.8]
    (effects,) = made["ablation"]
    assert (effects["y"], effects["x"]) == (["depth: 3"], [pytest.approx(0.2)])
    assert "Finalists" in get_note(session.study)


def ended(state: TrialState, **attributes: object) -> FrozenTrial:
    return create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        params={"rate": 0.5},
        distributions={"rate": FloatDistribution(0, 1)},
        user_attrs=attributes,
    )


def test_how_a_trial_ended() -> None:
    history = {"val_dice": [0.1, 0.2], "seconds": [1.0, 1.0]}
    pruned = trial_note(ended(TrialState.PRUNED, history=history), "dice", "", "run")
    assert "Pruned after 2 epochs, at validation dice 0.2000" in pruned
    interrupted = trial_note(ended(TrialState.FAIL), "dice", "", "run")
    assert "Interrupted" in interrupted
    failed = trial_note(ended(TrialState.FAIL, failure="out of memory"), "dice", "", "run")
    assert "Failed after 0 epochs: out of memory" in failed


def test_a_failures_message_is_harmless() -> None:
    note = trial_note(ended(TrialState.FAIL, failure=HOSTILE), "dice", "", "run")
    assert f"Failed after 0 epochs: {plain(HOSTILE)}" in note
