"""What a task (glands, digits) has to say for itself, so that all else serves every task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset


class Task(Protocol):
    """How points become networks and how these are scored."""

    name: str  # the MLflow experiment
    metric: str  # a study maximises the validation part's `val_<metric>`
    classes: tuple[str, ...]  # names of the labels 0, 1, …

    def strata(self, dataset: Dataset) -> np.ndarray:
        """(N,) numbers that every validation part should have its mix of."""
        ...

    def build(self, point: Mapping[str, Any], train: Dataset) -> nn.Module:
        """A fresh network from the global random stream, normalised by `train`'s statistics."""
        ...

    def evaluate(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> dict[str, float]:
        """Metrics of all images, `metric` among them."""
        ...

    def predict(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """The likeliest class of every label: (N, H, W) uint8 masks or (N,) classes."""
        ...

    def further_metrics(self, predictions: Tensor, dataset: Dataset) -> dict[str, float]:
        """What takes too long for every epoch; means over all images."""
        ...

    def draw(
        self, model: nn.Module, test: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """Write pictures of what the model makes of test images into `folder`; their paths."""
        ...
