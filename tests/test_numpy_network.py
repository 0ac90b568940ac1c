"""Hand-written back-propagation against finite differences and against PyTorch."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # mlflow needs it too
from torch import nn

from dl4ia.models.numpy_network import Array, Labels, NumpyNetwork, softmax_cross_entropy

REPORT = (784, 128, 64, 10)
SMALL = (7, 6, 5, 4, 3)


def draw(widths: tuple[int, ...], count: int, seed: int = 0) -> tuple[Array, Labels]:
    """`count` random images in float64 and labels of every class."""
    generator = np.random.default_rng(seed)
    return generator.random((count, widths[0])), np.arange(count) % widths[-1]


def make_network(widths: tuple[int, ...], deviation: float = 0.3) -> NumpyNetwork:
    """In float64, with weights and biases large enough that ReLU closes on some and not on all."""
    network = NumpyNetwork(widths, np.random.default_rng(0), np.float64)
    generator = np.random.default_rng(1)
    for layer in network.layers:
        for values in layer:
            values[...] = deviation * generator.standard_normal(values.shape)
    return network


def torch_twin(network: NumpyNetwork) -> nn.Sequential:
    """PyTorch's network of the same weights."""
    modules: list[nn.Module] = []
    for weight, bias in network.layers:
        inputs, outputs = weight.shape
        linear = nn.Linear(inputs, outputs, dtype=torch.float64)
        linear.weight.data = torch.tensor(weight.T)
        linear.bias.data = torch.tensor(bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def torch_loss(model: nn.Module, images: Array, labels: Labels) -> torch.Tensor:
    return nn.functional.cross_entropy(model(torch.tensor(images)), torch.tensor(labels))


def linears(model: nn.Sequential) -> list[nn.Linear]:
    return [module for module in model if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("number", range(len(SMALL) - 1))
def test_gradients_are_those_of_central_differences(number: int) -> None:
    network = make_network(SMALL, deviation=0.7)
    images, labels = draw(SMALL, 9)
    gradient = network.gradients(images, labels)[1][number]
    for values, expected in zip(network.layers[number], gradient, strict=True):
        differences = np.empty_like(values)
        for index in np.ndindex(values.shape):
            known, losses = values[index], []
            for change in (1e-5, -1e-5):
                values[index] = known + change
                losses.append(network.gradients(images, labels)[0])
            values[index] = known
            differences[index] = (losses[0] - losses[1]) / 2e-5
        size = np.linalg.norm(expected)
        assert size > 1e-3
        assert np.linalg.norm(differences - expected) / size < 1e-6


@pytest.mark.parametrize("widths", [(5, 3), SMALL, REPORT])
@pytest.mark.parametrize("count", [1, 30])
def test_gradients_are_those_of_pytorch(widths: tuple[int, ...], count: int) -> None:
    network = make_network(widths)
    images, labels = draw(widths, count)
    loss, gradients = network.gradients(images, labels)
    model = torch_twin(network)
    expected = torch_loss(model, images, labels)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-10)
    assert len(gradients) == len(widths) - 1
    for (weight, bias), linear in zip(gradients, linears(model), strict=True):
        assert linear.weight.grad is not None and linear.bias.grad is not None
        np.testing.assert_allclose(weight, linear.weight.grad.numpy().T, rtol=0, atol=1e-10)
        np.testing.assert_allclose(bias, linear.bias.grad.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("widths", [SMALL, REPORT])
def test_an_epoch_is_that_of_pytorch(widths: tuple[int, ...]) -> None:
    """Two epochs over 17 images in batches of 4, 4, 3, 3 and 3, in the same order."""
    network = make_network(widths, deviation=0.1)
    model = torch_twin(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = draw(widths, 17)
    generator, shuffler = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(2):
        loss = network.train_epoch(images, labels, 4, 0.1, generator)
        total = 0.0
        order = shuffler.permutation(17)
        for rows in (order[:4], order[4:8], order[8:11], order[11:14], order[14:]):
            optimizer.zero_grad()
            batch_loss = torch_loss(model, images[rows], labels[rows])
            batch_loss.backward()
            optimizer.step()
            total += batch_loss.item() * len(rows)
        assert loss == pytest.approx(total / 17, abs=1e-10)
    for (weight, bias), linear in zip(network.layers, linears(model), strict=True):
        np.testing.assert_allclose(weight, linear.weight.detach().numpy().T, rtol=0, atol=1e-10)
        np.testing.assert_allclose(bias, linear.bias.detach().numpy(), rtol=0, atol=1e-10)


def test_a_step_gives_the_loss_before_it() -> None:
    network = make_network(SMALL)
    images, labels = draw(SMALL, 9)
    before, _ = network.gradients(images, labels)
    assert network.step(images, labels, 0.1) == before
    assert network.gradients(images, labels)[0] < before


def test_the_reports_network_has_109386_weights() -> None:
    assert NumpyNetwork(REPORT, np.random.default_rng(0)).weight_count() == 109_386


def test_weights_begin_as_the_reports() -> None:
    network = NumpyNetwork(REPORT, np.random.default_rng(0))
    for (weight, bias), (inputs, outputs) in zip(network.layers, pairwise(REPORT), strict=True):
        assert weight.shape == (inputs, outputs)
        assert weight.dtype == bias.dtype == np.float32
        assert weight.std() == pytest.approx(0.01, rel=0.1)
        assert abs(weight.mean()) < 1e-3
        np.testing.assert_array_equal(bias, np.full(outputs, 1 / outputs, np.float32))


def test_a_seed_repeats_and_a_dtype_only_rounds() -> None:
    one, same, exact = (
        NumpyNetwork(SMALL, np.random.default_rng(3), dtype)
        for dtype in (np.float32, np.float32, np.float64)
    )
    for first, second, third in zip(one.layers, same.layers, exact.layers, strict=True):
        np.testing.assert_array_equal(first.weight, second.weight)
        np.testing.assert_array_equal(first.weight, third.weight.astype(np.float32))


def test_everything_stays_in_the_networks_dtype() -> None:
    network = NumpyNetwork(SMALL, np.random.default_rng(0))
    images, labels = draw(SMALL, 9)  # float64
    network.train_epoch(images, labels, 4, 0.1, np.random.default_rng(0))
    assert network.forward(images).dtype == np.float32
    for layer, gradient in zip(network.layers, network.gradients(images, labels)[1], strict=True):
        assert {values.dtype for values in (*layer, *gradient)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_10000_neither_overflow_nor_vanish(dtype: Any) -> None:
    logits = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype)
    labels = np.array([0, 1, 2])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        loss, gradient = softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx((0 + 2e4 + math.log(3)) / 3)
    np.testing.assert_allclose(3 * gradient[:2], [[0, 0, 0], [1, -1, 0]], atol=1e-6)
    np.testing.assert_allclose(3 * gradient[2], [1 / 3, 1 / 3, -2 / 3], rtol=1e-6)


def test_it_learns_the_digits() -> None:
    """1,297 images of 8x8 pixels for training and 500 others for the accuracy."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    network = NumpyNetwork((64, 32, 16, 10), np.random.default_rng(0))
    generator = np.random.default_rng(1)
    for _ in range(60):
        loss = network.train_epoch(images[500:], labels[500:], 10, 0.1, generator)
    assert loss < 0.1
    assert network.accuracy(images[:500], labels[:500]) > 0.9


def test_accuracy_is_the_share_of_right_predictions() -> None:
    network = make_network(SMALL)
    images, _ = draw(SMALL, 8)
    predicted = network.predict(images)
    np.testing.assert_array_equal(predicted, network.forward(images).argmax(1))
    labels = predicted.copy()
    labels[:2] = (labels[:2] + 1) % 3
    assert network.accuracy(images, labels) == 0.75


def test_training_leaves_its_data_alone() -> None:
    images, labels = draw(SMALL, 9)
    known_images, known_labels = images.copy(), labels.copy()
    make_network(SMALL).train_epoch(images, labels, 4, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(images, known_images)
    np.testing.assert_array_equal(labels, known_labels)


IMAGES, LABELS = draw(SMALL, 9)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:, 1:], LABELS, r"images are of shape \(9, 6\), expected \(B, 7\)"),
        (IMAGES[0], LABELS[:1], r"images are of shape \(7,\), expected \(B, 7\)"),
        (IMAGES[:0], LABELS[:0], r"shape \(0, 7\), .* with B at least 1"),
        (IMAGES.astype(np.uint8), LABELS, "images are uint8, expected floating point"),
        (IMAGES, LABELS[1:], r"labels are of shape \(8,\), expected \(9,\)"),
        (IMAGES, LABELS[:, None], r"labels are of shape \(9, 1\), expected \(9,\)"),
        (IMAGES, LABELS.astype(float), "labels are float64, expected integers"),
        (IMAGES, LABELS + 1, "labels run from 1 to 3, expected 0 to 2"),
        (IMAGES, LABELS - 1, "labels run from -1 to 1, expected 0 to 2"),
    ],
)
def test_wrong_images_and_labels_are_named(images: Array, labels: Labels, message: str) -> None:
    network = make_network(SMALL)
    with pytest.raises(ValueError, match=message):
        network.gradients(images, labels)
    with pytest.raises(ValueError, match=message):
        network.accuracy(images, labels)
    with pytest.raises(ValueError, match=message):
        network.train_epoch(images, labels, 4, 0.1, np.random.default_rng(0))


def test_wrong_settings_are_named() -> None:
    network = make_network(SMALL)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        network.train_epoch(IMAGES, LABELS, 0, 0.1, generator)
    with pytest.raises(ValueError, match="learning_rate is 0, expected above 0"):
        network.step(IMAGES, LABELS, 0)
    with pytest.raises(ValueError, match="learning_rate is nan, expected above 0"):
        network.train_epoch(IMAGES, LABELS, 4, math.nan, generator)
    for widths in [(7,), (7, 0, 3)]:
        with pytest.raises(ValueError, match=r"widths are \(7,.*\), expected at least two"):
            NumpyNetwork(widths, generator)
