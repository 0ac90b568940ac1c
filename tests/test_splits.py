"""Splits share nothing, cover everything, and spread the strata evenly."""

import numpy as np
import pytest

from dl4ia.data.splits import fingerprint, make_splits
from dl4ia.errors import InputError

STRATA = np.random.default_rng(0).beta(2, 2, 85)


@pytest.mark.parametrize("folds", [1, 2, 5, 7, 85])
def test_parts_share_nothing_and_cover_all(folds: int) -> None:
    splits = make_splits(STRATA, folds, seed=0)
    assert len(splits) == folds
    for split in splits:
        assert not set(split.train) & set(split.validation)
        assert sorted(split.train + split.validation) == list(range(85))


def test_one_split_is_the_reports_80_to_20() -> None:
    (split,) = make_splits(STRATA, 1, seed=0)
    assert (len(split.train), len(split.validation)) == (68, 17)


@pytest.mark.parametrize("folds", [2, 5, 7, 85])
def test_folds_validate_each_image_once_in_parts_of_like_size(folds: int) -> None:
    splits = make_splits(STRATA, folds, seed=0)
    assert sorted(index for split in splits for index in split.validation) == list(range(85))
    sizes = [len(split.validation) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_strata_are_spread() -> None:
    """Parts dealt at random would differ by about STRATA.std() / sqrt(17) = 0.05."""
    for seed in range(20):
        for split in make_splits(STRATA, 5, seed):
            assert STRATA[list(split.validation)].mean() == pytest.approx(STRATA.mean(), abs=0.02)


def test_classes_are_spread() -> None:
    classes = np.arange(100) % 10
    for split in make_splits(classes, 5, seed=0):
        assert sorted(classes[list(split.validation)]) == sorted(list(range(10)) * 2)


def test_a_seed_always_splits_the_same() -> None:
    assert make_splits(STRATA, 5, seed=3) == make_splits(STRATA, 5, seed=3)


def test_another_seed_splits_differently() -> None:
    first, second = make_splits(STRATA, 5, seed=3), make_splits(STRATA, 5, seed=4)
    assert first != second
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(first) == fingerprint(make_splits(STRATA, 5, seed=3))


def test_ties_are_split_by_the_seed() -> None:
    equal = np.zeros(20)
    assert make_splits(equal, 1, seed=0) != make_splits(equal, 1, seed=1)


@pytest.mark.parametrize("folds", [-1, 0, 86])
def test_impossible_folds_are_refused(folds: int) -> None:
    with pytest.raises(InputError, match=f"--folds {folds}: expected 1 to 85"):
        make_splits(STRATA, folds, seed=0)


def test_every_class_of_five_is_in_every_part() -> None:
    """However many images the others have: a class is an int, and is dealt round and round."""
    classes = np.repeat([0, 1, 2], [7, 5, 6])
    for seed in range(100):
        for split in make_splits(classes, 5, seed):
            assert set(classes[list(split.validation)]) == {0, 1, 2}


def test_no_part_gets_all_the_lower_shares() -> None:
    """Of a measure, the order in which a run is dealt changes from run to run."""
    means = [
        [shares[list(split.validation)].mean() for split in make_splits(shares, 5, seed)]
        for seed in range(50)
        for shares in [np.sort(np.random.default_rng(seed).random(100))]
    ]
    ranks = np.argsort(np.argsort(means, axis=1), axis=1).mean(0)
    assert np.abs(ranks - 2).max() < 0.8
