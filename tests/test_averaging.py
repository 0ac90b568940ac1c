"""The mean of the weights is what its formula says, is what is scored, and is what is kept."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_fit import TRAINING, VALIDATION, make_model, train, weights_of, without_seconds
from torch import nn

from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.training.averaging import WeightAverage
from dl4ia.training.checkpoint import Checkpoint
from dl4ia.training.fit import FORESIGHT


def stepped(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("horizon", "means"),
    [
        (4, [1.0, 1.5, 2.0, 2.5, 3.125]),  # the mean of all, and then a quarter of the latest
        (1, [1.0, 2.0, 3.0, 4.0, 5.0]),
        (100, [1.0, 1.5, 2.0, 2.5, 3.0]),
    ],
)
def test_the_mean_goes_back_over_its_horizon(horizon: int, means: list[float]) -> None:
    layer = nn.Linear(1, 1)
    average = WeightAverage(layer, horizon)
    for step, expected in enumerate(means, start=1):
        stepped(layer, float(step))
        average.update()
        assert average.model.weight.item() == pytest.approx(expected)  # type: ignore[operator, union-attr]
    assert layer.weight.item() == 5.0


def test_all_weights_at_once_are_averaged_as_each_alone() -> None:
    """To the last bit, while a checkpoint is loaded into both between the steps."""
    model = make_model()
    average, means = WeightAverage(model, 3), [each.clone() for each in model.parameters()]
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        with torch.no_grad():
            for weights, mean in zip(model.parameters(), means, strict=True):
                weights += torch.randn(weights.shape, generator=generator)
                mean.lerp_(weights, 1 / min(step, 3))
        average.update()
        average.set_state({name: deepcopy(each) for name, each in average.state().items()})
        model.load_state_dict(deepcopy(model.state_dict()))
    for found, mean in zip(average.model.parameters(), means, strict=True):
        assert torch.equal(found, mean)


def test_the_mean_is_scored_and_kept() -> None:
    """Of the same steps as without: only what is made of them differs."""
    plain, averaged = make_model(), make_model()
    without = train(plain)
    results = train(averaged, settings=replace(TRAINING, averaging=0.5))
    assert [each["train_loss"] for each in results] == [each["train_loss"] for each in without]
    assert not torch.equal(weights_of(averaged), weights_of(plain))
    again = SegmentationTask().evaluate(averaged, VALIDATION, torch.device("cpu"))
    assert again["dice"] == results[-1]["val_dice"] != without[-1]["val_dice"]


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_one_epoch_foresees_by_a_mean_of_its_own_and_all_else_stays(averaging: float) -> None:
    """48 steps, three of which make the sixteenth."""
    settings = replace(TRAINING, batch_size=2, averaging=averaging)
    plain, foreseeing = make_model(), make_model()
    without = without_seconds(train(plain, settings=settings, epochs=12))
    mean = train(make_model(), settings=replace(settings, averaging=FORESIGHT), epochs=12)
    results = without_seconds(train(foreseeing, settings=settings, epochs=12, foresee_in=4))
    assert torch.equal(weights_of(foreseeing), weights_of(plain))
    assert [one == other for one, other in zip(results, without, strict=True)].count(False) == 1
    assert results[3] == without_seconds(mean)[3] != without[3]


def test_the_last_epoch_cannot_foresee_nor_a_training_that_is_kept(tmp_path: Path) -> None:
    for changes in ({"foresee_in": 3}, {"foresee_in": 1, "checkpoint": Checkpoint(tmp_path, "")}):
        with pytest.raises(ValueError, match="foresee_in"):
            train(make_model(), **changes)


def test_the_mean_over_all_steps_is_that_of_the_weights_between_them() -> None:
    """Three epochs of one step each, of which the single ones are trainings of their own."""
    settings = replace(TRAINING, batch_size="full")
    ends = []
    for epochs in (1, 2, 3):
        model = make_model()
        train(model, settings=settings, epochs=epochs)
        ends.append(weights_of(model))
    model = make_model()
    train(model, settings=replace(settings, averaging=1.0))
    torch.testing.assert_close(weights_of(model), torch.stack(ends).mean(0))


def test_statistics_of_normalisation_are_averaged_and_counts_are_not() -> None:
    layer = nn.BatchNorm2d(2)
    average = WeightAverage(layer, 2)
    images = torch.rand(4, 2, 3, 3)
    seen = []
    for scale in (1.0, 3.0):
        layer(scale * images)
        average.update()
        seen.append(layer.running_mean.clone())  # type: ignore[union-attr]
    mean = average.model
    assert isinstance(mean, nn.BatchNorm2d) and mean.running_mean is not None
    torch.testing.assert_close(mean.running_mean, torch.stack(seen).mean(0))
    assert mean.num_batches_tracked == 2


def test_a_short_training_averages_over_one_step_at_least() -> None:
    tiny, plain = make_model(), make_model()
    train(tiny, settings=replace(TRAINING, averaging=0.02, batch_size="full"), epochs=1)
    train(plain, settings=replace(TRAINING, batch_size="full"), epochs=1)
    torch.testing.assert_close(weights_of(tiny), weights_of(plain))
