"""Real handwritten digits that come with scikit-learn, for whoever has neither data nor network."""

import numpy as np
import torch
from numpy.typing import NDArray

from dl4ia.data.dataset import Dataset

SIDE = 28  # pixels, as MNIST's
# MNIST's digits fill 20x20 pixels inside a black margin. Enlarged to that, and by bicubic rather
# than bilinear interpolation, these have its thickness of line, mean (0.16; MNIST 0.13) and
# standard deviation (0.30; 0.31), and room to be shifted or turned in. Enlarged to 28 they touch
# the border and are twice as bright.
GLYPH_SIDE = 20
BRIGHTEST = 16  # of the original
CLASSES = 10
PARTS = 5  # one of five is test


class EmbeddedDigits:
    """1,437 training and 360 test images of 28x28 pixels; a `dl4ia.data.dataset.Source`.

    The test part of E. Alpaydin and C. Kaynak's Optical Recognition of Handwritten Digits (UCI
    Machine Learning Repository, 1998). Who of its 13 writers wrote which is not recorded: the same
    hands are in both parts here, unlike in MNIST.
    """

    name = "digits"
    description = (
        "the embedded digits: 1,437 training and 360 test images of 28x28 pixels, handwritten "
        "digits of scikit-learn enlarged from 8x8"
    )
    classes = tuple(str(digit) for digit in range(CLASSES))
    training_images = 1437

    def __init__(self) -> None:
        self.preparation: dict[str, str | float] = {"side": SIDE}

    def train(self) -> Dataset:
        """The training images and labels."""
        return _read(test=False)

    def test(self) -> Dataset:
        """The test images and labels; for `dl4ia.evaluation` alone."""
        return _read(test=True)


def _read(test: bool) -> Dataset:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # slow to import

    digits = load_digits()
    labels: NDArray[np.int64] = digits.target.astype(np.int64)  # (N,)
    # Every fifth of those sorted by class: the same in every version of every library.
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[np.argsort(labels, kind="stable")[::PARTS]] = True
    chosen = np.flatnonzero(is_test == test)
    return Dataset(
        images=_enlarge(torch.from_numpy(digits.images[chosen])),
        labels=torch.from_numpy(labels[chosen]),
        names=tuple(f"digit_{index:04d}" for index in chosen),
    )


def _enlarge(images: torch.Tensor) -> torch.Tensor:
    """(N, 8, 8) float64 in [0, 16] to (N, 1, 28, 28) float32 in [0, 1]."""
    glyphs = torch.nn.functional.interpolate(
        images.unsqueeze(1) / BRIGHTEST, size=(GLYPH_SIDE, GLYPH_SIDE), mode="bicubic"
    )
    margin = (SIDE - GLYPH_SIDE) // 2
    padded = torch.nn.functional.pad(glyphs.clamp(0, 1), (margin,) * 4)
    # In 256 steps as any image: a processor's last bit must not make other data of it.
    return padded.mul(255).round().div(255).float()
