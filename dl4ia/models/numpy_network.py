"""The report's "HomeCooked NN" (exercise 1.1): a fully connected network in NumPy alone.

Nothing differentiates it: back-propagation is written by hand, so that it can be read, checked
against PyTorch and timed against it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


class Layer(NamedTuple):
    """One layer, `features @ weight + bias`; or the gradient of the loss in each of its weights."""

    weight: Array  # (inputs, outputs): the transpose of torch.nn.Linear's
    bias: Array  # (outputs,)


def softmax_cross_entropy(logits: Array, labels: Labels) -> tuple[float, Array]:
    """The mean over the batch of -log softmax(logits)[label], and its gradient in the logits.

    logits (B, classes) and labels (B,) -> loss, gradient (B, classes). The gradient is
    (softmax - one-hot) / B (Bishop 2006, equation 4.109). Each image's largest logit is subtracted
    first (Blanchard et al. 2021, "Accurately computing the log-sum-exp and softmax functions"): no
    exponential overflows, and no logarithm is of 0.
    """
    images = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)  # (B, 1), each at least 1
    losses = np.log(sums[:, 0]) - shifted[images, labels]
    gradient = exponentials / sums
    gradient[images, labels] -= 1
    gradient /= len(labels)
    return float(losses.mean()), gradient


class NumpyNetwork:
    """Fully connected layers with ReLU between them; the last one's outputs are the logits.

    `widths` are the units of the input and of each layer: (784, 128, 64, 10) in the report.
    `layers` are the weights, for anyone to read or set.

    Weights begin as the report's: 0.01 N(0, 1), drawn from `generator` layer by layer, and biases
    of 1 / width, where width is the layer's own number of units. They are drawn in float64, then
    rounded: networks of two dtypes begin alike.

    Raises ValueError where `widths` do not make a layer.
    """

    def __init__(
        self,
        widths: Sequence[int],
        generator: np.random.Generator,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths are {tuple(widths)}, expected at least two, each at least 1")
        self.dtype = np.dtype(dtype)
        self.layers = [
            Layer(
                (0.01 * generator.standard_normal((inputs, outputs))).astype(dtype),
                np.full(outputs, 1 / outputs, dtype),
            )
            for inputs, outputs in pairwise(widths)
        ]

    def weight_count(self) -> int:
        """The number of trainable weights, biases included."""
        return sum(values.size for layer in self.layers for values in layer)

    def forward(self, images: Array) -> Array:
        """Images (B, inputs) -> logits (B, classes). Raises ValueError as `gradients` does."""
        return self._activations(self._checked_images(images))[-1]

    def predict(self, images: Array) -> Labels:
        """Images (B, inputs) -> the class of the largest logit (B,)."""
        return self.forward(images).argmax(axis=1)

    def accuracy(self, images: Array, labels: Labels) -> float:
        """The share of the images (B, inputs) whose predicted class is their label (B,)."""
        images, labels = self._checked(images, labels)
        return float((self.predict(images) == labels).mean())

    def gradients(self, images: Array, labels: Labels) -> tuple[float, list[Layer]]:
        """The mean cross-entropy of a batch, and its gradient in the weights of each layer.

        images: (B, inputs) of floating point, computed with in the network's own dtype.
        labels: (B,) integers from 0 to classes - 1.

        Raises ValueError, naming what was found and expected, where one of them is not so.
        """
        return self._backpropagate(*self._checked(images, labels))

    def step(self, images: Array, labels: Labels, learning_rate: float) -> float:
        """One step of plain gradient descent in place; the batch's loss before it.

        Raises ValueError as `gradients` does, and where the learning rate is not above 0.
        """
        _check_learning_rate(learning_rate)
        return self._descend(*self._checked(images, labels), learning_rate)

    def train_epoch(
        self,
        images: Array,
        labels: Labels,
        batch_size: int,
        learning_rate: float,
        generator: np.random.Generator,
    ) -> float:
        """A step on each mini-batch of the images (N, inputs), in an order drawn anew.

        The mean of the images' losses, each before its own step. Batches are as equal as they can
        be, as `dl4ia.training.fit` has them: with 17 images, 4 at most at once are 4, 4, 3, 3, 3.

        Raises ValueError as `step` does, and where the batch size is below 1.
        """
        _check_learning_rate(learning_rate)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        images, labels = self._checked(images, labels)
        count = len(images)
        total = 0.0
        for rows in np.array_split(generator.permutation(count), math.ceil(count / batch_size)):
            total += len(rows) * self._descend(images[rows], labels[rows], learning_rate)
        return total / count

    def _descend(self, images: Array, labels: Labels, learning_rate: float) -> float:
        loss, gradients = self._backpropagate(images, labels)
        for layer, gradient in zip(self.layers, gradients, strict=True):
            for values, slopes in zip(layer, gradient, strict=True):
                slopes *= learning_rate  # in place: no further array of the weights' size
                values -= slopes
        return loss

    def _backpropagate(self, images: Array, labels: Labels) -> tuple[float, list[Layer]]:
        """From the last layer to the first (Goodfellow et al. 2016, algorithm 6.4)."""
        *inputs, logits = self._activations(images)
        loss, slopes = softmax_cross_entropy(logits, labels)  # (B, outputs) of the layer at hand
        gradients = []
        for layer, features in zip(reversed(self.layers), reversed(inputs), strict=True):
            gradients.append(Layer(features.T @ slopes, slopes.sum(axis=0)))
            if features is not images:  # the images themselves need no gradient
                slopes = slopes @ layer.weight.T
                slopes *= features > 0  # where ReLU gave 0 it passes nothing back
        return loss, gradients[::-1]

    def _activations(self, images: Array) -> list[Array]:
        """The inputs of each layer (B, inputs), the images first; then the logits."""
        activations = [images]
        for number, layer in enumerate(self.layers, start=1):
            features = activations[-1] @ layer.weight
            features += layer.bias
            if number < len(self.layers):
                np.maximum(features, 0, out=features)
            activations.append(features)
        return activations

    def _checked(self, images: Array, labels: Labels) -> tuple[Array, Labels]:
        images, labels = self._checked_images(images), np.asarray(labels)
        if labels.shape != (len(images),):
            raise ValueError(f"labels are of shape {labels.shape}, expected ({len(images)},)")
        if labels.dtype.kind not in "iu":
            raise ValueError(f"labels are {labels.dtype}, expected integers")
        classes = len(self.layers[-1].bias)
        lowest, highest = labels.min(), labels.max()
        if lowest < 0 or highest >= classes:
            raise ValueError(f"labels run from {lowest} to {highest}, expected 0 to {classes - 1}")
        return images, labels

    def _checked_images(self, images: Array) -> Array:
        images = np.asarray(images)
        inputs = len(self.layers[0].weight)
        if images.ndim != 2 or images.shape[1] != inputs or len(images) == 0:
            raise ValueError(
                f"images are of shape {images.shape}, expected (B, {inputs}) with B at least 1"
            )
        if images.dtype.kind != "f":  # bytes from 0 to 255 would learn, and badly
            raise ValueError(f"images are {images.dtype}, expected floating point")
        return images.astype(self.dtype, copy=False)


def _check_learning_rate(learning_rate: float) -> None:
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}, expected above 0")
