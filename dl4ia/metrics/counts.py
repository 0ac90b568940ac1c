"""Metrics from counts of pixels and images, so that each number has one definition.

Dice = 2 |P ∩ L| / (|P| + |L|) and IoU = |P ∩ L| / |P ∪ L| of predicted and labelled gland pixels
(Dice 1945, Jaccard 1912). Where both are empty the prediction is right: 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelCounts:
    """Gland pixels of N images, (N,) int64 each: in both, in the prediction, in the label."""

    both: Tensor
    predicted: Tensor
    labelled: Tensor

    @staticmethod
    def of(predictions: Tensor, labels: Tensor) -> "PixelCounts":
        """Count (N, H, W) masks, in which anything but 0 is gland; on their own device."""
        predicted, labelled = predictions != 0, labels != 0
        return PixelCounts(
            (predicted & labelled).sum((1, 2)), predicted.sum((1, 2)), labelled.sum((1, 2))
        )

    @staticmethod
    def concatenate(parts: "list[PixelCounts]") -> "PixelCounts":
        """The images of all parts, in order."""
        return PixelCounts(
            torch.cat([part.both for part in parts]),
            torch.cat([part.predicted for part in parts]),
            torch.cat([part.labelled for part in parts]),
        )

    def dice(self) -> Tensor:
        """(N,) float64: one coefficient an image."""
        return _ratio(2 * self.both, self.predicted + self.labelled)

    def dice_pooled(self) -> float:
        """One coefficient over the pixels of all images at once, as the report has it."""
        total = self.predicted.sum() + self.labelled.sum()
        return _ratio(2 * self.both.sum(), total).item()

    def iou(self) -> Tensor:
        """(N,) float64: one coefficient an image."""
        return _ratio(self.both, self.predicted + self.labelled - self.both)

    def summary(self) -> dict[str, float]:
        """The metrics that are logged: means over images, and the report's pooled Dice."""
        return {
            "dice": self.dice().mean().item(),
            "dice_pooled": self.dice_pooled(),
            "iou": self.iou().mean().item(),
        }


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64 counts of (N,) true classes, in rows, and predicted ones."""
    pairs = labels * classes + predictions
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """How far confidence is from accuracy: 0 is calibrated, 1 always sure and always wrong.

    probabilities: (N, classes), a row sums to 1; labels: (N,) classes. Guo et al. 2017, "On
    calibration of modern neural networks": the mean over images of |accuracy - confidence| of an
    image's bin. The confidence is the probability of the likeliest class, the bins are equally wide
    from 0 to 1, each with its upper edge.
    """
    confidence, predictions = probabilities.double().max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    bin_of = torch.bucketize(confidence, edges[1:-1])  # (N,)
    excess = (predictions == labels).double() - confidence
    # A bin's size times the gap of its means is the gap of its sums.
    gaps = torch.zeros_like(edges[1:]).index_add(0, bin_of, excess)
    return gaps.abs().sum().item() / len(labels)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 1.0, part.double() / whole.clamp(min=1))
