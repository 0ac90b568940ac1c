"""Splitting training data into training and validation parts, before anything is augmented."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dl4ia.errors import InputError

DEFAULT_PARTS = 5  # one part of five is validation: the report's 80/20
MOST_BINS = 5  # of a measure, where whole groups are dealt out
DEALS = 4  # of groups, of which the most even is taken: of many it would always be the same


@dataclass(frozen=True)
class Split:
    """Indices into the training data: `train` and `validation` share none and cover all."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


def make_splits(
    strata: np.ndarray, folds: int, seed: int, groups: Sequence[str] | None = None
) -> tuple[Split, ...]:
    """`folds` cross-validation splits, or one 80/20 split where `folds` is 1.

    strata: (N,) a number per image that should be spread evenly. Images are sorted by it and each
        run of neighbours is dealt out, one to a part: in a new order for each run where it is a
        measure (float; the share of gland pixels), so that no part gets all the lower ones, and
        always in the same order where it is a class (int), so that any five neighbours, and so
        each class of five, are in all parts.
    groups: N names of whom each image is of. Where given, all images of one are in the same part;
        parts are then of unequal sizes, and the one split is at the part nearest to one fifth.
        Of hardly more groups than parts there are few ways to deal them out.
    Raises InputError where there are more folds, or parts, than images or groups.
    """
    count = len(strata)
    if not 1 <= folds <= count:
        raise InputError(f"--folds {folds}: expected 1 to {count}, the number of training images")
    parts = DEFAULT_PARTS if folds == 1 else folds
    if count < parts:
        raise InputError(f"{count} training images: expected at least {parts}, one a part")
    generator = np.random.default_rng([seed, parts])
    if groups is None:
        part_of = _deal_images(strata, parts, generator)
    else:
        _check_groups(len(set(groups)), parts)
        part_of = _deal_groups(strata, groups, parts, generator)
    return tuple(
        Split(
            train=tuple(np.flatnonzero(part_of != part).tolist()),
            validation=tuple(np.flatnonzero(part_of == part).tolist()),
        )
        for part in range(folds)
    )


def _deal_images(strata: np.ndarray, parts: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) the part of each image."""
    count = len(strata)
    order = np.lexsort((generator.random(count), strata))  # ties in random order
    are_classes = _are_classes(strata)
    part_of = np.empty(count, dtype=int)
    dealt = generator.permutation(parts)
    for start in range(0, count, parts):
        run = order[start : start + parts]
        part_of[run] = dealt[: len(run)]
        if not are_classes:
            dealt = generator.permutation(parts)
    return part_of


def _check_groups(count: int, parts: int) -> None:
    if count < parts:
        fewer_folds = f"--folds {count}, or " if count > 1 else ""
        raise InputError(
            f"--split-by patient: the training images are of {count} "
            f"patient{'' if count == 1 else 's'}; expected at least {parts}, one a part: give "
            f"{fewer_folds}--split-by image"
        )


def _deal_groups(
    strata: np.ndarray, groups: Sequence[str], parts: int, generator: np.random.Generator
) -> np.ndarray:
    """(N,) the part of each image, that of its group; part 0 is the nearest to N / parts images.

    The best of a few deals, in each of which every group in turn, in random order, goes where it
    disturbs least. scikit-learn's StratifiedGroupKFold deals by size, so that of groups of unequal
    sizes it has one deal and no other, whatever the seed.
    """
    count = len(strata)
    classes = strata if _are_classes(strata) else _quantile_bins(strata, parts, generator)
    _, class_of = np.unique(classes, return_inverse=True)
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    images = np.zeros((group_of.max() + 1, class_of.max() + 1))
    np.add.at(images, (group_of, class_of), 1)
    # A row a group: its share of all images, and of the images of each class.
    shares = np.column_stack([images.sum(1) / count, images / images.sum(0)])
    deals = [_deal(shares, parts, generator) for _ in range(DEALS)]
    dealt = min(deals, key=lambda deal: _unevenness(shares, deal, parts))[group_of]
    sizes = np.bincount(dealt, minlength=parts)
    # The largest group's part is no more likely than others to be the one that is validated.
    order = generator.permutation(parts)
    order = order[np.argsort(np.abs(sizes[order] - count / parts), kind="stable")]
    part_of = np.empty(parts, dtype=int)
    part_of[order] = np.arange(parts)
    return part_of[dealt]


def _deal(shares: np.ndarray, parts: int, generator: np.random.Generator) -> np.ndarray:
    """(G,) the part of each group; none is empty, since an empty one is disturbed least."""
    held = np.zeros((parts, shares.shape[1]))
    part_of = np.empty(len(shares), dtype=int)
    for group in generator.permutation(len(shares)):
        part_of[group] = np.argmin(held @ shares[group])  # of what the sum of squares grows by
        held[part_of[group]] += shares[group]
    return part_of


def _unevenness(shares: np.ndarray, part_of: np.ndarray, parts: int) -> float:
    """The sum of squares of what the parts have of all images, and of each class."""
    held = np.zeros((parts, shares.shape[1]))
    np.add.at(held, part_of, shares)
    return float((held**2).sum())


def _quantile_bins(measure: np.ndarray, parts: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) classes of like size, of at least one image a part, from low to high."""
    count = len(measure)
    order = np.lexsort((generator.random(count), measure))
    bins = np.empty(count, dtype=int)
    bins[order] = np.arange(count) * min(MOST_BINS, count // parts) // count
    return bins


def _are_classes(strata: np.ndarray) -> bool:
    return np.issubdtype(strata.dtype, np.integer)


def fingerprint(splits: tuple[Split, ...]) -> str:
    """Sixteen hexadecimal digits of who is validated when."""
    return hashlib.sha256(repr(splits).encode()).hexdigest()[:16]
