"""Whole digit studies, as a user runs them, on a small folder of class folders."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
from commands import run_command
from conftest import dl4ia, refuses, runs_of
from mlflow import MlflowClient
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from PIL import Image
from test_digit_source import write_idx_files

from dl4ia.command_line.flags import add_digit_flags, parse, study_parser
from dl4ia.data.class_folder import ClassFolder
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.data.idx_folder import IdxFolder
from dl4ia.errors import InputError
from dl4ia.search.pareto import knee_point, pareto_front
from dl4ia.selection.ranking import best_trial
from dl4ia.workflow import whole_study
from search_spaces.classification import REPORT_MODELS

SCRIPT = Path(__file__).parent.parent / "studies" / "classification.py"
NAME = "classification-digits-for-tests"
FOLDER = "Digits for tests"


def write_class_folders(folder: Path, train: int = 8, test: int = 4) -> Path:
    """The course's layout, Train/0/*.png to Test/9/*.png, with so many images a class."""
    dataset = EmbeddedDigits().train()
    for digit in range(10):
        indices = (dataset.labels == digit).nonzero()[:, 0].tolist()
        for number, index in enumerate(indices[: train + test]):
            place = folder / ("Train" if number < train else "Test") / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            pixels = (255 * dataset.images[index, 0]).round().byte().numpy()
            Image.fromarray(pixels).save(place / f"{number:03d}.png")
    return folder


def command(*flags: str) -> list[str]:
    words = [sys.executable, str(SCRIPT), "--data", FOLDER, "--trials", "10", "--epochs", "3"]
    return [*words, "--seeds", "2", "--finalists", "0", "--repeats", "2", "--ablate", *flags]


def test_fewer_images_are_shown_oftener(tmp_path: Path) -> None:
    epochs = runpy.run_path(str(SCRIPT))["default_epochs"]
    assert [epochs(count) for count in (60_000, 1_000_000, 30_000, 1437, 10)] == [8, 8, 16, 40, 40]
    folder = ClassFolder(write_class_folders(tmp_path / FOLDER), tmp_path)
    for source in (folder, EmbeddedDigits()):
        assert source.training_images == len(source.train())


