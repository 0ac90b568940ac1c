"""The drawn glands are reproducible, look like tissue, and need more than colour to find."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from dl4ia.data import glands
from dl4ia.data.glands import DrawnGlands, draw_glands


@pytest.fixture(scope="module")
def train() -> DrawnGlands:
    return draw_glands("train")


@pytest.fixture(scope="module")
def test() -> DrawnGlands:
    return draw_glands("test")


@pytest.fixture(scope="module")
def tiny() -> DrawnGlands:
    return draw_glands("test", size=16)


@pytest.fixture(params=["train", "test"])
def drawn(request: pytest.FixtureRequest) -> DrawnGlands:
    part: DrawnGlands = request.getfixturevalue(request.param)
    return part


def mean_dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Mean over images of Dice, (N, S, S) each; 1 where both are empty."""
    both = (predicted & truth).sum((1, 2))
    sizes = predicted.sum((1, 2)) + truth.sum((1, 2))
    return float(np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), 1).mean())


def test_shapes_types_and_ranges(drawn: DrawnGlands) -> None:
    count = len(drawn.patients)
    assert count in (85, 60)
    assert drawn.images.shape == (count, 2, 64, 64)
    assert drawn.masks.shape == (count, 64, 64)
    assert drawn.images.dtype == drawn.masks.dtype == np.uint8
    assert set(np.unique(drawn.masks)) == {0, 1}
    assert drawn.images.min() < 5
    assert drawn.images.max() > 200
    assert (drawn.images == 255).mean() < 0.02, "clipped stains lose their texture"


def test_a_seed_always_draws_the_same(tiny: DrawnGlands) -> None:
    again = draw_glands("test", size=16)
    assert again.images.tobytes() == tiny.images.tobytes()
    assert again.masks.tobytes() == tiny.masks.tobytes()
    assert again.patients.tobytes() == tiny.patients.tobytes()


def test_another_seed_draws_something_else(tiny: DrawnGlands) -> None:
    other = draw_glands("test", seed=1, size=16)
    assert (other.images != tiny.images).any(axis=(1, 2, 3)).all()


def test_the_test_part_does_not_depend_on_the_training_part(
    monkeypatch: pytest.MonkeyPatch, tiny: DrawnGlands
) -> None:
    monkeypatch.setitem(glands.IMAGES_OF_PATIENT, "train", (1, 2))
    assert len(draw_glands("train", size=16).images) == 3
    assert draw_glands("test", size=16).images.tobytes() == tiny.images.tobytes()


def test_parts_share_no_image(train: DrawnGlands, test: DrawnGlands) -> None:
    pictures = [image.tobytes() for image in (*train.images, *test.images)]
    assert len(set(pictures)) == len(pictures)


def test_about_half_of_the_pixels_are_gland(drawn: DrawnGlands) -> None:
    assert 0.4 < drawn.masks.mean() < 0.6


def test_there_are_extreme_images(drawn: DrawnGlands) -> None:
    shares = drawn.masks.mean(axis=(1, 2))
    assert 1 <= (shares == 0).sum() <= 5, "some images show no gland"
    assert shares.max() > 0.8, "some show hardly anything else"
    bare = (drawn.images < 25).all(axis=1)  # (N, S, S)
    assert (bare.mean(axis=(1, 2)) > 0.2).sum() >= 2, "in some, the tissue ends"


def test_glands_have_a_dark_wall_around_a_pale_lumen(drawn: DrawnGlands) -> None:
    darker = []
    for image, mask in zip(drawn.images, drawn.masks, strict=True):
        depth = ndimage.distance_transform_edt(np.pad(mask, 8, mode="edge"))[8:-8, 8:-8]
        wall, lumen = (depth > 1) & (depth < 3.5), depth > 7
        if lumen.sum() > 30:
            darker.append(image[:, wall].mean(axis=1) / image[:, lumen].mean(axis=1))
    assert len(darker) > 0.5 * len(drawn.images)
    haematoxylin, eosin = np.transpose(darker)
    assert np.median(haematoxylin) > 1.5
    assert np.median(eosin) > 1.3
    assert (haematoxylin > 1).mean() > 0.9


def test_patients_overlap_in_another_mix(train: DrawnGlands, test: DrawnGlands) -> None:
    seen = np.isin(test.patients, train.patients)
    assert 0.8 < seen.mean() < 1
    mixes = [
        np.bincount(part.patients, minlength=16) / len(part.patients) for part in (train, test)
    ]
    assert np.abs(mixes[0] - mixes[1]).sum() / 2 > 0.2


def test_patients_look_different(train: DrawnGlands) -> None:
    """Between patients, stains vary more than within one, relative to chance (F far above 1)."""
    brightness = train.images.mean(axis=(2, 3))  # (N, 2)
    groups = [brightness[train.patients == patient] for patient in np.unique(train.patients)]
    within = sum(group.var(axis=0) * len(group) for group in groups) / (85 - len(groups))
    between = sum((g.mean(axis=0) - brightness.mean(axis=0)) ** 2 * len(g) for g in groups)
    assert (between / (len(groups) - 1) > 4 * within).all()


def test_colour_alone_does_not_decide(drawn: DrawnGlands) -> None:
    """The best threshold on one stain scores what "all is gland" does, about 0.70 at most."""
    truth = drawn.masks > 0
    scores = [
        mean_dice((stain > threshold) == darker, truth)
        for stain in np.moveaxis(drawn.images, 1, 0)
        for threshold in range(0, 256, 16)
        for darker in (True, False)
    ]
    assert max(scores) < 0.73


def test_size_scales_the_picture() -> None:
    small = draw_glands("test", seed=1, size=32)
    assert small.images.shape == (60, 2, 32, 32)
    assert 0.4 < small.masks.mean() < 0.6


@pytest.mark.parametrize(("part", "size"), [("validation", 64), ("train", 8)])
def test_bad_arguments_are_named(part: str, size: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        draw_glands(part, size=size)  # type: ignore[arg-type]
