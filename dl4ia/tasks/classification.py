"""The classification task: how its points become networks, and how these are scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.metrics.counts import expected_calibration_error
from dl4ia.models.classification import ClassificationModel, ModelSettings
from dl4ia.search_space import settings_of
from dl4ia.statistics import Scores
from dl4ia.tasks.sketches import sketch_confusion, sketch_misclassified

# Pixels at once, 1,000 digits; fixed, so that scoring does not depend on what is tuned.
EVALUATION_BATCH = 1000 * 28 * 28
TRIAL_IMAGES = 3000  # that a trial is pictured with; all 12,000 of MNIST would cost 1 % of its time


class ClassificationTask:
    """One class an image; a study's value is the validation accuracy.

    classes: the names of classes 0, 1, …
    """

    name = "classification"
    metric = "accuracy"
    counts_images = True
    cores_a_worker = 1
    settings = ModelSettings
    trains_in_low_precision = False  # no faster, and a tenth of a per cent worse

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes

    def strata(self, dataset: Dataset) -> np.ndarray:
        """(N,) the class: every validation part gets its share of each."""
        return dataset.labels.numpy()

    def build(self, point: Mapping[str, Any], train: Dataset) -> ClassificationModel:
        """A fresh network, drawn from the global random stream; `train` gives the statistics."""
        settings = settings_of(ModelSettings, point)
        shape = tuple(train.images.shape[1:])
        statistics = train.channel_statistics
        return ClassificationModel(settings, shape, len(self.classes), *statistics)

    def evaluate(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> dict[str, float]:
        """Loss (cross-entropy, whatever was trained) and accuracy, means over all images."""
        logits, labels = self._logits(model, dataset, device), dataset.labels.to(device)
        return {
            "loss": F.cross_entropy(logits, labels).item(),
            "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        }

    def predict(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N,) the likeliest class of each image."""
        return self.logits(model, dataset, device).argmax(1)

    def probabilities(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N, classes) float32 on the CPU."""
        return self.logits(model, dataset, device).softmax(1)

    def averaged_probabilities(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> None:
        """None: a digit turned or mirrored is another one."""

    def image_scores(self, probabilities: Tensor, dataset: Dataset) -> dict[str, Scores]:
        """accuracy, and accuracy_of_<class> of the images of each class."""
        correct = (probabilities.argmax(1) == dataset.labels).double()
        scores = {"accuracy": Scores.of(correct)}
        for number, name in enumerate(self.classes):
            of_class = (dataset.labels == number).double()
            scores[f"accuracy_of_{name}"] = Scores.of(correct * of_class, of_class)
        return scores

    def whole_scores(self, probabilities: Tensor, dataset: Dataset) -> dict[str, float]:
        """calibration_error, the expected one."""
        error = expected_calibration_error(probabilities, dataset.labels)
        return {"calibration_error": error}

    def draw_trial(
        self, model: nn.Module, validation: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """The confusion matrix and the most confident errors, as PNG files."""
        # Every so many, since a folder's images may come class by class.
        shown = validation.subset(range(0, len(validation), -(-len(validation) // TRIAL_IMAGES)))
        confidence, predictions = self.probabilities(model, shown, device).max(1)
        return [
            sketch_confusion(shown.labels, predictions, self.classes, folder),
            sketch_misclassified(shown, predictions, confidence, self.classes, folder),
        ]

    def draw(
        self, model: nn.Module, test: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """The confusion matrix, and misclassified images with their classes, as PNG files."""
        from dl4ia.tasks.pictures import draw_confusion, draw_misclassified  # slow to import

        confidence, predictions = self.logits(model, test, device).softmax(1).max(1)
        return [
            draw_confusion(test.labels, predictions, self.classes, folder),
            draw_misclassified(test, predictions, self.classes, folder, confidence),
        ]

    def logits(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N, classes) float32 on the CPU."""
        return self._logits(model, dataset, device).cpu()

    @torch.no_grad()
    def _logits(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N, classes) float32 on the device, which is not waited for."""
        model.eval()
        model.to(device)
        parts = []
        for images in dataset.images.split(
            max(1, EVALUATION_BATCH // dataset.images[0, 0].numel())
        ):
            images = images.to(device).contiguous(memory_format=torch.channels_last)
            parts.append(model(images).float())
        return torch.cat(parts)
