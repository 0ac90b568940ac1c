"""How well glands are found one by one: the metrics of the GlaS contest.

Sirinukunwattana et al. 2017, "Gland segmentation in colon histology images: the GlaS challenge
contest". The objects of a mask are its 8-connected components: a binary label does not say where
one gland ends and a touching one begins, so the two are one object, unless the label's objects are
given as numbers of their own. An object's partner is the one in the other mask that shares most
pixels with it; of several, the first. Each image is scored by itself, where the contest's text sums
over the objects of all images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

EIGHT_NEIGHBOURS = np.ones((3, 3))


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of N images, (N,) int64 each: found, in the prediction, in the label.

    A predicted object is a true positive if it covers at least half of its partner, as the contest
    says (its code asks for more than half). No gland is found twice, as one that is labelled in two
    pieces might be, half by each of two objects.
    """

    true_positives: Tensor
    predicted: Tensor
    labelled: Tensor

    @staticmethod
    def of(predictions: Tensor, labels: Tensor, instances: Tensor | None = None) -> "ObjectCounts":
        """Count in (N, H, W) masks, in which anything but 0 is gland; the counts on the CPU.

        instances: (N, H, W) numbers of the labelled objects, 0 for none; None: the regions of
            `labels` that hang together.
        """
        counts = [
            (_true_positives(image), *image.shared.shape)
            for image in _images(predictions, labels, instances)
        ]
        return ObjectCounts(*torch.tensor(counts, dtype=torch.int64).view(-1, 3).unbind(1))

    def f1(self) -> Tensor:
        """(N,) float64: 2 true positives / (predicted + labelled), 1 where there is no object."""
        whole = self.predicted + self.labelled
        return torch.where(whole == 0, 1.0, 2 * self.true_positives.double() / whole.clamp(min=1))


def object_dice(predictions: Tensor, labels: Tensor, instances: Tensor | None = None) -> Tensor:
    """(N,) float64 Dice coefficients of objects and their partners, 0 for one that has none.

    predictions, labels, instances: as in `ObjectCounts.of`. The mean over predicted objects and the
    mean over labelled ones, both weighted by area, count half each. Where both masks are empty it
    is 1, where one is, 0.
    """
    scores = [_object_dice(image) for image in _images(predictions, labels, instances)]
    return torch.tensor(scores, dtype=torch.float64)


def object_hausdorff(
    predictions: Tensor, labels: Tensor, instances: Tensor | None = None
) -> Tensor:
    """(N,) float64 Hausdorff distances, in pixels, of objects and their partners.

    Weighted like `object_dice`; between all pixels of two objects, not only their boundaries. The
    partner of an object that shares no pixel with any is the one at the smallest distance. Where
    both masks are empty it is 0; where one is, the image's diagonal.
    """
    distances = [_object_hausdorff(image) for image in _images(predictions, labels, instances)]
    return torch.tensor(distances, dtype=torch.float64)


@dataclass(frozen=True)
class _Image:
    """The P predicted and the L labelled objects of one image."""

    predicted: np.ndarray  # (H, W): 0, or the number of the object from 1 to P
    labelled: np.ndarray  # (H, W): 0, or the number of the object from 1 to L
    predicted_areas: np.ndarray  # (P,) pixels
    labelled_areas: np.ndarray  # (L,) pixels
    shared: np.ndarray  # (P, L) pixels


def _images(predictions: Tensor, labels: Tensor, instances: Tensor | None) -> Iterator[_Image]:
    given = (labels if instances is None else instances).cpu().numpy()
    for prediction, label in zip(predictions.cpu().numpy(), given, strict=True):
        predicted, rows = ndimage.label(prediction != 0, EIGHT_NEIGHBOURS)
        if instances is None:
            labelled, columns = ndimage.label(label != 0, EIGHT_NEIGHBOURS)
        else:
            numbers = np.unique(label[label != 0])
            columns = len(numbers)
            labelled = np.where(label != 0, np.searchsorted(numbers, label) + 1, 0)
        cells = (rows + 1) * (columns + 1)  # with the background
        pairs = (predicted * (columns + 1) + labelled).ravel()
        pixels = np.bincount(pairs, minlength=cells).reshape(rows + 1, columns + 1)
        areas = pixels.sum(1)[1:], pixels.sum(0)[1:]
        yield _Image(predicted, labelled, *areas, shared=pixels[1:, 1:])


def _true_positives(image: _Image) -> int:
    if image.shared.size == 0:
        return 0
    partners = image.shared.argmax(1)
    covered = image.shared.max(1) / image.labelled_areas[partners]
    return len(np.unique(partners[covered >= 0.5]))


def _object_dice(image: _Image) -> float:
    if image.shared.size == 0:
        return 1.0 if image.shared.shape == (0, 0) else 0.0
    dice = 2 * image.shared / (image.predicted_areas[:, None] + image.labelled_areas)
    return _mean_of_partners(dice, image.shared, image)


def _object_hausdorff(image: _Image) -> float:
    if image.shared.size == 0:
        return 0.0 if image.shared.shape == (0, 0) else math.hypot(*image.labelled.shape)
    distances = np.maximum(
        _farthest(image.predicted, image.labelled), _farthest(image.labelled, image.predicted).T
    )
    # Any overlap comes before every distance.
    return _mean_of_partners(distances, np.where(image.shared > 0, image.shared, -distances), image)


def _farthest(objects: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(objects, others) distances from an object's pixel that is farthest from the other one."""
    numbers = np.arange(1, objects.max() + 1)
    columns = [
        ndimage.maximum(ndimage.distance_transform_edt(others != other), objects, numbers)
        for other in range(1, others.max() + 1)
    ]
    return np.stack(columns, 1)


def _mean_of_partners(values: np.ndarray, preference: np.ndarray, image: _Image) -> float:
    """Of (P, L) values, those of the pairs that each object prefers, weighted by its area."""
    rows, columns = range(len(image.predicted_areas)), range(len(image.labelled_areas))
    of_predicted = values[rows, preference.argmax(1)]
    of_labelled = values[preference.argmax(0), columns]
    means = (
        np.average(of_predicted, weights=image.predicted_areas),
        np.average(of_labelled, weights=image.labelled_areas),
    )
    return float(sum(means) / 2)
