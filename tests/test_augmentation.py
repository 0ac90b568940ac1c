"""Augmentation moves images and labels together, and each image by its own random numbers."""

import math

import pytest
import torch
from torch import Tensor

from dl4ia.training.augmentation import (
    AugmentationSettings,
    Augmenter,
    extend_with_report_rotations,
)
from search_spaces import segmentation

TURNS = AugmentationSettings(augmentation="flips_and_quarter_turns")
ALL = AugmentationSettings(
    augmentation="flips_and_quarter_turns", affine=1.0, elastic=1.0, stain_jitter=1.0
)


def make_batch(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(N, 2, H, W) images and (N, H, W) labels of random pixels."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(count, 2, height, width, generator=generator)
    return images, torch.randint(0, 2, (count, height, width), generator=generator)


def augment(
    settings: AugmentationSettings, images: Tensor, labels: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The whole batch, as in the first epoch."""
    augmenter = Augmenter(settings, images, seed)
    return augmenter(images, labels, torch.arange(len(images)))


def dihedral(image: Tensor) -> list[Tensor]:
    """The eight flips and quarter turns of a square (…, S, S)."""
    turned = [image.rot90(turns, (-2, -1)) for turns in range(4)]
    return turned + [each.flip(-1) for each in turned]


def coordinates(count: int, height: int, width: int) -> Tensor:
    """(N, 2, H, W) images that show where each pixel is: x and y as shares of the sides."""
    x = ((torch.arange(width) + 0.5) / width).expand(height, width)
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    return torch.stack([x, y]).expand(count, 2, height, width).contiguous()


def test_flips_and_quarter_turns_are_exact_and_the_labels_too() -> None:
    images, labels = make_batch(1, 8, 8)
    images, labels = images.expand(64, 2, 8, 8), labels.expand(64, 8, 8)
    known_images, known_labels = dihedral(images[0]), dihedral(labels[0])
    seen = set()
    for image, label in zip(*augment(TURNS, images, labels), strict=True):
        distances = [(image - known).abs().max().item() for known in known_images]
        kind = distances.index(min(distances))
        assert distances[kind] < 1e-5
        assert torch.equal(label, known_labels[kind])
        seen.add(kind)
    assert seen == set(range(8))


def test_the_reports_rotations_come_after_the_images() -> None:
    images, labels = make_batch(3, 6, 6)
    more_images, more_labels = extend_with_report_rotations(images, labels)
    for turned, original in ((more_images, images), (more_labels, labels)):
        assert len(turned) == 9
        assert torch.equal(turned[:3], original)
        assert torch.equal(turned[3:6], original.rot90(-1, (-2, -1)))
        assert torch.equal(turned[6:], original.rot90(2, (-2, -1)))
    assert torch.equal(more_images[3, :, 0, 5], images[0, :, 0, 0])  # clockwise


@pytest.mark.parametrize("rows", [[4, 1], [0], [5, 4, 3, 2, 1, 0]])
def test_an_images_fate_does_not_depend_on_its_batch(rows: list[int]) -> None:
    images, labels = make_batch(6, 16, 16)
    all_images, all_labels = augment(ALL, images, labels)
    chosen = torch.tensor(rows)
    some_images, some_labels = Augmenter(ALL, images, 0)(images[chosen], labels[chosen], chosen)
    torch.testing.assert_close(some_images, all_images[chosen])
    assert torch.equal(some_labels, all_labels[chosen])


@pytest.mark.parametrize("rotations", [False, True])
def test_strengths_of_0_change_nothing(rotations: bool) -> None:
    images, labels = make_batch(4, 16, 16)
    settings = AugmentationSettings(report_rotations=rotations)
    same_images, same_labels = augment(settings, images, labels)
    assert torch.equal(same_images, images)
    assert torch.equal(same_labels, labels)


@pytest.mark.parametrize(
    "settings",
    [TURNS, AugmentationSettings(affine=1.0), AugmentationSettings(elastic=1.0)],
    ids=["turns", "affine", "elastic"],
)
def test_images_and_labels_move_together(settings: AugmentationSettings) -> None:
    labels = torch.zeros(20, 48, 48, dtype=torch.int64)
    labels[:, 8:30, 5:20] = 1
    labels[:, 35:44, 30:46] = 1
    images = labels[:, None].float().expand(20, 2, 48, 48)
    moved_images, moved_labels = augment(settings, images, labels)
    assert (moved_labels != labels).float().mean() > 0.05
    assert moved_labels.dtype == torch.int64
    agreement = (moved_images > 0.5) == (moved_labels[:, None] == 1)
    assert agreement.float().mean() > 0.98  # all but pixels on an outline


def test_stain_jitter_leaves_labels_alone_and_images_in_range() -> None:
    images, labels = make_batch(30, 16, 16)
    stained, same = augment(AugmentationSettings(stain_jitter=1.0), images, labels)
    assert torch.equal(same, labels)
    assert stained.min() >= 0
    assert stained.max() <= 1
    # Every stain of every image has a gain in 1 ± 0.3 and an offset in ± 0.1 of its own.
    flat = torch.full((30, 2, 1, 2), 0.4)
    flat[..., 1] = 0.6
    dark, light = augment(AugmentationSettings(stain_jitter=1.0), flat, labels)[0].unbind(-1)
    gain = (light - dark) / 0.2
    offset = dark - 0.4 * gain
    assert 0.25 < (gain - 1).abs().max() <= 0.3001
    assert 0.08 < offset.abs().max() <= 0.1001
    assert len(gain.flatten().unique()) == 60


def test_a_seed_repeats_and_another_does_not() -> None:
    images, labels = make_batch(4, 16, 16)
    assert torch.equal(augment(ALL, images, labels)[0], augment(ALL, images, labels)[0])
    assert not torch.equal(augment(ALL, images, labels)[0], augment(ALL, images, labels, 1)[0])


def test_every_epoch_draws_anew() -> None:
    images, labels = make_batch(4, 16, 16)
    augmenter = Augmenter(ALL, images, 0)
    first = augmenter(images, labels, torch.arange(4))[0]
    augmenter.draw()
    assert not torch.equal(augmenter(images, labels, torch.arange(4))[0], first)


@pytest.mark.parametrize("elastic", [0.25, 0.5])
def test_elastic_displacements_have_the_documented_deviation(elastic: float) -> None:
    """Strength 1 is an SD of 4 % of the side, along both axes, on any shape."""
    places = coordinates(300, 32, 48)
    labels = torch.zeros(300, 32, 48, dtype=torch.int64)
    moved = augment(AugmentationSettings(elastic=elastic), places, labels)[0] - places
    inner = moved[:, :, 8:24, 12:36]  # away from the reflecting edges
    for axis in range(2):
        assert inner[:, axis].std().item() == pytest.approx(0.04 * elastic, rel=0.25)
        assert inner[:, axis].mean().item() == pytest.approx(0, abs=0.1 * 0.04 * elastic)


def test_affine_strength_1_stays_within_its_documented_limits() -> None:
    """Read the matrix and the shift of 500 images off what the middle pixels show, in pixels."""
    height, width = 41, 61
    places = coordinates(500, height, width)
    labels = torch.zeros(500, height, width, dtype=torch.int64)
    moved = augment(AugmentationSettings(affine=1.0), places, labels)[0]
    shown = moved * torch.tensor([width, height])[:, None, None]  # pixels
    middle_y, middle_x = height // 2, width // 2
    along_x = (shown[:, :, middle_y, middle_x + 5] - shown[:, :, middle_y, middle_x - 5]) / 10
    along_y = (shown[:, :, middle_y + 5, middle_x] - shown[:, :, middle_y - 5, middle_x]) / 10
    # matrix = rotation @ [[scale x, shear], [0, scale y]]; its first column gives turn and scale x
    turns = torch.atan2(along_x[:, 1], along_x[:, 0]).rad2deg()
    scale_x = along_x.norm(dim=1)
    area = along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]
    scale_y = area / scale_x
    shear = (along_x * along_y).sum(1) / scale_x
    shift = (moved - places)[:, :, middle_y, middle_x]
    for values, limit in (
        (turns, 45),
        (scale_x.log(), math.log(1.3)),
        (scale_y.log(), math.log(1.3)),
        (shear, 0.2),
        (shift, 0.1),
    ):
        assert 0.9 * limit < values.abs().max() < 1.01 * limit
        assert abs(values.mean()) < 0.1 * limit


def test_quarter_turns_keep_the_shape_of_images_that_are_not_square() -> None:
    labels = torch.zeros(16, 12, 20, dtype=torch.int64)
    labels[:, :6] = 1  # the upper half
    images = labels[:, None].float().repeat(1, 2, 1, 1)
    turned_images, turned_labels = augment(TURNS, images, labels)
    assert turned_images.shape == images.shape
    left = torch.zeros(12, 20, dtype=torch.int64)
    left[:, :10] = 1
    halves = {
        name: sum(torch.equal(label, half) for label in turned_labels)
        for name, half in {
            "upper": labels[0],
            "lower": 1 - labels[0],
            "left": left,
            "right": 1 - left,
        }.items()
    }
    assert sum(halves.values()) == 16
    assert all(halves.values())


def test_the_reports_rotations_take_images_that_are_not_square() -> None:
    images, labels = make_batch(3, 20, 26)
    more, more_labels = extend_with_report_rotations(images, labels)
    assert more.shape == (9, 2, 20, 26) and more_labels.shape == (9, 20, 26)
    assert torch.equal(more[6:], images.rot90(2, (-2, -1)))
    turned = labels.rot90(-1, (-2, -1)).double().mean((1, 2))
    assert torch.allclose(more_labels[3:6].double().mean((1, 2)), turned, atol=0.05)


def test_labels_of_whole_images_stay() -> None:
    images, _ = make_batch(5, 12, 12)
    labels = torch.tensor([3, 1, 4, 1, 5])
    augmented, kept = augment(ALL, images, labels)
    assert torch.equal(kept, labels)
    assert not torch.equal(augmented, images)


def test_a_shift_moves_by_at_most_a_tenth_of_the_side_and_nothing_else() -> None:
    places = coordinates(200, 40, 40)
    moved, _ = augment(AugmentationSettings(shift=1.0), places, torch.zeros(200).long())
    inner = (moved - places)[:, :, 8:-8, 8:-8].flatten(2)  # (N, 2, pixels): away from the edges
    assert inner.std(2).max().item() < 1e-5  # the same for all pixels of an image
    amounts = inner.mean(2)  # (N, 2), shares of the sides
    assert 0.09 < amounts.abs().max().item() <= 0.1001
    assert amounts.mean(0).abs().max().item() < 0.02
    assert abs(torch.corrcoef(amounts.T)[0, 1].item()) < 0.2


def share_folded(elastic: float) -> float:
    """Of 300 images, how many the map turns inside out somewhere."""
    images = torch.zeros(300, 1, 64, 64)
    grid = Augmenter(AugmentationSettings(elastic=elastic), images, 0)._grid(torch.arange(300))
    down, across = grid.diff(dim=1)[:, :, :-1], grid.diff(dim=2)[:, :-1]
    areas = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
    return float((areas <= 0).flatten(1).any(1).float().mean())


def test_the_strongest_elastic_that_is_searched_hardly_folds_an_image() -> None:
    highest = segmentation.SPACE["elastic"].high  # type: ignore[union-attr]
    assert share_folded(highest) < 0.05 < 0.5 < share_folded(1.0)


def test_an_unknown_augmentation_is_refused() -> None:
    """It would train as if there were none."""
    with pytest.raises(ValueError, match="'rotations': expected none or flips_and_quarter_turns"):
        AugmentationSettings(augmentation="rotations")
