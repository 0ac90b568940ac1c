"""The report's digit networks have its weights, and every variant gives logits of all classes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dl4ia.models.classification import ARCHITECTURES, ClassificationModel, ModelSettings
from dl4ia.models.layers import ACTIVATIONS, weight_count

DENSE = ModelSettings("fully_connected", initialization="report", standardize=False)
CNN = replace(DENSE, architecture="convolutional")
MODERN = ModelSettings("all_convolutional", base_width=14, normalization="batch")


def make(
    settings: ModelSettings, shape: tuple[int, ...] = (1, 28, 28), classes: int = 10, seed: int = 0
) -> ClassificationModel:
    torch.manual_seed(seed)
    channels = shape[0]
    return ClassificationModel(settings, shape, classes, [0.13] * channels, [0.31] * channels)


def make_images(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model.eval()(images)
    return logits


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        (DENSE, 109_386),
        (CNN, 21_688),
        (replace(CNN, normalization="batch"), 21_688 + 2 * (8 + 16 + 32)),
        (replace(CNN, head_width=50, dropout=0.25), 84_848),
        (replace(CNN, head_width=200, dropout=0.25), 321_698),
        (replace(CNN, pool="before_activation"), 21_688),
        (replace(CNN, pool="before_convolution"), 21_688),
        (MODERN, 20_156),
    ],
)
def test_weights(settings: ModelSettings, weights: int) -> None:
    assert weight_count(make(settings)) == weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 30), (1, 8, 8)])
def test_logits_and_gradients(
    architecture: str, normalization: str, shape: tuple[int, int, int]
) -> None:
    settings = ModelSettings(architecture, normalization=normalization)
    model = make(settings, shape, classes=4)
    logits = model(make_images(5, *shape))
    assert logits.shape == (5, 4)
    logits.sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_pooling_before_or_after_a_monotone_activation_is_the_same(
    activation: str, normalization: str
) -> None:
    """What Exercise 1.3 asks to swap cannot change a result; it saves activations."""
    after = make(replace(CNN, activation=activation, normalization=normalization))
    before = make(
        replace(CNN, activation=activation, normalization=normalization, pool="before_activation")
    )
    images = make_images(6, 1, 28, 28)
    torch.testing.assert_close(
        logits_of(before, images), logits_of(after, images), rtol=1e-6, atol=1e-6
    )


def test_pooling_before_the_convolution_is_another_network() -> None:
    images = make_images(6, 1, 28, 28)
    other = make(replace(CNN, pool="before_convolution"))
    assert not torch.allclose(logits_of(other, images), logits_of(make(CNN), images), atol=1e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_network_has_the_activation_asked_for(architecture: str, activation: str) -> None:
    model = make(ModelSettings(architecture, activation=activation))
    kinds = {type(module) for module in model.modules()} & set(ACTIVATIONS.values())
    assert kinds == {ACTIVATIONS[activation]}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_acts_in_training_only(architecture: str) -> None:
    model = make(ModelSettings(architecture, dropout=0.5))
    images = make_images(3, 1, 28, 28)
    assert torch.equal(logits_of(model, images), logits_of(model, images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_the_reports_initializations() -> None:
    for settings, deviation in ((DENSE, 0.01), (CNN, 0.1)):
        layers = [
            layer for layer in make(settings).modules() if isinstance(layer, nn.Linear | nn.Conv2d)
        ]
        weights = torch.cat([layer.weight.flatten() for layer in layers])
        assert weights.std().item() == pytest.approx(deviation, rel=0.03)
        for layer in layers:
            assert layer.bias is not None
            expected = 1 / len(layer.bias) if settings is DENSE else 0.1
            assert torch.equal(layer.bias, torch.full_like(layer.bias, expected))


def test_images_are_standardized_where_asked_for() -> None:
    plain, standardized = (make(replace(CNN, standardize=value)) for value in (False, True))
    images = make_images(4, 1, 28, 28)
    expected = logits_of(plain, (images - 0.13) / 0.31)
    torch.testing.assert_close(logits_of(standardized, images), expected)
    assert "standardization.mean" in standardized.state_dict()
    assert not any("standardization" in name for name in plain.state_dict())
