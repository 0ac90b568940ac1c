"""Metrics of masks that can be counted by hand."""

import pytest
import torch
from torch import Tensor

from dl4ia.metrics import PixelCounts, confusion_matrix


def masks(*rows: str) -> Tensor:
    """One 1 x W image a string: `#` is gland."""
    return torch.tensor([[[int(pixel == "#") for pixel in row]] for row in rows])


#                     half right   empty label  both empty   perfect      disjoint
PREDICTED = masks("##........", "#.........", "..........", "########..", "##........")
LABELLED = masks(".##.......", "..........", "..........", "########..", "...###....")


def test_dice_of_each_image() -> None:
    dice = PixelCounts.of(PREDICTED, LABELLED).dice()
    assert dice.dtype == torch.float64
    assert dice.tolist() == [2 * 1 / (2 + 2), 0.0, 1.0, 1.0, 0.0]


def test_iou_of_each_image() -> None:
    iou = PixelCounts.of(PREDICTED, LABELLED).iou()
    assert iou.tolist() == pytest.approx([1 / 3, 0.0, 1.0, 1.0, 0.0])


def test_pooled_dice_differs_from_the_mean() -> None:
    summary = PixelCounts.of(PREDICTED, LABELLED).summary()
    assert summary["dice"] == pytest.approx(2.5 / 5)
    assert summary["iou"] == pytest.approx((1 / 3 + 2) / 5)
    # In both 1 + 8; predicted 2 + 1 + 8 + 2; labelled 2 + 8 + 3.
    assert summary["dice_pooled"] == pytest.approx(2 * 9 / (13 + 13))


def test_pooled_dice_of_nothing_but_empty_masks_is_1() -> None:
    empty = torch.zeros(3, 4, 4)
    assert PixelCounts.of(empty, empty).dice_pooled() == 1.0


def test_anything_but_0_is_gland() -> None:
    assert PixelCounts.of(255 * PREDICTED, LABELLED).summary() == (
        PixelCounts.of(PREDICTED, LABELLED).summary()
    )


def test_images_are_counted_over_height_and_width() -> None:
    predicted, labelled = torch.zeros(1, 3, 5), torch.zeros(1, 3, 5)
    predicted[0, 1:, 2] = 1  # two pixels
    labelled[0, 1, 2:] = 1  # three pixels, one in common
    assert PixelCounts.of(predicted, labelled).dice().tolist() == [2 * 1 / (2 + 3)]


def test_concatenated_parts_are_the_whole() -> None:
    parts = [
        PixelCounts.of(PREDICTED[:2], LABELLED[:2]),
        PixelCounts.of(PREDICTED[2:], LABELLED[2:]),
    ]
    together, whole = PixelCounts.concatenate(parts), PixelCounts.of(PREDICTED, LABELLED)
    assert together.dice().tolist() == whole.dice().tolist()
    assert together.summary() == whole.summary()


def test_the_confusion_matrix_has_true_classes_in_rows() -> None:
    labels, predictions = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 2])
    counts = confusion_matrix(labels, predictions, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
