"""The ways of benchmarks/at_once.py train as the plain one does."""

import copy
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dl4ia.models.classification import ClassificationModel, ModelSettings
from dl4ia.search_space import Point, settings_of
from dl4ia.training.augmentation import AugmentationSettings, Augmenter
from dl4ia.training.losses import make_loss
from dl4ia.training.optimization import make_optimizer
from dl4ia.training.steps import Steps
from search_spaces.classification import REFERENCE_MODELS, REPORT_MODELS

IMAGES = torch.rand(22, 1, 28, 28, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(22) % 10
RATES = [2.0**-7, 2.0**-8, 2.0**-10, 2.0**-7]  # of steps of 6, 6, 5 and 5 images
AUGMENTED = AugmentationSettings(affine=0.5, elastic=0.5)
# Without dropout, which would draw otherwise.
NORMALIZED = REFERENCE_MODELS["modern_cnn"] | {"dropout": 0.0}
PLAIN = REPORT_MODELS["exercise_1_4"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/at_once.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("at_once")


def make_model(point: Point, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    settings = settings_of(ModelSettings, point)
    return ClassificationModel(settings, (1, 28, 28), 10, [0.5], [0.3]).train()


def train(way: type[Steps], model: nn.Module, optimizer: str, loss: Any = None) -> list[float]:
    """Two epochs; the summed loss of each."""
    augmenter = Augmenter(AUGMENTED, IMAGES, 3)
    steps = way(
        model,
        make_optimizer(optimizer, model.parameters(), 0.01, 0.0001),
        loss or make_loss("cross_entropy", 0.1),
        IMAGES,
        LABELS,
        augmenter,
    )
    sums = []
    for epoch in range(2):
        augmenter.draw()
        order = torch.randperm(22, generator=torch.Generator().manual_seed(epoch))
        sums.append(steps.take(order, RATES)[0].item())
    return sums


def weights_of(models: Sequence[nn.Module]) -> list[dict[str, torch.Tensor]]:
    return [model.state_dict() for model in models]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_steps_of_a_graph_are_the_plain_ones(at_once: Any, optimizer: str) -> None:
    """To the bit, but for what a GPU captures."""
    plain, graph = make_model(NORMALIZED), make_model(NORMALIZED)
    assert train(Steps, plain, optimizer) == train(at_once.GraphSteps, graph, optimizer)
    torch.testing.assert_close(*weights_of([graph, plain]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("optimizer", "point"),
    # Not Adam with batch normalisation, before which a bias learns from rounding errors alone.
    [("adam", PLAIN), ("momentum", NORMALIZED)],
    ids=["adam", "momentum"],
)
def test_fused_trainings_are_each_their_own(at_once: Any, optimizer: str, point: Point) -> None:
    alone = [make_model(point, seed) for seed in range(3)]
    fused = at_once.Fused(copy.deepcopy(alone))
    sums = [train(Steps, model, optimizer) for model in alone]
    loss = at_once.fused_loss(make_loss("cross_entropy", 0.1), 3)
    together = train(at_once.FusedSteps, fused, optimizer, loss)
    assert together == pytest.approx([sum(each) for each in zip(*sums, strict=True)], rel=1e-4)
    names, buffers = fused._names
    found = dict(zip(names, fused.weights, strict=True))
    found |= dict(zip(buffers, fused.buffers(), strict=True))
    for number, known in enumerate(weights_of(alone)):
        mine = {name: found[name][number].detach() for name in known}
        torch.testing.assert_close(mine, known, rtol=1e-3, atol=1e-3)


def test_processes_are_timed_while_all_train(at_once: Any) -> None:
    alone_at_the_end = [[0, 1, 2, 3], [1, 3, 5, 7]]  # from 1 to 3: two epochs and one
    assert at_once.common_speed(alone_at_the_end) == pytest.approx(3 / 2)
    assert at_once.common_speed([[0, 4], [1, 3]]) == pytest.approx((1 / 2 + 1) / 2)


def test_processes_train_until_the_last_is_done(
    at_once: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [at_once.__file__, "--device", "cpu", "--seconds", "0.1", "--shapes", "fully connected"]
    monkeypatch.setattr(at_once.sys, "argv", words)
    assert at_once.in_processes("fully connected", "steps", 2) > 0
