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


def cohort(seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Measures and patients of 8 to 30 patients, 1 to 20 images each, who differ in the measure."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, generator.integers(2, 21), generator.integers(8, 31))
    patients = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    measure = generator.normal(size=len(counts))[patients] + generator.normal(size=len(patients))
    return measure, tuple(f"patient {number}" for number in patients)


@pytest.mark.parametrize("folds", [1, 2, 5, 8])
@pytest.mark.parametrize("stratify", ["measure", "class", "class of each patient", "nothing"])
@pytest.mark.parametrize("evenly", [True, False])
def test_groups_are_kept_together(folds: int, stratify: str, evenly: bool) -> None:
    parts = 5 if folds == 1 else folds
    for seed in range(25):
        measure, groups = cohort(seed)
        _, group_of = np.unique(groups, return_inverse=True)
        strata = {
            "measure": measure,
            "class": (measure > 1).astype(int) + (measure > 0),
            "class of each patient": group_of % 3,
            "nothing": np.zeros(len(measure), int),
        }[stratify]
        splits = make_splits(strata, folds, seed, groups, evenly)
        assert len(splits) == folds
        assert splits == make_splits(strata, folds, seed, groups, evenly)
        for split in splits:
            trained, validated = (
                {groups[index] for index in part} for part in (split.train, split.validation)
            )
            assert not trained & validated
            assert trained | validated == set(groups)
            assert sorted(split.train + split.validation) == list(range(len(groups)))
        sizes = np.array([len(split.validation) for split in splits])
        assert sizes.min() > 0
        largest = np.bincount(group_of).max()
        assert sizes.max() <= len(groups) / parts + (1 if evenly else 2) * largest
        if folds > 1:
            assert sizes.sum() == len(groups)


def test_one_split_is_at_the_part_nearest_to_a_fifth() -> None:
    """Not at the part of the patient with half of all images."""
    groups = ("large",) * 40 + tuple(str(number // 4) for number in range(40))
    measure = np.random.default_rng(0).random(80)
    for seed in range(20):
        (split,) = make_splits(measure, 1, seed, groups)
        assert 8 <= len(split.validation) <= 12


def test_strata_are_spread_over_groups() -> None:
    """Means of parts dealt at random would differ by sqrt(4 / 3 / 20 * 4 / 5) = 0.23."""
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), 3)
    measure = generator.normal(size=100)[patients] + generator.normal(size=300)
    groups = tuple(map(str, patients))
    splits = [split for seed in range(10) for split in make_splits(measure, 5, seed, groups)]
    assert all(57 <= len(split.validation) <= 63 for split in splits)
    assert np.std([measure[list(split.validation)].mean() for split in splits]) < 0.1


def test_another_seed_splits_groups_of_like_size_differently() -> None:
    groups = tuple(str(number // 3) for number in range(85))
    assert len({make_splits(STRATA, 1, seed, groups) for seed in range(20)}) > 10


@pytest.mark.parametrize("patients", [8, 10, 16, 30])
def test_at_random_groups_of_unequal_size_are_split_differently(patients: int) -> None:
    """Dealt evenly, which scikit-learn does by size, they would hardly ever be."""
    for draw in range(5):
        generator = np.random.default_rng([patients, draw])
        groups = np.repeat(np.arange(patients), generator.integers(1, 12, patients)).astype(str)
        measure = generator.random(len(groups))
        found = {
            frozenset(split.validation for split in splits)
            for seed in range(20)
            for splits in [make_splits(measure, 5, seed, tuple(groups), evenly=False)]
        }
        assert len(found) > 5


def test_of_hardly_more_groups_than_parts_every_one_may_be_validated() -> None:
    groups = tuple(np.repeat(list("ABCDEF"), 4))
    found = [
        make_splits(np.arange(24.0), 1, seed, groups, evenly=False)[0].validation
        for seed in range(50)
    ]
    assert {groups[index] for validation in found for index in validation} == set("ABCDEF")


@pytest.mark.parametrize("folds", [5, 1])
def test_as_many_groups_as_parts_leave_no_part_empty(folds: int) -> None:
    """Here scikit-learn's own does: its issue 34828."""
    groups = tuple(np.repeat(list("ABCDE"), [5, 1, 5, 5, 5]))
    for seed in range(10):
        splits = make_splits(np.arange(21.0), folds, seed, groups)
        assert all(len({groups[index] for index in split.validation}) == 1 for split in splits)


def test_classes_smaller_than_the_parts_are_split_by_group() -> None:
    splits = make_splits(np.arange(12) % 6, 4, 0, tuple("aabbccddeeff"))
    assert sorted(index for split in splits for index in split.validation) == list(range(12))


@pytest.mark.parametrize(
    ("folds", "groups", "told"),
    [
        (1, "aabbccddaabb", "are of 4 patients; expected at least 5, .*: give --folds 4, or --sp"),
        (5, "aabbccddaabb", "are of 4 patients; expected at least 5, .*: give --folds 4, or --sp"),
        (2, "aaaaaaaaaaaa", "are of 1 patient; expected at least 2, one a part: give --split-by i"),
    ],
)
def test_too_few_groups_are_told(folds: int, groups: str, told: str) -> None:
    with pytest.raises(
        InputError, match=f"--split-by patient: the training images {told}"
    ) as refused:
        make_splits(np.arange(12.0), folds, 0, tuple(groups))
    assert "\n" not in str(refused.value)


def test_without_groups_splits_are_what_they_were() -> None:
    """Studies recorded before there were groups go on: their fingerprints."""
    assert fingerprint(make_splits(STRATA, 1, seed=0)) == "70bfd67730c7c59f"
    assert fingerprint(make_splits(STRATA, 5, seed=3)) == "b107131ac7621e99"
    assert fingerprint(make_splits(np.arange(100) % 10, 1, seed=0)) == "492263317095af51"
