"""Splitting training data into training and validation parts, before anything is augmented."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dl4ia.errors import InputError

DEFAULT_PARTS = 5  # one part of five is validation: the report's 80/20
MOST_BINS = 5  # of a measure, where whole groups are dealt out
DEALS = 4  # of groups at random, of which the most even is taken: of many always the same one


@dataclass(frozen=True)
class Split:
    """Indices into the training data: `train` and `validation` share none and cover all."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


def make_splits(
    strata: np.ndarray,
    folds: int,
    seed: int,
    groups: Sequence[str] | None = None,
    evenly: bool = True,
) -> tuple[Split, ...]:
    """`folds` cross-validation splits, or one 80/20 split where `folds` is 1.

    strata: (N,) a number per image that should be spread evenly. Images are sorted by it and each
        run of neighbours is dealt out, one to a part: in a new order for each run where it is a
        measure (float; the share of gland pixels), so that no part gets all the lower ones, and
        always in the same order where it is a class (int), so that any five neighbours, and so
        each class of five, are in all parts.
    groups: N names of whom each image is of. Where given, all images of one are in the same part;
        parts are then of unequal sizes, and the one split is at the part nearest to one fifth.
    evenly: how groups are dealt out. Of groups that differ much in size, other seeds then make the
        same parts or nearly the same; else the parts are less even, and others for each seed.
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
        classes = strata if _are_classes(strata) else _quantile_bins(strata, parts, generator)
        deal = _deal_groups_evenly if evenly else _deal_groups_at_random
        part_of = _numbered(deal(classes, groups, parts, generator), count, generator)
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


def _deal_groups_evenly(
    classes: np.ndarray, groups: Sequence[str], parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """The images of each part, whole groups, as even in (N,) `classes` as can be."""
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import

    dealer = StratifiedGroupKFold(parts, shuffle=True, random_state=int(generator.integers(2**31)))
    unstratified = np.zeros(len(classes), dtype=int)
    if np.bincount(classes).max() < parts:
        classes = unstratified  # scikit-learn refuses classes with fewer images than parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of some class with fewer images than parts
        dealt = [part for _, part in dealer.split(classes, classes, groups)]
    if not all(len(part) for part in dealt):
        # With hardly more groups than parts, rounding errors may leave a part empty
        # (scikit-learn issue 34828), but not where there is only one class.
        dealt = [part for _, part in dealer.split(unstratified, unstratified, groups)]
    return dealt


def _deal_groups_at_random(
    classes: np.ndarray, groups: Sequence[str], parts: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """As `_deal_groups_evenly`, which deals by size and so has hardly more than one deal.

    The best of a few: in each every group, in random order, goes where it disturbs least.
    """
    _, class_of = np.unique(classes, return_inverse=True)
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    images = np.zeros((group_of.max() + 1, class_of.max() + 1))
    np.add.at(images, (group_of, class_of), 1)
    # A row a group: its share of all images, and of the images of each class.
    shares = np.column_stack([images.sum(1) / images.sum(), images / images.sum(0)])
    deals = [_deal(shares, parts, generator) for _ in range(DEALS)]
    part_of, _ = min(deals, key=lambda deal: deal[1])
    return [np.flatnonzero(part_of[group_of] == part) for part in range(parts)]


def _deal(
    shares: np.ndarray, parts: int, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """(G,) the part of each group, and the sum of squares of what the parts hold.

    No part is empty, since an empty one is disturbed least.
    """
    held = np.zeros((parts, shares.shape[1]))
    part_of = np.empty(len(shares), dtype=int)
    for group in generator.permutation(len(shares)):
        part_of[group] = np.argmin(held @ shares[group])  # of what the sum of squares grows by
        held[part_of[group]] += shares[group]
    return part_of, float((held**2).sum())


def _numbered(dealt: list[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) the part of each image, of images dealt into parts; 0 is the nearest to N / parts."""
    parts = len(dealt)
    # The largest group comes first: its part would always be the one to be validated.
    dealt = [dealt[index] for index in generator.permutation(parts)]
    dealt.sort(key=lambda part: abs(len(part) - count / parts))
    part_of = np.empty(count, dtype=int)
    for number, part in enumerate(dealt):
        part_of[part] = number
    return part_of


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
