from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch

from dl4ia.data.dataset import Dataset
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.evaluation.retraining import Retrainer, Retraining, retraining_seed
from dl4ia.evaluation.test_lock import Candidate, check_test_lock, open_test_set
from dl4ia.report import findings
from dl4ia.selection.finalists import Selection
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.workflow import retrainings
from search_spaces.segmentation import REPORT_MODELS

CPU = torch.device("cpu")
ENVIRONMENT = {"commit": "abc", "dirty": "False"}
TASK = SegmentationTask()


@pytest.fixture
def train(gland_folder: Path) -> Dataset:
    return GlandFolder(gland_folder).train()


def run(train: Dataset, file: Path, seed: int = 1, epochs: int = 2) -> tuple[Retraining, int]:
    """A retraining, and the number of epochs it took."""
    trained: list[int] = []
    baseline = REPORT_MODELS["baseline"]
    known = train.fingerprint()
    retrainer = Retrainer(TASK, baseline, train, known, epochs, seed, CPU, "abc", file)
    was_kept = retrainer.is_kept
    result = retrainer.train(lambda: trained.append(1))
    assert was_kept == (not trained) and retrainer.is_kept
    return result, len(trained)


def weights(retraining: Retraining) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in retraining.model.parameters()])


def test_a_retraining_is_kept_and_read_again(train: Dataset, tmp_path: Path) -> None:
    first, trained = run(train, tmp_path / "folder" / "seed_0.pt")
    assert trained == 2 and {len(values) for values in first.history.values()} == {2}
    again, trained = run(train, tmp_path / "folder" / "seed_0.pt")
    assert trained == 0
    assert torch.equal(weights(first), weights(again))
    assert first.fingerprint == again.fingerprint and len(first.fingerprint) == 16
    next(again.model.parameters()).data[0] += 1e-6
    assert first.fingerprint != again.fingerprint
    assert first.history == again.history
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["seed_0.pt"]


def test_a_kept_retraining_of_something_else_is_not_taken(train: Dataset, tmp_path: Path) -> None:
    run(train, tmp_path / "seed_0.pt")
    for changed in ({"seed": 2}, {"epochs": 1}):
        _, trained = run(train, tmp_path / "seed_0.pt", **changed)
        assert trained == changed.get("epochs", 2)
    _, trained = run(train.subset(range(9)), tmp_path / "seed_0.pt", epochs=1)
    assert trained == 1


def test_a_kept_retraining_of_other_layers_is_trained_again(train: Dataset, tmp_path: Path) -> None:
    """As after the code of a network was changed, which its recipe does not tell."""
    file = tmp_path / "seed_0.pt"
    run(train, file, epochs=1)
    kept = torch.load(file, weights_only=True)
    kept["weights"] = {f"renamed.{name}": each for name, each in kept["weights"].items()}
    torch.save(kept, file)
    _, trained = run(train, file, epochs=1)
    assert trained == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_kept_retraining_that_is_not_whole_is_trained_again(
    train: Dataset, tmp_path: Path, content: bytes
) -> None:
    """As after a power cut."""
    (tmp_path / "seed_0.pt").write_bytes(content)
    _, trained = run(train, tmp_path / "seed_0.pt", epochs=1)
    assert trained == 1


def test_a_checkpoint_of_another_device_or_commit_is_not_taken(
    train: Dataset, tmp_path: Path
) -> None:
    """A score's record names one commit."""
    recipes = {
        Retrainer(TASK, {}, train, "", 1, 1, device, code, tmp_path)._checkpoint_recipe
        for device, code in ((CPU, "abc"), (torch.device("cuda"), "abc"), (CPU, "abd"))
    }
    assert len(recipes) == 3


def test_seeds_differ_and_repeat() -> None:
    seeds = {retraining_seed(0, 3, number) for number in range(100)}
    assert len(seeds) == 100
    assert retraining_seed(0, 3, 1) == retraining_seed(0, 3, 1) != retraining_seed(1, 3, 1)


