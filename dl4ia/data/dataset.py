"""What every data set is once it is read: tensors in memory, and the source they come from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

CONSTANT = 1e-3  # standard deviation below which a channel says nothing; an 8-bit step is 0.004


@dataclass(frozen=True)
class Dataset:
    """Images and labels in memory.

    images: (N, C, H, W) float32 in [0, 1].
    labels: int64 classes, (N, H, W) of pixels or (N,) of whole images.
    names: N file names, for pictures and messages.
    groups: N names of whom each image is of (its patient); None where that is not known.
    instances: (N, H, W) numbers of objects, 0 for none, where labels alone would merge touching
        ones; None: objects are what hangs together.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    instances: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """The images at `indices`, in that order."""
        chosen = torch.as_tensor(indices)
        groups = self.groups
        return Dataset(
            images=self.images[chosen],
            labels=self.labels[chosen],
            names=tuple(self.names[index] for index in indices),
            groups=None if groups is None else tuple(groups[index] for index in indices),
            instances=None if self.instances is None else self.instances[chosen],
        )

    def to(self, device: torch.device) -> "Dataset":
        """The same, what networks are shown on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    @cached_property  # each of a split's trainings asks
    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over all images and pixels.

        1 for the deviation of a constant channel: augmentation may change it, by little then.
        """
        mean = self.images.mean((0, 2, 3))
        deviation = self.images.std((0, 2, 3))
        return mean.tolist(), deviation.where(deviation >= CONSTANT, 1.0).tolist()

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of what a network is shown: pixels, labels and their order."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()[:16]


class Source(Protocol):
    """Where a study's data come from. Only `dl4ia.evaluation.test_lock` calls `test`."""

    name: str  # ends the study's name: results of two data sets never mix

    @property
    def description(self) -> str:
        """One line for the user."""

    @property
    def preparation(self) -> dict[str, str | float]:
        """How the images are read; part of the study's identity."""

    def train(self) -> Dataset: ...
    def test(self) -> Dataset: ...
