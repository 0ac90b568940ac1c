"""The classification task on the embedded digits."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.data.splits import make_splits
from dl4ia.models.classification import ModelSettings
from dl4ia.search.objective import train_point
from dl4ia.tasks.classification import ClassificationTask
from search_spaces.classification import REFERENCE_MODELS, REPORT_MODELS

CPU = torch.device("cpu")
DIGITS = tuple("0123456789")
TASK = ClassificationTask(DIGITS)


@pytest.fixture(scope="module")
def train() -> Dataset:
    return EmbeddedDigits().train()


class Fixed(nn.Module):
    """Says of image number i, whose only pixel is i, what `logits` has in row i."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images.flatten().long()]


def test_accuracy_and_loss_are_means_over_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1507
    # A second batch is smaller.
    monkeypatch.setattr("dl4ia.tasks.classification.EVALUATION_BATCH", 1000)
    images = torch.arange(count).view(count, 1, 1, 1).float()
    labels = torch.arange(count) % 2
    dataset = Dataset(images, labels, ("",) * count)
    logits = torch.zeros(count, 2)
    logits[:, 0] = 1.0  # always class 0
    scores = ClassificationTask(("even", "odd")).evaluate(Fixed(logits), dataset, CPU)
    zeros = (labels == 0).sum().item()
    assert scores["accuracy"] == zeros / count
    cost = math.log(1 + math.e)
    assert scores["loss"] == pytest.approx(cost - zeros / count, rel=1e-5)


def test_the_networks_are_the_points(train: Dataset) -> None:
    settings = {field.name for field in fields(ModelSettings)}
    for name, point in (REPORT_MODELS | REFERENCE_MODELS).items():
        assert settings & point.keys()
        logits = TASK.build(point, train)(train.images[:3])
        assert logits.shape == (3, 10), name


def test_validation_parts_have_their_share_of_each_class(train: Dataset) -> None:
    counts = np.bincount(train.labels.numpy())
    for split in make_splits(TASK.strata(train), 1, seed=0):
        validated = np.bincount(train.labels.numpy()[list(split.validation)])
        assert np.abs(validated - counts / 5).max() <= 1


@pytest.mark.parametrize("name", ["exercise_1_1", "exercise_1_4", "modern_cnn"])
def test_points_learn_and_repeat(train: Dataset, name: str) -> None:
    point = (REPORT_MODELS | REFERENCE_MODELS)[name]
    (split,) = make_splits(TASK.strata(train), 1, seed=0)
    parts = train.subset(split.train), train.subset(split.validation)
    runs = []
    for _ in range(2):
        _, results = train_point(TASK, point, *parts, 3, 7, CPU)
        runs.append([(result["train_loss"], result["val_accuracy"]) for result in results])
    assert runs[0] == runs[1]
    assert runs[0][-1][0] < runs[0][0][0]
    if name == "modern_cnn":
        assert runs[0][-1][1] > 0.5  # chance is 0.1


def test_the_training_accuracy_is_the_share_of_right_images(train: Dataset) -> None:
    """At a learning rate of nearly 0, without augmentation, it is the fresh network's."""
    point = REPORT_MODELS["exercise_1_4"] | {"learning_rate": 1e-12}
    torch.manual_seed(3)
    expected = TASK.evaluate(TASK.build(point, train), train, CPU)["accuracy"]
    _, results = train_point(TASK, point, train, None, 1, 3, CPU)
    (result,) = results
    assert result["train_accuracy"] == pytest.approx(expected, abs=0.005)


def test_large_images_are_trained_in_parts_of_two_at_least(train: Dataset) -> None:
    """Batch normalisation of a part with one image raises."""
    images = torch.rand(5, 1, 520, 520)
    large = Dataset(images, torch.arange(5) % 2, ("",) * 5)
    point = REPORT_MODELS["exercise_1_1"] | {"normalization": "batch", "hidden_width": 64}
    _, results = train_point(TASK, point | {"batch_size": 50}, large, None, 1, 0, CPU)
    assert math.isfinite(next(results)["train_loss"])