def test_the_small_digits_are_taken_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether MNIST is there or not."""
    write_idx_files(tmp_path / "data" / "MNIST" / "raw")
    monkeypatch.chdir(tmp_path)
    sources: list[object] = []
    monkeypatch.setattr(whole_study, "run_study", lambda task, source, *_: sources.append(source))
    script = runpy.run_path(str(SCRIPT))
    parser = study_parser("", "", "", "")
    add_digit_flags(parser)
    script["study"](*parse(parser, ["--small-digits"]))
    assert isinstance(sources.pop(), EmbeddedDigits) and not capsys.readouterr().out
    script["study"](*parse(parser, []))
    assert isinstance(sources.pop(), IdxFolder)
    with pytest.raises(InputError, match="--small-digits and --data other: expected one"):
        script["study"](*parse(parser, ["--small-digits", "--data", "other"]))
    with pytest.raises(InputError, match="--channels rgb: MNIST and the small digits are grey"):
        script["study"](*parse(parser, ["--channels", "rgb"]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole study in it, and what it printed in output.txt."""
    folder = tmp_path_factory.mktemp("study")
    write_class_folders(folder / FOLDER)
    # Started as a user starts it, from nothing.
    ended = subprocess.run(command(), cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (folder / "output.txt").write_text(ended.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def study(finished: Path) -> optuna.Study:
    storage = f"sqlite:///{finished / 'mlruns' / 'optuna.db'}"
    return optuna.load_study(study_name=NAME, storage=storage)


def test_the_summary_has_the_reports_networks_and_both_scores(
    finished: Path, study: optuna.Study
) -> None:
    text = (finished / "output.txt").read_text(encoding="utf-8")
    for name in REPORT_MODELS:
        assert f"{name} (report)" in text
    assert f"Winner: trial {best_trial(study).number}, " in text  # of equals the smaller one
    assert f"accuracy {study.best_value:.4f}  (mean over images)" in text
    assert "Test (retrained on all training images, 3 epochs; mean ± SD over 2 seeds, " in text
    assert "calibration_error 0." in text
    assert "Finalists" not in text
    assert "Validation of the same" not in text  # it is the trial's own length
    assert len(study.trials) == 10


def test_every_choice_of_the_winner_is_turned_back(finished: Path, study: optuna.Study) -> None:
    ablation = study.user_attrs["ablation"]
    winner, baseline = best_trial(study).params, REPORT_MODELS["exercise_1_4"]
    assert ablation["trial"] == best_trial(study).number
    differing = {name for name in winner if name in baseline and winner[name] != baseline[name]}
    assert {effect["name"] for effect in ablation["effects"]} == differing and differing
    for effect in ablation["effects"]:
        assert len(effect["differences"]) == 2 or effect["failure"]
        assert effect["turned_back"] == baseline[effect["name"]]
    text = (finished / "output.txt").read_text(encoding="utf-8")
    assert "Ablation: what each choice buys, turned back alone to exercise_1_4's" in text
    page = (finished / "mlruns" / "reports" / NAME / "index.html").read_text(encoding="utf-8")
    assert "<h2>What each choice buys</h2>" in page


def test_a_finished_study_only_prints_its_summary_again(
    finished: Path, study: optuna.Study
) -> None:
    again = run_command(command(), finished)
    assert again.returncode == 0, again.stderr
    text = (finished / "output.txt").read_text(encoding="utf-8")
    assert again.stdout.strip() == text[text.index("Study ") :].strip()
    assert len(study.user_attrs["test_openings"]) == 1


def test_the_dashboard_has_pictures_of_each_trial(finished: Path, study: optuna.Study) -> None:
    folder = finished / "mlruns" / "artifacts" / "optuna"
    for trial in study.get_trials(states=[TrialState.COMPLETE]):
        kept = get_all_artifact_meta(trial, storage=study._storage)
        assert {each.filename for each in kept} == {"confusion.png", "misclassified.png"}
        for each in kept:
            with Image.open(folder / each.artifact_id) as picture:
                assert min(picture.size) > 100


def test_mlflow_has_trials_pictures_and_a_model_of_any_batch_size(
    finished: Path, study: optuna.Study
) -> None:
    uri = f"sqlite:///{finished / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    trials = runs_of(client, "classification", "trial")
    assert sorted(int(run.data.tags["dl4ia.trial"]) for run in trials) == list(range(10))
    for run in trials:
        wanted = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"}
        assert wanted <= run.data.metrics.keys()
    (winner,) = runs_of(client, "classification", "winner")
    pictures = {item.path for item in client.list_artifacts(winner.info.run_id, "pictures")}
    names = ("history", "test_confusion", "test_misclassified")
    assert pictures == {f"pictures/{name}.png" for name in names}
    recorded = study.user_attrs["winner"]["metrics"]
    assert winner.data.metrics["test_accuracy"] == pytest.approx(recorded["test_accuracy"])
    version = client.get_model_version_by_alias(NAME, "champion")
    model = mlflow.pyfunc.load_model(version.source)
    for count in (1, 7):
        images = np.random.default_rng(0).random((count, 1, 28, 28), np.float32)
        assert np.asarray(model.predict(images)).shape == (count, 10)


def test_several_objectives_end_with_their_front_and_a_winner_on_request(tmp_path: Path) -> None:
    write_class_folders(tmp_path / FOLDER)
    words = [sys.executable, str(SCRIPT), "--data", FOLDER, "--trials", "10", "--epochs", "1",
             "--seeds", "1", "--objectives", "accuracy,weights"]  # fmt: skip
    ended = run_command(words, tmp_path)
    assert ended.returncode == 0, ended.stderr
    storage = f"sqlite:///{tmp_path / 'mlruns' / 'optuna.db'}"
    study = optuna.load_study(study_name=NAME, storage=storage)
    assert study.metric_names == ["val_accuracy", "weights"]
    front = {trial.number for trial in study.best_trials}
    lines = [line.split() for line in ended.stdout.splitlines()]
    shown = lines[lines.index(["trial", "val_accuracy", "weights", "model"]) + 1 :][: len(front)]
    assert {int(line[0]) for line in shown} == front
    assert set(study.user_attrs["front"]) == front
    assert ended.stdout.count(", the knee") == 1 and "Winner" not in ended.stdout
    assert (tmp_path / "mlruns" / "artifacts" / NAME / "pareto_front.png").stat().st_size > 5000
    assert "test_openings" not in study.user_attrs
    for trial in study.trials:
        assert trial.values[1] == trial.user_attrs["weights"]
    again = run_command(words, tmp_path)
    assert again.stdout.strip() == ended.stdout[ended.stdout.index("Study ") :].strip()
    other = run_command(words[:-2], tmp_path)
    assert "objectives is 'accuracy,weights' there and '' here" in other.stderr
    knee = run_command([*words, "--knee"], tmp_path)
    assert knee.returncode == 0, knee.stderr
    winner = study.user_attrs["winner"]["trial"]
    assert winner == knee_point(pareto_front(study)).number
    assert f"Winner: trial {winner}, " in knee.stdout
    page = (tmp_path / "mlruns" / "reports" / NAME / "index.html").read_text(encoding="utf-8")
    assert "<h2>Pareto front</h2>" in page


# What bad input gets: each breaks one thing in a good folder. Nothing may be written, but the cache
# of images that were all decoded well.


def first_image(folder: Path) -> Path:
    return folder / FOLDER / "Train" / "3" / "000.png"


def cut_short(folder: Path) -> None:
    path = first_image(folder)
    path.write_bytes(path.read_bytes()[:60])


def larger(folder: Path) -> None:
    Image.new("L", (30, 28)).save(first_image(folder))


def emptied(folder: Path) -> None:
    for path in first_image(folder).parent.iterdir():
        path.unlink()


def text_only(folder: Path) -> None:
    place = folder / "texts"
    place.mkdir()
    (place / "notes.txt").write_text("no images here", encoding="utf-8")


def wrong_magic(folder: Path) -> None:
    place = folder / "texts" / "MNIST" / "raw"
    place.mkdir(parents=True)
    for part in ("train", "t10k"):
        (place / f"{part}-images-idx3-ubyte").write_bytes(bytes(16))
        (place / f"{part}-labels-idx1-ubyte").write_bytes(bytes(8))


def nothing(folder: Path) -> None:
    pass


BAD: list[tuple[Callable[[Path], None], list[str], str]] = [
    (cut_short, [], r"Train/3/000\.png: cannot be read"),
    (larger, [], r"Train/3/000\.png: 30x28 pixels; expected 28x28"),
    (emptied, [], r"Train/3"),
    (text_only, ["--data", "texts"], r"^texts: "),
    (wrong_magic, ["--data", "texts"], r"train-images-idx3-ubyte: "),
    (nothing, ["--data", "nowhere"], r"nowhere: no such folder"),
    (nothing, ["--folds", "1000"], r"--folds 1000: expected 1 to 80"),
]


@pytest.mark.parametrize(("damage", "flags", "said"), BAD)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    flags: list[str],
    said: str,
) -> None:
    write_class_folders(tmp_path / FOLDER)
    damage(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    parser = study_parser("", "", "", "")
    add_digit_flags(parser)
    refuses(SCRIPT, parser, command(*flags)[2:], said)
    cache = tmp_path / "mlruns" / "cache"
    left = [path for path in sorted(tmp_path.rglob("*")) if cache not in (path, *path.parents)]
    assert [path for path in left if path != cache.parent] == before
    assert cache.exists() == ("--folds" in flags)


def test_what_only_colours_tell_apart(tmp_path: Path) -> None:
    """Two classes that are the same in grey, from the folder to predictions of other sizes."""
    draw = np.random.default_rng(0)
    colours = {"red": (200, 60, 60), "green": (60, 131, 60)}
    for name, colour in colours.items():
        for part, count in (("Train", 20), ("Test", 10)):
            for number in range(count):
                place = tmp_path / "Fruit" / part / name
                place.mkdir(parents=True, exist_ok=True)
                light = draw.uniform(0.5, 1.2, (12, 12, 1))
                pixels = (light * np.array(colour)).round().astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number:02d}.png")
    words = [sys.executable, str(SCRIPT), "--data", "Fruit", "--trials", "2", "--epochs", "20",
             "--seeds", "1", "--finalists", "0", "--workers", "1", "--within",
             "architecture=all_convolutional", "base_width=8", "dropout=0", "optimizer=adamw",
             "normalization=batch", "learning_rate=0.01", "initialization=he", "batch_size=30",
             "schedule=constant", "averaging=0"]  # fmt: skip
    accuracies = []
    for name, flags in (("colour", []), ("grey", ["--channels", "grey"])):
        ended = run_command([*words, "--study-name", name, *flags], tmp_path)
        assert ended.returncode == 0, ended.stderr
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/mlruns/optuna.db")
        accuracies.append(best_trial(study).value)
    assert accuracies[0] == 1.0 and accuracies[1] < 0.9
    Image.new("RGB", (40, 30), (120, 30, 30)).save(tmp_path / "apple.png")
    ended = dl4ia(tmp_path, "predict", "apple.png", "--model", "colour@champion", "-o", "out")
    assert ended.returncode == 0, ended.stderr
    assert "apple.png,red," in (tmp_path / "out" / "predictions.csv").read_text()
