"""Surface metrics of masks whose distances are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from torch import Tensor

from dl4ia.metrics.surfaces import hausdorff_95, surface_dice


def square(top: int, left: int, side: int = 20) -> Tensor:
    """A (64, 64) mask."""
    mask = torch.zeros(64, 64, dtype=torch.long)
    mask[top : top + side, left : left + side] = 1
    return mask


EMPTY = torch.zeros(64, 64, dtype=torch.long)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (3, 0.5)])
def test_a_shifted_square(shift: int, expected: float) -> None:
    """Moved by 3 pixels, the two sides along the way still lie on each other, but for the ends."""
    scores = surface_dice(square(10, 10)[None], square(10, 10 + shift)[None], 1.0)
    assert scores.item() == pytest.approx(expected, abs=0.06)
    assert hausdorff_95(square(10, 10)[None], square(10, 10 + shift)[None]).item() == shift


def test_the_tolerance_is_in_pixels() -> None:
    masks = square(10, 10)[None], square(12, 10)[None]
    assert surface_dice(*masks, 2.0).item() == 1
    assert surface_dice(*masks, 1.0).item() < 0.7


def test_empty_masks_have_defined_scores() -> None:
    predictions = torch.stack([EMPTY, EMPTY, square(10, 10), square(10, 10)])
    labels = torch.stack([EMPTY, square(10, 10), EMPTY, square(10, 10)])
    assert surface_dice(predictions, labels, 1.0).tolist() == [1, 0, 0, 1]
    diagonal = 64 * math.sqrt(2)
    assert hausdorff_95(predictions, labels).tolist() == pytest.approx([0, diagonal, diagonal, 0])


def test_labels_of_255_are_gland_too() -> None:
    masks = square(10, 10)[None], square(11, 11)[None]
    expected = surface_dice(*masks, 1.0)
    assert torch.equal(surface_dice(masks[0] * 255, masks[1] * 255, 1.0), expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_they_are_what_monai_says_of_two_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions, labels = (torch.rand(2, 3, 24, 20, generator=generator) > 0.6).long()
    classes = [F.one_hot(masks, 2).permute(0, 3, 1, 2) for masks in (predictions, labels)]
    assert torch.equal(
        surface_dice(predictions, labels, 1.0), compute_surface_dice(*classes, [1.0])[:, 0].double()
    )
    distances = compute_hausdorff_distance(*classes, percentile=95)[:, 0].double()
    assert torch.equal(hausdorff_95(predictions, labels), distances)