def test_the_opening_is_recorded_before_the_test_files_are_read(gland_folder: Path) -> None:
    study = optuna.create_study()
    source = GlandFolder(gland_folder)
    broken = gland_folder / "Test" / "image_03.png"
    content = broken.read_bytes()
    broken.write_bytes(b"")
    with pytest.raises(InputError, match=r"image_03\.png"):
        open_test_set(study, source, Candidate(5, 3, 9), ENVIRONMENT)
    (opening,) = study.user_attrs["test_openings"]
    assert opening["trial"] == 5 and opening["commit"] == "abc"
    broken.write_bytes(content)
    assert (
        len(open_test_set(study, source, Candidate(5, 3, 9), ENVIRONMENT)) == 6
    )  # goes on: not a second one
    assert study.user_attrs["test_openings"] == [opening]


def test_another_winner_needs_the_users_word_and_is_counted() -> None:
    study = optuna.create_study()
    known, other = Candidate(5, 3, 9), Candidate(8, 3, 9)
    check_test_lock(study, known, again=False)
    open_test_set(study, EmbeddedGlands(), known, ENVIRONMENT)
    check_test_lock(study, known, again=False)
    for candidate in (other, Candidate(5, 4, 9), Candidate(5, 3, 10)):
        with pytest.raises(InputError, match="--reopen-test"):
            check_test_lock(study, candidate, again=False)
    check_test_lock(study, other, again=True)
    open_test_set(study, EmbeddedGlands(), other, ENVIRONMENT)
    assert [opening["trial"] for opening in study.user_attrs["test_openings"]] == [5, 8]


def test_what_other_studies_of_the_images_have_opened_is_told() -> None:
    storage = optuna.storages.InMemoryStorage()

    def opened(name: str, data: str, fingerprint: str) -> str:
        study = optuna.create_study(study_name=name, storage=storage)
        identity = {"task": "segmentation", "data": data, "data_fingerprint": fingerprint}
        study.set_user_attr("identity", identity)
        open_test_set(study, EmbeddedGlands(), Candidate(1, 1, 1), ENVIRONMENT)
        return findings.openings(study.user_attrs["test_openings"])

    assert opened("first", "drawn", "a") == opened("of others", "own", "b") == "1 time"
    after = "1 time, after {} by other studies in its database".format
    assert opened("second", "drawn", "a") == after("1 time")
    assert opened("of a folder that was renamed", "renamed", "a") == after("2 times")
    assert opened("of a folder with more in it", "drawn", "c") == after("2 times")
    assert opened("third", "drawn", "a") == after("4 times")
    assert findings.openings([]) == "0 times"


def test_a_file_that_cannot_be_written_is_named(train: Dataset, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"taken/seed_0\.pt: cannot be written"):
        run(train, tmp_path / "taken" / "seed_0.pt", epochs=1)


@pytest.mark.parametrize(
    ("failure", "advice"),
    [(TrialFailure("epoch 1: train_loss is nan"), ""), (OutOfMemory("epoch 1: out"), "memory")],
)
def test_a_report_model_that_fails_is_done_without_but_not_for_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, failure: TrialFailure, advice: str
) -> None:
    """The test set would open without it, for good, where another start may have the memory."""

    def fail(_: object, trial: int, *others: object) -> None:
        with retrainings.retraining_of(trial):
            raise failure

    monkeypatch.setattr(retrainings, "retrain", fail)
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=0.5))
    session: Any = SimpleNamespace(
        study=study, arguments=SimpleNamespace(seeds=2), retraining_epochs=3
    )
    selection = Selection((), 7, None, 0, 5, 0.25)
    if advice:
        with pytest.raises(InputError, match=advice):
            retrainings.retrain_report_model(session, selection)
    else:
        assert retrainings.retrain_report_model(session, selection) == []
