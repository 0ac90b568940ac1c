"""The objective in real Optuna studies on eight small images."""

from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from dl4ia.data.dataset import Dataset
from dl4ia.data.glands import draw_glands
from dl4ia.data.splits import Split
from dl4ia.errors import TrialFailure
from dl4ia.search.halving import REDUCTION, rung
from dl4ia.search.objective import Objective, train_point
from dl4ia.search.seeds import derive_seed
from dl4ia.search.trials import counts, has_died, hidden, history_of, is_interrupted, is_skipped
from dl4ia.search_space import Space, choice, integer, real
from dl4ia.tasks.segmentation import SegmentationTask

CPU = torch.device("cpu")
EPOCHS = 3
SPACE: Space = {
    "architecture": choice("fcn", doc=""),
    "base_width": choice(8, doc=""),
    "depth": integer(2, 2, doc=""),
    "normalization": choice("none", "batch", doc=""),
    "dropout": real(0.0, 0.5, doc=""),
    "initialization": choice("he", doc=""),
    "loss": choice("cross_entropy_dice", doc=""),
    "optimizer": choice("momentum", doc=""),
    "learning_rate": real(1e-3, 1e30, log=True, doc=""),
    "schedule": choice("constant", doc=""),
    "batch_size": choice(2, doc=""),
    "augmentation": choice("flips_and_quarter_turns", doc=""),
}
POINT: dict[str, Any] = {
    "architecture": "fcn",
    "base_width": 8,
    "depth": 2,
    "normalization": "batch",
    "dropout": 0.0,
    "initialization": "he",
    "loss": "cross_entropy_dice",
    "optimizer": "momentum",
    "learning_rate": 0.01,
    "schedule": "constant",
    "batch_size": 2,
    "augmentation": "flips_and_quarter_turns",
}
HALVES = (Split((0, 1, 2, 3), (4, 5, 6, 7)), Split((4, 5, 6, 7), (0, 1, 2, 3)))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    drawn = draw_glands("train", size=16)
    images = torch.from_numpy(drawn.images[:8]).float() / 255
    return Dataset(images, torch.from_numpy(drawn.masks[:8]).long(), tuple("abcdefgh"))


def make_objective(
    dataset: Dataset, splits: tuple[Split, ...] = HALVES[:1], seed: int = 0
) -> Objective:
    return Objective(
        SegmentationTask(), SPACE, dataset, splits, EPOCHS, seed, CPU, {"commit": "abc"}
    )


