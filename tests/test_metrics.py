"""Metrics of masks and classes that can be counted by hand."""

import pytest
import torch
from torch import Tensor

from dl4ia.metrics.counts import (
    PixelCounts,
    confusion_matrix,
    expected_calibration_error,
)


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


def of_two_classes(*first: float) -> Tensor:
    """(N, 2) probabilities from those of class 0."""
    return torch.tensor([[p, 1 - p] for p in first], dtype=torch.float64)


def test_the_calibration_error_is_weighed_by_images() -> None:
    """Of five bins, (0.6, 0.8] has means 2/3 right and 0.7 sure, (0.8, 1] has 0 and 0.9."""
    probabilities = of_two_classes(0.65, 0.3, 0.75, 0.9)
    labels = torch.tensor([0, 1, 1, 1])
    error = expected_calibration_error(probabilities, labels, bins=5)
    assert error == pytest.approx(3 / 4 * abs(2 / 3 - 0.7) + 1 / 4 * 0.9)


def test_errors_within_a_bin_balance_and_those_of_two_bins_do_not() -> None:
    probabilities, labels = of_two_classes(0.7, 0.8), torch.tensor([0, 1])
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(0.25)
    # 0.7 and right, 0.8 and wrong.
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.3 + 0.8) / 2)


def test_a_bin_holds_its_upper_edge() -> None:
    probabilities, labels = of_two_classes(0.75, 0.6), torch.tensor([0, 1])
    assert expected_calibration_error(probabilities, labels, bins=4) == pytest.approx(0.35 / 2)


def test_certainty_is_calibrated_where_it_is_right() -> None:
    sure = of_two_classes(1, 1, 0)
    assert expected_calibration_error(sure, torch.tensor([0, 0, 1])) == 0
    assert expected_calibration_error(sure, torch.tensor([1, 1, 0])) == 1
    assert expected_calibration_error(sure.float(), torch.tensor([0, 0, 0])) == pytest.approx(1 / 3)
