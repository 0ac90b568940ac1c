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
from scipy.spatial.distance import cdist
from torch import Tensor

EIGHT_NEIGHBOURS = np.ones((3, 3))
FEW_PAIRS = 1 << 18  # of pixels


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
    distances = _Distances(image)
    rows, columns = range(len(image.predicted_areas)), range(len(image.labelled_areas))
    of_predicted = np.array([distances.to_partner(row, labelled=False) for row in rows])
    of_labelled = np.array([distances.to_partner(column, labelled=True) for column in columns])
    return _mean(of_predicted, of_labelled, image)


class _Distances:
    """Hausdorff distances between an image's predicted and labelled objects, as far as asked for.

    Of hundreds of specks most have one partner that matters, so that not all pairs are measured.
    """

    def __init__(self, image: _Image) -> None:
        self._image = image
        self._boxes = [
            np.array(
                [[(side.start, side.stop) for side in box] for box in ndimage.find_objects(of)]
            )
            for of in (image.predicted, image.labelled)
        ]  # (P, 2, 2) and (L, 2, 2): rows and columns, where they begin and end
        self._known: dict[tuple[int, int], float] = {}

    def to_partner(self, number: int, labelled: bool) -> float:
        """From an object, labelled or predicted; any overlap comes before every distance."""
        shared = self._image.shared[:, number] if labelled else self._image.shared[number]

        def measured(other: int) -> float:
            return self._of(other, number) if labelled else self._of(number, other)

        if shared.any():
            return measured(int(shared.argmax()))
        mine, others = self._boxes[::-1] if labelled else self._boxes
        # What is beyond the other one's box is at least as far away as the box.
        least = np.abs(others - mine[number]).max((1, 2))
        best = math.inf
        for other in np.argsort(least, kind="stable"):
            if least[other] >= best:
                break
            best = min(best, measured(int(other)))
        return best

    def _of(self, row: int, column: int) -> float:
        if (row, column) not in self._known:
            mine, other = self._boxes[0][row], self._boxes[1][column]
            begin, end = np.minimum(mine, other)[:, 0], np.maximum(mine, other)[:, 1]
            inside = tuple(slice(*ends) for ends in zip(begin, end, strict=True))
            predicted = self._image.predicted[inside] == row + 1
            labelled = self._image.labelled[inside] == column + 1
            self._known[row, column] = _hausdorff(predicted, labelled)
        return self._known[row, column]


def _hausdorff(one: np.ndarray, other: np.ndarray) -> float:
    """Between all pixels of two masks (H, W), neither of them empty."""
    pixels = np.argwhere(one), np.argwhere(other)
    if len(pixels[0]) * len(pixels[1]) <= FEW_PAIRS:  # as of a speck: sooner than two transforms
        lengths = cdist(*pixels)
        return float(max(lengths.min(0).max(), lengths.min(1).max()))
    transform = ndimage.distance_transform_edt
    return float(max(transform(~other)[one].max(), transform(~one)[other].max()))


def _mean_of_partners(values: np.ndarray, preference: np.ndarray, image: _Image) -> float:
    """Of (P, L) values, those of the pairs that each object prefers, weighted by its area."""
    rows, columns = range(len(image.predicted_areas)), range(len(image.labelled_areas))
    of_predicted = values[rows, preference.argmax(1)]
    return _mean(of_predicted, values[preference.argmax(0), columns], image)


def _mean(of_predicted: np.ndarray, of_labelled: np.ndarray, image: _Image) -> float:
    """Of a value for each object, weighted by its area; both masks count half."""
    means = (
        np.average(of_predicted, weights=image.predicted_areas),
        np.average(of_labelled, weights=image.labelled_areas),
    )
    return float(sum(means) / 2)