def run(
    objective: Objective,
    *points: dict[str, Any],
    attributes: dict[str, Any] | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> list[FrozenTrial]:
    """The finished trials of a fresh study, one a point."""
    study = optuna.create_study(direction="maximize", pruner=pruner or optuna.pruners.NopPruner())
    for point in points:
        study.enqueue_trial(point, user_attrs=attributes)
    study.optimize(objective, n_trials=len(points), catch=(TrialFailure,))
    return study.trials


def test_the_value_is_the_last_epochs_validation_dice(dataset: Dataset) -> None:
    (trial,) = run(make_objective(dataset), POINT)
    history = history_of(trial)
    assert trial.params == POINT
    assert trial.value == history["val_dice"][-1]
    assert trial.intermediate_values == dict(enumerate(history["val_dice"], start=1))
    assert {len(column) for column in history.values()} == {EPOCHS}
    assert {"train_loss", "val_loss", "val_iou", "learning_rate", "seconds"} <= history.keys()


def test_what_a_trial_is_known_by_is_recorded(dataset: Dataset) -> None:
    (trial,) = run(make_objective(dataset), POINT)
    attributes = trial.user_attrs
    assert attributes["seed"] == derive_seed(0, "trial", 0)
    # Convolutions 2-8-16 of 3x3 with normalisation, transposed ones of 4x4, and the last 1x1.
    convolutions = 2 * 8 * 9 + 8 + 16 + 8 * 16 * 9 + 16 + 32
    assert attributes["weights"] == convolutions + 8 * 8 * 16 + 8 + 16 * 16 * 16 + 16 + 34
    assert hidden(trial, "environment") == {"commit": "abc"}
    assert "failure" not in attributes


def test_seed_and_point_repeat_a_value(dataset: Dataset) -> None:
    point = POINT | {"dropout": 0.3}
    seed = derive_seed(0, "trial", 7)
    known, second = run(make_objective(dataset), point, point)
    (again,) = run(make_objective(dataset), point)
    (other,) = run(make_objective(dataset, seed=1), point)
    (retried,) = run(make_objective(dataset, seed=1), point, attributes={"seed": seed})
    (same,) = run(make_objective(dataset), point, attributes={"seed": seed})
    losses = [
        history_of(trial)["val_loss"] for trial in (known, again, second, other, retried, same)
    ]
    assert losses[0] == losses[1]
    assert known.value == again.value
    assert losses[0] != losses[2], "each trial has a seed of its own"
    assert losses[0] != losses[3]
    assert losses[4] == losses[5]


UNEVEN = (Split((0, 1, 2), (3, 4, 5, 6, 7)), Split((3, 4, 5, 6, 7), (0, 1, 2)))


@pytest.mark.parametrize("splits", [HALVES, UNEVEN])
def test_two_folds_give_the_mean_over_their_images(
    dataset: Dataset, splits: tuple[Split, ...]
) -> None:
    (trial,) = run(make_objective(dataset, splits), POINT)
    finals = []
    for number, split in enumerate(splits):
        seed = derive_seed(trial.user_attrs["seed"], "fold", number)
        parts = dataset.subset(split.train), dataset.subset(split.validation)
        _, results = train_point(SegmentationTask(), POINT, *parts, EPOCHS, seed, CPU)
        finals.append(list(results)[-1]["val_dice"])
    assert finals[0] != finals[1]
    sizes = [len(split.validation) for split in splits]
    weighed = sum(size * value for size, value in zip(sizes, finals, strict=True))
    assert trial.value == pytest.approx(weighed / sum(sizes))


def test_a_named_point_is_never_pruned(dataset: Dataset) -> None:
    impossible = optuna.pruners.ThresholdPruner(lower=1.1)
    (pruned,) = run(make_objective(dataset), POINT, pruner=impossible)
    (kept,) = run(make_objective(dataset), POINT, attributes={"point": "unet"}, pruner=impossible)
    assert pruned.state == TrialState.PRUNED
    assert len(history_of(pruned)["val_dice"]) == 1
    assert hidden(pruned, "environment") == {"commit": "abc"}
    assert kept.state == TrialState.COMPLETE
    assert len(history_of(kept)["val_dice"]) == EPOCHS


def test_successive_halving_has_one_rung_and_is_asked_there(dataset: Dataset) -> None:
    for epochs in range(1, 1000):
        assert 0 < rung(epochs) <= epochs < rung(epochs) * REDUCTION  # where the next would be

    class Asked(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            steps.append(trial.last_step)
            return False

    steps: list[int | None] = []
    (trial,) = run(replace(make_objective(dataset), epochs=6), POINT, pruner=Asked())
    assert steps == [rung(6)] == [2]
    assert list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("every", "told"), [(0.0, 8), (1e9, rung(8))])
def test_optuna_is_told_all_values_but_not_each_by_itself(
    dataset: Dataset, every: float, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decides is told at once."""

    def look(trial: optuna.Trial, model: torch.nn.Module, validation: Dataset) -> None:
        seen.append(list(trial.study.trials[0].intermediate_values))

    seen: list[list[int]] = []
    monkeypatch.setattr("dl4ia.search.objective.REPORTS_EVERY", every)
    (trial,) = run(replace(make_objective(dataset), epochs=8, after_training=look), POINT)
    assert seen == [list(range(1, told + 1))]
    assert list(trial.intermediate_values) == list(range(1, 9))


def test_what_decides_is_a_mean_of_the_weights(dataset: Dataset) -> None:
    """Two of 32 steps make the sixteenth; a named point, of which nothing is decided, has none."""
    objective = replace(make_objective(dataset), epochs=16)
    (trial,) = run(objective, POINT)
    (named,) = run(objective, POINT, attributes={"point": "unet"})
    (found, latest) = (history_of(each)["val_loss"] for each in (trial, named))
    differ = [one != other for one, other in zip(found, latest, strict=True)]
    assert [epoch for epoch, does in enumerate(differ, start=1) if does] == [rung(16)] == [5]


def test_what_was_trained_to_the_end_is_shown(dataset: Dataset) -> None:
    """And what was pruned is not."""
    shown: list[tuple[int, float, tuple[str, ...]]] = []

    def show(trial: optuna.Trial, model: torch.nn.Module, validation: Dataset) -> None:
        dice = SegmentationTask().evaluate(model, validation, CPU)["dice"]
        shown.append((trial.number, dice, validation.names))

    objective = replace(make_objective(dataset), after_training=show)
    (trial,) = run(objective, POINT)
    assert shown == [(0, trial.value, tuple("efgh"))]
    run(objective, POINT, pruner=optuna.pruners.ThresholdPruner(lower=1.1))
    assert len(shown) == 1


def test_what_has_too_many_weights_is_not_trained(dataset: Dataset) -> None:
    whole = run(make_objective(dataset), POINT)[0].user_attrs["weights"]
    limited = replace(make_objective(dataset), most_weights=whole - 1)
    (trial,) = run(limited, POINT)
    assert trial.state == TrialState.PRUNED and is_skipped(trial) and not counts(trial)
    assert trial.user_attrs["skipped"] == f"{whole:,} weights, over {whole - 1:,}"
    assert not trial.intermediate_values and not history_of(trial)
    (kept,) = run(replace(limited, most_weights=whole), POINT)
    assert kept.state == TrialState.COMPLETE and counts(kept)


def test_a_failure_is_recorded_and_the_study_goes_on(dataset: Dataset) -> None:
    wild = POINT | {"learning_rate": 1e30, "normalization": "none"}
    failed, next_one = run(make_objective(dataset), wild, POINT)
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["failure"].startswith("epoch 1: train_loss is ")
    assert hidden(failed, "environment") == {"commit": "abc"}
    assert failed.value is None
    assert next_one.state == TrialState.COMPLETE


def test_an_interrupted_trial_has_no_failure(dataset: Dataset) -> None:
    class InterruptedTask(SegmentationTask):
        def evaluate(self, *arguments: Any) -> dict[str, float]:
            raise KeyboardInterrupt

    objective = Objective(
        InterruptedTask(), SPACE, dataset, HALVES[:1], EPOCHS, 0, CPU, {"commit": "abc"}
    )
    study = optuna.create_study()
    study.enqueue_trial(POINT)
    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.FAIL
    assert "failure" not in trial.user_attrs and is_interrupted(trial)
    assert trial.user_attrs["seed"] == derive_seed(0, "trial", 0)


def test_an_error_of_ours_stops_the_study_and_is_no_sign_of_life(dataset: Dataset) -> None:
    """Else a network of the user's with a mistake in it would cost a worker a trial, for ever."""

    class WrongTask(SegmentationTask):
        def evaluate(self, *arguments: Any) -> dict[str, float]:
            raise TypeError("an argument is missing")

    objective = Objective(WrongTask(), SPACE, dataset, HALVES[:1], EPOCHS, 0, CPU, {})
    study = optuna.create_study()
    study.enqueue_trial(POINT)
    with pytest.raises(TypeError):
        study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.user_attrs["failure"] == "TypeError: an argument is missing"
    assert has_died(trial) and not is_interrupted(trial)


def test_a_database_that_is_away_is_no_failure_of_the_trial(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it told anything more: each word would wait for the database as long again."""
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(POINT)
    trial = study.ask()

    def lose(*_: object) -> None:
        monkeypatch.setattr(optuna.Trial, "set_user_attr", told)
        monkeypatch.setattr(study._storage, "set_trial_system_attr", told)
        raise StorageInternalError("the server is away")

    def told(*words: object) -> None:
        raise AssertionError(words)

    monkeypatch.setattr(optuna.Trial, "report", lose)
    with pytest.raises(StorageInternalError):
        make_objective(dataset)(trial)
    assert "failure" not in trial.user_attrs
