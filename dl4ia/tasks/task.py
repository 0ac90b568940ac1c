"""What a task (glands, digits) has to say for itself, so that all else serves every task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.statistics import Scores


class Task(Protocol):
    """How points become networks and how these are scored."""

    name: str  # the MLflow experiment
    metric: str  # a study maximises the validation part's `val_<metric>`
    counts_images: bool  # whether that is the share of images that are right
    classes: tuple[str, ...]  # names of the labels 0, 1, …
    cores_a_worker: int  # that a training makes some use of, on a cluster that has them idle
    settings: type[Any]  # a dataclass: of a network; what does not apply has its defaults
    trains_in_low_precision: bool  # where that is faster; only if the score does not suffer

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

    def probabilities(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N, classes, …) float32 on the CPU."""
        ...

    def averaged_probabilities(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> Tensor | None:
        """The mean over the views in which an image means the same; None where there is but one."""
        ...

    def image_scores(self, probabilities: Tensor, dataset: Dataset) -> dict[str, Scores]:
        """Every metric, image by image, `metric` among them; some take too long for every epoch."""
        ...

    def whole_scores(self, probabilities: Tensor, dataset: Dataset) -> dict[str, float]:
        """The metrics that are no ratio of sums over images."""
        ...

    def draw_trial(
        self, model: nn.Module, validation: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """Write quick pictures, the same images for every trial of a study; their paths."""
        ...

    def draw(
        self, model: nn.Module, test: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """Write pictures of what the model makes of test images into `folder`; their paths."""
        ...
