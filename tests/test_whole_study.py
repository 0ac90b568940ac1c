"""Whole studies, as a user runs them, on a tiny folder of drawn glands."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
import torch
from commands import run_command
from conftest import refuses, runs_of, write_gland_folder
from mlflow import MlflowClient
from optuna.artifacts import get_all_artifact_meta
from optuna_dashboard import get_note, save_note
from PIL import Image

from dl4ia.command_line.flags import add_gland_flags, study_parser
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.search.trials import is_interrupted
from dl4ia.selection.finalists import Selection
from dl4ia.selection.repeats import kept_repeats
from dl4ia.tasks.segmentation import SegmentationTask
from search_spaces.segmentation import REPORT_MODELS

SCRIPT = Path(__file__).parent.parent / "studies" / "segmentation.py"
NAME = "segmentation-tiny-glands"
FLAGS = ["--trials", "12", "--epochs", "3", "--retraining-epochs", "4", "--seeds", "2",
         "--finalists", "2", "--repeats", "2", "--workers", "1"]  # fmt: skip


def command(folder: Path, *flags: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--data", "Tiny Glands", *FLAGS, *flags]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole study in it: stopped by Ctrl-C in the middle, and then ended."""
    folder = tmp_path_factory.mktemp("study")
    write_gland_folder(folder / "Tiny Glands")
    process = subprocess.Popen(
        command(folder), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("  1/12") and "baseline" in first
    time.sleep(0.3)  # into the next trial
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == (
        "Stopped. The same command goes on from here; a training in progress starts over."
    )
    assert "Traceback" not in errors and "Winner" not in rest
    ended = run_command(command(folder), folder)
    assert ended.returncode == 0, ended.stderr
    (folder / "output.txt").write_text(ended.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def study(finished: Path) -> optuna.Study:
    return optuna.load_study(
        study_name=NAME, storage=f"sqlite:///{finished / 'mlruns' / 'optuna.db'}"
    )


@pytest.fixture(scope="module")
def client(finished: Path) -> MlflowClient:
    uri = f"sqlite:///{finished / 'mlruns' / 'mlflow.db'}"
    return MlflowClient(uri, registry_uri=uri)


def winner_of(study: optuna.Study) -> optuna.trial.FrozenTrial:
    return study.trials[study.user_attrs["selection"]["winner"]]


def test_exactly_the_trials_asked_for(study: optuna.Study) -> None:
    interrupted = [trial for trial in study.trials if is_interrupted(trial)]
    assert len(interrupted) <= 1  # the signal may have come between two trials
    finished = [trial for trial in study.trials if trial not in interrupted]
    assert len(finished) == 12
    states = {trial.state for trial in finished}
    assert states <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    named = {trial.user_attrs.get("report_model") for trial in finished}
    assert named >= set(REPORT_MODELS)
    seeds = [trial.user_attrs["seed"] for trial in finished]
    assert len(set(seeds)) == 12


def test_the_summary(finished: Path, study: optuna.Study) -> None:
    text = (finished / "output.txt").read_text(encoding="utf-8")
    for name in REPORT_MODELS:
        assert f"{name} (report)" in text
    winner = winner_of(study)
    assert f"Winner: trial {winner.number}, " in text
    for name, value in winner.params.items():
        assert f"  {name} = {value}" in text
    assert f"dice {winner.value:.4f}  (mean over images)" in text
    longer = study.user_attrs["validation"]["history"]["val_dice"]
    assert len(longer) == 4
    assert "Validation of the same over the retrainings' 4 epochs" in text
    assert f"dice {longer[-1]:.4f}  (mean over images)" in text
    assert (
        "Test (retrained on all training images, 4 epochs; mean ± SD over 2 seeds, 95 % interval "
        "over 6 images and seeds)"
    ) in text
    spread = r"0\.\d{4} ± 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]"
    assert re.search(rf"dice {spread}  \(pooled over pixels\)", text)
    for name in ("iou", "surface_dice_2px", "object_f1"):
        assert re.search(rf"  {name} 0\.\d{{4}} ± 0\.\d{{4}}", text)
    assert "(ensemble of the 2 seeds, mean over flips and turns; no single model)" in text
    assert "measured optimism: " in text
    assert "Report page:         mlruns/reports/segmentation-tiny-glands/index.html" in text
    assert (
        "optuna-dashboard sqlite:///mlruns/optuna.db --artifact-dir mlruns/artifacts/optuna"
    ) in text
    assert "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db" in text


def test_the_finalists_and_who_wins(study: optuna.Study) -> None:
    """Distinct points, the best report model among them; the best mean over the repeats wins."""
    selection = Selection.from_record(study.user_attrs["selection"])
    assert [each.trial for each in selection.finalists[:1]] == [selection.winner]
    assert selection.report_model in {each.trial for each in selection.finalists}
    assert 2 <= len(selection.finalists) <= 3
    full = [each for each in selection.finalists if not each.given_up]
    assert selection.estimate(full[0]).mean == max(selection.estimate(each).mean for each in full)
    winner = study.user_attrs["winner"]
    assert winner["trial"] == selection.winner
    is_report_model = selection.report_model == selection.winner
    assert winner["compared_with"] == (None if is_report_model else selection.report_model)


def test_the_scores_of_every_image_are_kept(finished: Path, study: optuna.Study) -> None:
    winner = study.user_attrs["winner"]
    with (finished / winner["scores"]).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "winner"]
    assert len(rows) == 2 * 6
    mean = np.mean([float(row["dice"]) for row in rows])
    assert mean == pytest.approx(winner["metrics"]["test_dice"])


def test_the_report_page_opens_without_a_network(finished: Path, study: optuna.Study) -> None:
    page = (finished / "mlruns" / "reports" / NAME / "index.html").read_text(encoding="utf-8")
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", outside)
    for section in ("Test", "Finalists", "Search", "Which choices went with good trials",
                    "What a budget buys", "Where this comes from",
                    "To make it again"):  # fmt: skip
        assert f"<h2>{section}</h2>" in page
    assert outside.count("data:image/png;base64,") == len(study.user_attrs["winner"]["pictures"])
    assert f"{study.user_attrs['winner']['metrics']['test_dice']:.4f}" in page


def told_to_the_dashboard(finished: Path, study: optuna.Study) -> tuple[dict[str, Any], list[Path]]:
    """Notes and plots, with how often they were written; and the pictures' files."""
    notes = study._storage.get_study_system_attrs(study._study_id)
    return notes, sorted((finished / "mlruns" / "artifacts" / "optuna").iterdir())


def picture_ids(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> list[str]:
    artifacts = get_all_artifact_meta(trial, storage=study._storage)
    return [artifact.artifact_id for artifact in artifacts]


def test_the_dashboard_is_told_of_every_trial(finished: Path, study: optuna.Study) -> None:
    notes, pictures = told_to_the_dashboard(finished, study)
    kept = {trial.number: picture_ids(study, trial) for trial in study.trials}
    assert sorted(name for names in kept.values() for name in names) == [
        file.name for file in pictures
    ]
    for trial in study.trials:
        if trial.state.name == "COMPLETE":
            assert len(kept[trial.number]) == 1
        elif not is_interrupted(trial):  # which may have been as far as its picture
            assert not kept[trial.number]
        assert notes[f"dashboard:{trial._trial_id}:note_ver"] == 1
    assert f"Winner: trial {winner_of(study).number}" in get_note(study)


def test_a_finished_study_only_prints_its_summary_again(
    finished: Path, study: optuna.Study
) -> None:
    before = [(trial.number, trial.state) for trial in study.get_trials()]
    notes, pictures = told_to_the_dashboard(finished, study)
    again = run_command(command(finished), finished)
    assert again.returncode == 0
    summary = (finished / "output.txt").read_text(encoding="utf-8")
    assert again.stdout.strip() == summary[summary.index("Study ") :].strip()
    assert [(trial.number, trial.state) for trial in study.get_trials()] == before
    assert len(study.user_attrs["test_openings"]) == 1
    assert told_to_the_dashboard(finished, study) == (notes, pictures)


def test_a_note_and_a_picture_cut_off_are_no_harm(finished: Path, study: optuna.Study) -> None:
    """The notes are written again; a picture is of a training that is over, and stays away."""
    _, pictures = told_to_the_dashboard(finished, study)
    pictures[0].unlink()
    whole = get_note(study)
    save_note(study, "# cut off")
    again = run_command(command(finished), finished)
    assert again.returncode == 0, again.stderr
    assert get_note(study) == whole
    assert told_to_the_dashboard(finished, study)[1] == pictures[1:]


def test_more_trials_than_time_keep_the_test_set_shut(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    words = command(tmp_path, "--timeout", "0.1")
    ended = run_command(words, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "The time is over, with 11 trials missing." in ended.stdout
    assert "--trials 1 ends with the best of these" in ended.stdout
    assert "Winner" not in ended.stdout
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'mlruns' / 'optuna.db'}")
    assert "test_openings" not in summary.user_attrs


def test_mlflow_is_rebuilt_from_the_study(finished: Path, study: optuna.Study) -> None:
    """Into another database: the trials, and the winner with its model, without the test set."""
    uri = f"sqlite:///{finished / 'again.db'}"
    words = command(finished, "--tracking-uri", uri)
    rebuilt = run_command(words, finished)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "Retraining" not in rebuilt.stdout and "not the weights" not in rebuilt.stdout
    client = MlflowClient(uri, registry_uri=uri)
    assert len(runs_of(client, "segmentation", "trial")) == len(study.trials)
    assert len(runs_of(client, "segmentation", "repeat")) == len(kept_repeats(study))
    (winner,) = runs_of(client, "segmentation", "winner")
    assert winner.info.status == "FINISHED"
    assert (
        winner.data.tags["dl4ia.test_fingerprint"] == study.user_attrs["winner"]["test_fingerprint"]
    )
    assert client.get_model_version_by_alias(NAME, "champion").run_id == winner.info.run_id
    assert len(study.user_attrs["test_openings"]) == 1


def test_other_weights_than_were_scored_are_called_that(
    finished: Path, study: optuna.Study
) -> None:
    """As where their file is gone, and another processor trains them again.

    The repeats' figures of a score are those of today's finalists, as after more repeats.
    """
    winner = study.user_attrs["winner"]
    stale = winner["metrics"] | {"repeats_dice": 0.125}
    study.set_user_attr("winner", winner | {"model_fingerprint": "another", "metrics": stale})
    uri = f"sqlite:///{finished / 'other.db'}"
    words = command(finished, "--tracking-uri", uri)
    try:
        ended = run_command(words, finished)
        assert ended.returncode == 0, ended.stderr
        assert "These are not the weights that were scored" in ended.stdout
        version = MlflowClient(uri, registry_uri=uri).get_model_version_by_alias(NAME, "champion")
        assert "These are not the weights that were scored" in version.description
        assert study.user_attrs["winner"]["metrics"] == winner["metrics"]
    finally:
        study.set_user_attr("winner", winner)


def test_mlflow_has_every_trial_once(study: optuna.Study, client: MlflowClient) -> None:
    (parent,) = runs_of(client, "segmentation", "study")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best_val_dice"] == study.best_value
    tracked = runs_of(client, "segmentation", "trial")
    trials = {int(run.data.tags["dl4ia.trial"]): run for run in tracked}
    assert sorted(trials) == [trial.number for trial in study.trials]
    assert len(tracked) == len(trials)
    for trial in study.trials:
        run = trials[trial.number]
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["dl4ia.study"] == NAME and tags["dl4ia.state"] == trial.state.name
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        if is_interrupted(trial):
            assert run.info.status == "KILLED"
            continue
        history = client.get_metric_history(run.info.run_id, "val_dice")
        steps = {metric.step: metric.value for metric in history}
        assert steps == pytest.approx(trial.intermediate_values)
        for tag in ("commit", "dirty", "data_fingerprint", "split_fingerprint", "seed", "torch"):
            assert tags[f"dl4ia.{tag}"]
        assert {"train_loss", "val_loss", "val_dice_pooled", "val_iou", "learning_rate",
                "seconds", "weights"} <= set(run.data.metrics)  # fmt: skip
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name == "tiny-glands"
        assert data.dataset.digest == tags["dl4ia.data_fingerprint"]


def test_mlflow_has_every_repeat_once(study: optuna.Study, client: MlflowClient) -> None:
    runs = {run.data.tags["dl4ia.row"]: run for run in runs_of(client, "segmentation", "repeat")}
    kept = kept_repeats(study)
    assert runs.keys() == kept.keys()
    assert len(runs) == len(runs_of(client, "segmentation", "repeat"))
    for key, run in runs.items():
        assert run.data.params == {name: str(value) for name, value in kept[key]["point"].items()}
        last = kept[key]["history"]["val_dice"][-1]
        assert run.data.metrics["val_dice"] == pytest.approx(last)
    labels = {run.data.tags["dl4ia.point"] for run in runs.values()}
    assert any(label == f"trial {winner_of(study).number}" for label in labels)


def test_the_winner_is_registered_and_loads_without_unpickling(
    finished: Path, study: optuna.Study, client: MlflowClient
) -> None:
    (run,) = runs_of(client, "segmentation", "winner")
    record = study.user_attrs["winner"]
    assert run.data.tags["dl4ia.trial"] == str(winner_of(study).number) == str(record["trial"])
    assert run.data.metrics["test_dice"] == pytest.approx(record["metrics"]["test_dice"])
    assert run.data.metrics["retraining_epochs"] == record["epochs"] == 4
    assert {len(history["train_loss"]) for history in record["retrainings"]} == {4}
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "pictures")}
    assert {"pictures/history.png", "pictures/test_worst.png", "pictures/test_median.png",
            "pictures/test_best.png", "pictures/test_image_05.png"} <= pictures  # fmt: skip
    for folder, file in (("report", "index.html"), ("scores", "test_scores.csv")):
        (item,) = client.list_artifacts(run.info.run_id, folder)
        assert item.path == f"{folder}/{file}"
    version = client.get_model_version_by_alias(NAME, "champion")
    assert version.run_id == run.info.run_id
    names = ("val_dice", "repeats_dice", "test_dice", "test_dice_low", "test_dice_high")
    validation, fresh, test, low, high = (f"{record['metrics'][name]:.4f}" for name in names)
    ends = {f"repeats_dice_{end}": f"{record['metrics'][f'repeats_dice_{end}']:.4f}"
            for end in ("low", "high")}  # fmt: skip
    assert (
        version.tags == dict(zip(names, (validation, fresh, test, low, high), strict=True)) | ends
    )
    assert version.description.endswith(
        f"Validation dice {validation} after 4 epochs on the search's own split, {fresh} after the "
        f"trials' 3 on the finalists' splits; test dice {test}, the seeds' mean, 95 % interval "
        f"{low} to {high}."
    )
    selection = Selection.from_record(study.user_attrs["selection"])
    mean = selection.estimate(selection.of(selection.winner)).mean
    assert record["metrics"]["repeats_dice"] == run.data.metrics["repeats_dice"] == mean
    folder = Path(version.source.removeprefix("file://"))
    assert not list(folder.rglob("*.pkl")) and not list(folder.rglob("*.pth"))
    model = mlflow.pyfunc.load_model(str(folder))
    shape = model.metadata.signature.inputs.inputs[0].shape
    assert shape == (-1, 2, 32, 32)
    for count in (1, 7):
        images = np.random.default_rng(0).random((count, 2, 32, 32), np.float32)
        assert np.asarray(model.predict(images)).shape == (count, 2, 32, 32)


def test_the_exported_model_scores_as_the_first_retraining(
    finished: Path, study: optuna.Study, client: MlflowClient
) -> None:
    version = client.get_model_version_by_alias(NAME, "champion")
    model = mlflow.pyfunc.load_model(version.source)
    test = GlandFolder(finished / "Tiny Glands").test()
    logits = torch.as_tensor(np.asarray(model.predict(test.images.numpy())))

    class Exported(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return logits[: len(images)]

    scores = SegmentationTask().evaluate(Exported(), test, torch.device("cpu"))
    expected = study.user_attrs["winner"]["metrics"]["test_dice_seed_0"]
    assert scores["dice"] == pytest.approx(expected, abs=2e-3)


# What bad input gets: each breaks one thing in a good folder; nothing may be written.


def empty(folder: Path) -> None:
    (folder / "Tiny Glands" / "Train" / "image_03.png").write_bytes(b"")


def no_label(folder: Path) -> None:
    (folder / "Tiny Glands" / "Train" / "label_03.png").unlink()


def too_few(folder: Path) -> None:
    for path in (folder / "Tiny Glands" / "Train").glob("*_0[5-9].png"):
        path.unlink()
    for path in (folder / "Tiny Glands" / "Train").glob("*_10.png"):
        path.unlink()


def blue(folder: Path) -> None:
    path = folder / "Tiny Glands" / "Train" / "image_03.png"
    Image.new("RGB", (32, 32), (9, 9, 9)).save(path)


def no_patient(folder: Path) -> None:
    (folder / "Tiny Glands" / "patients.csv").write_text("split,image,patient\n")


def nothing(folder: Path) -> None:
    pass


BAD: list[tuple[Callable[[Path], None], list[str], str]] = [
    (empty, [], r"image_03\.png: cannot be read as an image \(it is empty\)"),
    (no_label, [], r"image_03\.png: its label is missing"),
    (too_few, [], r"Train: 4 training images; expected at least 5"),
    (blue, [], r"image_03\.png: its blue channel is not 0"),
    (no_patient, [], r"patients\.csv: no row for Train/image_01\.png"),
    (nothing, ["--split-by", "patient"], r"--split-by patient: .* patients\.csv"),
    (nothing, ["--data", "nowhere"], r"nowhere: no such folder"),
    (nothing, ["--objectives", "accuracy,weights"], r"accuracy,weights: expected dice first"),
    (nothing, ["--knee"], r"--knee: expected --objectives too"),
    (nothing, ["--folds", "1000"], r"--folds 1000: expected 1 to 10"),
    (nothing, ["--out", "Tiny Glands/Train/image_01.png"], r"--out Tiny Glands/Train/image_01"),
    (nothing, ["--storage", "sqlite:///Tiny Glands/Train/image_01.png"], r"database of Optuna's"),
    (nothing, ["--storage", "sqlite:///x.db", "--tracking-uri", "sqlite:///x.db"], r"are both"),
    (nothing, ["--storage", "bogus"], r"--storage bogus: cannot be reached"),
    (nothing, ["--tracking-uri", "http://127.0.0.1:9"], r"http://127\.0\.0\.1:9"),
    (nothing, ["--tracking-uri", "./mlruns"], r"\./mlruns"),
]


@pytest.mark.parametrize(("damage", "flags", "said"), BAD)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    flags: list[str],
    said: str,
) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    damage(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    parser = study_parser("", "", "", "")
    add_gland_flags(parser)
    refuses(SCRIPT, parser, command(tmp_path, *flags)[2:], said)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_study_of_the_name_is_refused_in_one_line(finished: Path) -> None:
    databases = [finished / "mlruns" / name for name in ("optuna.db", "mlflow.db")]
    before = [path.stat().st_size for path in databases]
    other = run_command(command(finished, "--epochs", "4"), finished)
    assert other.returncode == 2
    (line,) = other.stderr.splitlines()
    assert NAME in line and "epochs is 3 there and 4 here" in line
    assert [path.stat().st_size for path in databases] == before


def test_a_new_winner_after_the_opening_needs_the_users_word(
    finished: Path, study: optuna.Study
) -> None:
    """The lock, on the study's own database, where the search's best wins without finalists."""
    best = study.best_trial
    better = optuna.trial.create_trial(
        value=0.999,
        params=best.params,
        distributions=best.distributions,
        user_attrs=best.user_attrs,
        system_attrs=best.system_attrs,
    )
    study.add_trial(better)
    before, scored = study.user_attrs["selection"], study.user_attrs["winner"]
    assert before["finalists"]
    words = command(finished, "--finalists", "0")
    refused = run_command(words, finished)
    assert refused.returncode == 2
    assert "--reopen-test" in refused.stderr.splitlines()[-1]
    assert len(study.user_attrs["test_openings"]) == 1
    assert study.user_attrs["selection"] == before
    again = run_command([*words, "--reopen-test"], finished)
    assert again.returncode == 0, again.stderr
    assert "test set opened 2 times" in again.stdout
    assert json.dumps(study.user_attrs["test_openings"]).count("when") == 2
    (former,) = study.user_attrs["former_winners"]
    assert former == {name: value for name, value in scored.items() if name != "retrainings"}
    page = (finished / "mlruns" / "reports" / NAME / "index.html").read_text(encoding="utf-8")
    assert f", test dice {scored['metrics']['test_dice']:.4f}" in page
