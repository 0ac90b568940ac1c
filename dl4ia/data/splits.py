"""Splitting training data into training and validation parts, before anything is augmented."""

import hashlib
from dataclasses import dataclass

import numpy as np

from dl4ia.errors import InputError

DEFAULT_PARTS = 5  # one part of five is validation: the report's 80/20


@dataclass(frozen=True)
class Split:
    """Indices into the training data: `train` and `validation` share none and cover all."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


def make_splits(strata: np.ndarray, folds: int, seed: int) -> tuple[Split, ...]:
    """`folds` cross-validation splits, or one 80/20 split where `folds` is 1.

    strata: (N,) a number per image that should be spread evenly. Images are sorted by it and each
        run of neighbours is dealt out, one to a part: in a new order for each run where it is a
        measure (float; the share of gland pixels), so that no part gets all the lower ones, and
        always in the same order where it is a class (int), so that any five neighbours, and so
        each class of five, are in all parts.
    Raises InputError where there are more folds, or parts, than images.
    """
    count = len(strata)
    if not 1 <= folds <= count:
        raise InputError(f"--folds {folds}: expected 1 to {count}, the number of training images")
    parts = DEFAULT_PARTS if folds == 1 else folds
    if count < parts:
        raise InputError(f"{count} training images: expected at least {parts}, one a part")
    generator = np.random.default_rng([seed, parts])
    order = np.lexsort((generator.random(count), strata))  # ties in random order
    are_classes = np.issubdtype(strata.dtype, np.integer)
    part_of = np.empty(count, dtype=int)
    dealt = generator.permutation(parts)
    for start in range(0, count, parts):
        run = order[start : start + parts]
        part_of[run] = dealt[: len(run)]
        if not are_classes:
            dealt = generator.permutation(parts)
    return tuple(
        Split(
            train=tuple(np.flatnonzero(part_of != part).tolist()),
            validation=tuple(np.flatnonzero(part_of == part).tolist()),
        )
        for part in range(folds)
    )


def fingerprint(splits: tuple[Split, ...]) -> str:
    """Sixteen hexadecimal digits of who is validated when."""
    return hashlib.sha256(repr(splits).encode()).hexdigest()[:16]
