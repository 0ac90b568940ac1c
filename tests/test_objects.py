"""Object metrics of masks that can be scored by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist
from torch import Tensor

from dl4ia.metrics import objects
from dl4ia.metrics.objects import (
    EIGHT_NEIGHBOURS,
    FEW_PAIRS,
    ObjectCounts,
    object_dice,
    object_hausdorff,
)


def mask(*rows: str) -> Tensor:
    """One image, (1, H, W): `#` is gland."""
    return torch.tensor([[[int(pixel == "#") for pixel in row] for row in rows]])


def counts(prediction: Tensor, label: Tensor) -> tuple[float, float, float]:
    """True positives, predicted and labelled objects of one image."""
    found = ObjectCounts.of(prediction, label)
    return found.true_positives.item(), found.predicted.item(), found.labelled.item()


def scores(prediction: Tensor, label: Tensor) -> list[float]:
    """F1, object Dice and object Hausdorff of one image."""
    return [
        ObjectCounts.of(prediction, label).f1().item(),
        object_dice(prediction, label).item(),
        object_hausdorff(prediction, label).item(),
    ]


MERGED = mask("#######"), mask("####.##")
MISSED = mask("##...."), mask("##..##")
SPURIOUS = mask("####...#...."), mask("####......##")


def test_glands_as_labelled() -> None:
    label = mask("##...", "##...", "...##")
    assert counts(label, label) == (2, 2, 2)
    assert scores(label, label) == [1, 1, 0]


def test_two_glands_merged_by_the_prediction() -> None:
    """The gland of 4 pixels is the partner of the 7; they are the partner of both glands."""
    assert counts(*MERGED) == (1, 1, 2)
    dice = (8 / 11 + (4 * 8 / 11 + 2 * 4 / 9) / 6) / 2
    hausdorff = (3 + (4 * 3 + 2 * 5) / 6) / 2
    assert scores(*MERGED) == pytest.approx([2 / 3, dice, hausdorff])


def test_one_gland_missed() -> None:
    """The only predicted object, 4 pixels away, is its partner for the Hausdorff distance."""
    assert counts(*MISSED) == (1, 1, 2)
    assert scores(*MISSED) == pytest.approx([2 / 3, (1 + 1 / 2) / 2, (0 + 4 / 2) / 2])


def test_one_gland_spurious() -> None:
    assert counts(*MISSED[::-1]) == (1, 2, 1)
    assert scores(*MISSED[::-1]) == pytest.approx(scores(*MISSED))


def test_the_partner_without_overlap_is_the_nearest() -> None:
    """The pixel at 7 is 7 from the first gland's far end and 4 from the second's."""
    assert counts(*SPURIOUS) == (1, 2, 2)
    dice = ((4 * 1 + 1 * 0) / 5 + (4 * 1 + 2 * 0) / 6) / 2
    hausdorff = ((4 * 0 + 1 * 4) / 5 + (4 * 0 + 2 * 4) / 6) / 2
    assert scores(*SPURIOUS) == pytest.approx([1 / 2, dice, hausdorff])


def test_the_partner_with_overlap_may_be_farther_than_another() -> None:
    prediction, label = mask("........##."), mask("#########.#")
    assert counts(prediction, label) == (0, 1, 2)
    dice = (2 / 11 + (9 * 2 / 11 + 1 * 0) / 10) / 2
    hausdorff = (8 + (9 * 8 + 1 * 2) / 10) / 2
    assert scores(prediction, label) == pytest.approx([0, dice, hausdorff])


@pytest.mark.parametrize(
    ("prediction", "label", "true_positives"),
    [
        ("##....", "####..", 1),  # half of it
        ("##....", "#####.", 0),  # less
        ("######", "##....", 1),  # all of it, and more
        ("#.#.##", "######", 0),  # half and more, but no object alone
    ],
)
def test_a_gland_is_found_by_an_object_that_covers_half_of_it(
    prediction: str, label: str, true_positives: int
) -> None:
    assert counts(mask(prediction), mask(label))[0] == true_positives


def test_a_gland_in_two_pieces_is_found_once() -> None:
    label = mask("##..##")
    found = ObjectCounts.of(label, label, label.int())
    assert (found.true_positives.item(), found.predicted.item(), found.labelled.item()) == (1, 2, 1)
    assert found.f1().item() == pytest.approx(2 / 3)


def test_pixels_that_touch_at_a_corner_are_one_object() -> None:
    assert counts(mask("#..", ".#.", "..#"), mask("#.#", "...", "#.#"))[1:] == (1, 4)


def test_the_distance_is_between_all_pixels() -> None:
    """A ring and the same one filled have one outer boundary; their centre tells them apart."""
    ring = mask("#####", "#...#", "#...#", "#...#", "#####")
    assert scores(torch.ones_like(ring), ring) == pytest.approx([1, 32 / 41, 2])


def all_pairs(predicted: np.ndarray, labelled: np.ndarray) -> float:
    """Object Hausdorff as its definition says, by every pair of pixels of every pair of objects."""
    masks = [ndimage.label(each, EIGHT_NEIGHBOURS) for each in (predicted, labelled)]
    both = [
        [np.argwhere(each == number) for number in range(1, count + 1)] for each, count in masks
    ]
    sums = []
    for mine, others in (both, both[::-1]):
        total = 0.0
        for pixels in mine:
            known = {tuple(each) for each in pixels}
            shared = [len(known & {tuple(each) for each in other}) for other in others]
            far = [
                max(lengths.min(0).max(), lengths.min(1).max())
                for lengths in (cdist(pixels, other) for other in others)
            ]
            best = shared.index(max(shared)) if any(shared) else far.index(min(far))
            total += len(pixels) * far[best]
        sums.append(total / sum(map(len, mine)))
    return sum(sums) / 2


@pytest.mark.parametrize("seed", range(8))
def test_of_many_objects_the_distance_is_that_of_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.uniform(0.02, 0.3, 2)
    predicted, labelled = (random.random((30, 40)) < share for share in shares)
    found = object_hausdorff(torch.tensor(predicted)[None], torch.tensor(labelled)[None])
    assert found.item() == pytest.approx(all_pairs(predicted, labelled), rel=1e-12)


@pytest.mark.parametrize("pairs", [0, FEW_PAIRS])
def test_both_ways_to_measure_are_exact(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    monkeypatch.setattr(objects, "FEW_PAIRS", pairs)
    random = np.random.default_rng(0)
    one, other = (random.random((30, 40)) < 0.2 for _ in range(2))
    lengths = cdist(np.argwhere(one), np.argwhere(other))
    assert objects._hausdorff(one, other) == max(lengths.min(0).max(), lengths.min(1).max())


def test_of_many_specks_few_pairs_are_measured() -> None:
    """Of all pairs a speckled mask of a contest's image took 19 s; a winner's test has hundreds."""
    specks, glands = torch.zeros(1, 200, 200), torch.zeros(1, 200, 200)
    specks[:, ::10, ::10] = 1
    for row in range(0, 200, 50):
        glands[:, row + 5 : row + 8, 5:195:40] = 1
    (image,) = objects._images(specks, glands, None)
    distances = objects._Distances(image)
    assert image.shared.shape == (400, 20) and not image.shared.any()
    for number in range(400):
        assert distances.to_partner(number, labelled=False) > 0
    assert len(distances._known) < 3 * 400


def test_distances_are_euclidean() -> None:
    prediction, label = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    prediction[0, 1, 1] = label[0, 4, 5] = 1
    assert object_hausdorff(prediction, label).item() == 5


def test_empty_masks_have_defined_scores() -> None:
    gland, empty = mask("##......", "........", "........"), torch.zeros(1, 3, 8)
    predictions = torch.cat([empty, gland, empty, gland])
    labels = torch.cat([empty, empty, gland, gland])
    found = ObjectCounts.of(predictions, labels)
    assert found.true_positives.tolist() == [0, 0, 0, 1]
    assert found.predicted.tolist() == [0, 1, 0, 1]
    assert found.labelled.tolist() == [0, 0, 1, 1]
    assert found.f1().tolist() == [1, 0, 0, 1]
    assert object_dice(predictions, labels).tolist() == [1, 0, 0, 1]
    diagonal = math.sqrt(3**2 + 8**2)
    assert object_hausdorff(predictions, labels).tolist() == [0, diagonal, diagonal, 0]


def test_each_image_is_scored_by_itself() -> None:
    images = [MERGED, (mask("#......"), mask("....###"))]
    predictions, labels = (torch.cat(masks) for masks in zip(*images, strict=True))
    found = ObjectCounts.of(predictions, labels)
    together = found.f1(), object_dice(predictions, labels), object_hausdorff(predictions, labels)
    assert torch.stack(together, 1).tolist() == [scores(*masks) for masks in images]
    assert [values.dtype for values in together] == 3 * [torch.float64]
    assert found.true_positives.dtype == found.predicted.dtype == torch.int64


def test_anything_but_0_is_gland() -> None:
    prediction, label = SPURIOUS
    assert scores(prediction.to(torch.uint8), 255 * label) == scores(prediction, label)


def test_touching_glands_with_numbers_are_two() -> None:
    """Labels alone would call them one gland, found as a whole."""
    prediction = mask("######")
    assert scores(prediction, mask("######")) == [1, 1, 0]
    numbers = 7 * mask("####..") + 9 * mask("....##")
    found = ObjectCounts.of(prediction, mask("######"), numbers)
    assert (found.predicted.item(), found.labelled.item()) == (1, 2)
    assert found.true_positives.item() == 1
    assert found.f1().item() == pytest.approx(2 / 3)
    dice = (8 / 10 + (4 * 8 / 10 + 2 * 4 / 8) / 6) / 2
    assert object_dice(prediction, numbers, numbers).item() == pytest.approx(dice)
    hausdorff = (2 + (4 * 2 + 2 * 4) / 6) / 2
    assert object_hausdorff(prediction, numbers, numbers).item() == pytest.approx(hausdorff)
