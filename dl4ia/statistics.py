"""How far a number can be trusted: intervals over splits, over test images, and over budgets.

Pure functions of numbers, tested against simulations with known answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, ndtr, stdtr, stdtrit  # scipy.stats takes a second to import

CONFIDENCE = 0.95
DRAWS = 4000  # of a bootstrap: the ends of a 95 % interval then move by a hundredth of it
FEWEST_CLUSTERS = 5  # for an interval
EXACTNESS = 1e-12  # relative: below it a deviation is of rounding alone
LARGEST_DRAW = 1 << 22  # numbers at once


@dataclass(frozen=True)
class Estimate:
    """A mean over splits, with what is known of its error.

    deviation: standard deviation (n - 1) of the values; NaN of one value.
    error: standard error of the mean, for values whose training parts overlap; NaN of one value.
    low, high: 95 % confidence interval; infinite of one value.
    alike: whether all values are the same, which then say nothing of how they vary.
    """

    mean: float
    deviation: float
    error: float
    low: float
    high: float
    count: int
    alike: bool = False

    @property
    def has_interval(self) -> bool:
        """Not of one value, nor of values all alike."""
        return self.count > 1 and not self.alike

    def within(self, lowest: float, highest: float) -> "Estimate":
        """The same, its interval cut off at the least and the largest that there can be."""
        return replace(self, low=max(self.low, lowest), high=min(self.high, highest))


def estimate(values: Sequence[float], held_out: float, step: float = 0.0) -> Estimate:
    """The mean of `values`, one a split, each of a model that was trained on the rest.

    held_out: size of a validation part over that of the training part (0.25 for 80/20).
    step: of values that are shares of images, what one image more or less changes them by: those
        within half of it are alike, as 4 errors of 287 images and of 288 are.

    The trainings share images, so that their values vary together and SD/√n is too small. The
    corrected resampled t-test (Nadeau and Bengio 2003, Machine Learning 52; for cross-validation
    Bouckaert and Frank 2004) takes the correlation to be the share that is held out:
    error² = (1/n + held_out) SD², with n - 1 degrees of freedom.
    """
    count = len(values)
    mean = float(np.mean(values))
    if count == 1:
        return Estimate(mean, np.nan, np.nan, -np.inf, np.inf, 1)
    deviation = float(np.std(values, ddof=1))
    error = deviation * (1 / count + held_out) ** 0.5
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    alike = float(np.ptp(values)) < step / 2 or _is_rounding(deviation, mean)
    return Estimate(mean, deviation, error, mean - reach, mean + reach, count, alike)


def one_sided_p(differences: Sequence[float], held_out: float, step: float = 0.0) -> float:
    """One-sided p of "the mean difference is not above 0", paired over splits.

    1 of one value, and of shares of images that are alike (`step` is that of `estimate`): twice as
    many errors more is no sign of how they vary.
    """
    found = estimate(differences, held_out, step)
    if found.count == 1 or (step and found.alike):
        return 1.0
    if found.error == 0:
        return 0.0 if found.mean > 0 else 1.0
    return float(stdtr(found.count - 1, -found.mean / found.error))


@dataclass(frozen=True)
class Scores:
    """A metric of models from several seeds on the same images, as sums over images.

    numerator, denominator: (S, N) float64 of S seeds and N images. A seed's value is the ratio of
    their sums: for a mean over images the denominators are 1; for the Dice pooled over pixels they
    are twice the common pixels, and the pixels of both masks.
    """

    numerator: np.ndarray
    denominator: np.ndarray

    @staticmethod
    def of(numerator: ArrayLike, denominator: ArrayLike = 1.0) -> "Scores":
        """Of one seed: (N,) numbers; of a metric that is a mean over images, its values alone."""
        above = np.atleast_2d(np.asarray(numerator, dtype=float))
        return Scores(above, np.broadcast_to(np.asarray(denominator, dtype=float), above.shape))

    @staticmethod
    def of_seeds(scores: "Sequence[Scores]") -> "Scores":
        """All seeds' in one."""
        return Scores(
            np.concatenate([each.numerator for each in scores]),
            np.concatenate([each.denominator for each in scores]),
        )

    def by_seed(self) -> np.ndarray:
        """(S,) values; NaN where the denominators are all 0."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.numerator.sum(1) / self.denominator.sum(1))

    def mean(self) -> float:
        """The mean over seeds."""
        return float(self.by_seed().mean())


def bootstrap(
    scores: Sequence[Scores], clusters: Sequence[str] | None, seed: int, draws: int = DRAWS
) -> np.ndarray:
    """(len(scores), draws) means over seeds, of images and seeds drawn with replacement.

    Every draw takes the same images for all `scores` (of one test set), so that differences are
    paired; seeds are drawn for each on their own. Images of one cluster (a patient) are drawn
    together. Drawing both at once is Owen's (2007) bootstrap of crossed random effects; of few
    images or seeds the draws vary too little, which `Correction` makes good, but for two
    seeds: no draw lies outside of these.
    """
    generator = np.random.default_rng(seed)
    images = scores[0].numerator.shape[1]
    if clusters is None:
        cluster_of, count = np.arange(images), images
    else:
        names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
        count = len(names)
    values = np.empty((len(scores), draws))
    at_once = max(1, LARGEST_DRAW // images)
    for start in range(0, draws, at_once):
        part = slice(start, min(start + at_once, draws))
        size = part.stop - start
        drawn = generator.multinomial(count, np.full(count, 1 / count), size)
        times = drawn[:, cluster_of].astype(float)  # (size, N): how often each image is taken
        for row, each in zip(values, scores, strict=True):
            with np.errstate(invalid="ignore"):
                ratios = (times @ each.numerator.T) / (times @ each.denominator.T)  # (size, S)
            seeds = ratios.shape[1]
            chosen = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size)
            row[part] = (ratios * chosen).sum(1) / seeds
    return values


def difference(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """first - second; 0 where they differ by rounding alone, as sums in another order do."""
    ours, theirs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return np.where(np.isclose(ours, theirs, rtol=EXACTNESS, atol=0), 0.0, ours - theirs)


@dataclass(frozen=True)
class Correction:
    """What a bootstrap's intervals and p are widened by, for few things are drawn from.

    Of n independent things the draws have (n - 1) / n of the variance of their mean, and know
    nothing of the tails that a t distribution has for want of a known variance. Both are made good
    at the level of quantiles, as Hesterberg has it (2015, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69, section 5.3: the expanded percentile interval), so
    that no end lies outside of what was drawn. Clusters of unequal sizes count as `effective_count`
    has it.

    degrees: of freedom of the t distribution, n - 1; of several sources of variance those of
        Satterthwaite (1946). 0 where there are too few clusters to say anything: of four the
        interval that claims 95 % covers 88 % (benchmarks/coverage.py simulates it).
    """

    degrees: float

    @staticmethod
    def of(draws: np.ndarray, sizes: ArrayLike, by_seed: Sequence[np.ndarray]) -> "Correction":
        """That of means of which `draws` are, over clusters and the seeds of `by_seed`.

        sizes: what each cluster weighs in the mean. by_seed: the seeds' values; of a difference
        those of both sides.
        """
        if np.size(sizes) < FEWEST_CLUSTERS:
            return Correction(0.0)
        clusters = effective_count(sizes)
        several = [values for values in by_seed if len(values) > 1 and np.isfinite(values).all()]
        of_seeds = [(float(np.var(values)) / len(values), len(values)) for values in several]
        known = draws[~np.isnan(draws)]
        total = float(np.var(known)) if len(known) else 0.0
        of_clusters = max(total - sum(variance for variance, _ in of_seeds), 0.0)
        sources = [
            (variance * count / (count - 1), count - 1)
            for variance, count in [(of_clusters, clusters), *of_seeds]
        ]
        whole = sum(variance for variance, _ in sources)
        if whole == 0:
            return Correction(clusters - 1)
        return Correction(whole**2 / sum(variance**2 / degrees for variance, degrees in sources))

    @property
    def _short(self) -> float:
        """By how much a standard deviation of draws is too small."""
        return (self.degrees / (self.degrees + 1)) ** 0.5

    def interval(self, draws: np.ndarray) -> tuple[float, float]:
        """95 %, as percentiles of the draws; NaN where these say nothing, as when all alike."""
        known = draws[~np.isnan(draws)]
        if not len(known) or not self.degrees:
            return np.nan, np.nan
        if _is_rounding(float(known.std()), float(known.mean())):
            return np.nan, np.nan
        tail = ndtr(stdtrit(self.degrees, (1 - CONFIDENCE) / 2) / self._short)
        low, high = np.quantile(known, [tail, 1 - tail])
        return float(low), float(high)

    def one_minus_p(self, draws: np.ndarray) -> float:
        """One minus the p of "what `draws` are of is not above 0"; NaN where nothing can be said.

        Of a one-sided t-test with the draws' standard deviation. NaN draws count not at all.
        """
        known = draws[~np.isnan(draws)]
        if not len(known) or not self.degrees:
            return np.nan
        mean, deviation = float(known.mean()), float(known.std())
        if _is_rounding(deviation, mean):
            return float((np.sign(mean) + 1) / 2)
        return float(stdtr(self.degrees, mean / deviation * self._short))


def _is_rounding(deviation: float, mean: float) -> bool:
    """Whether values of this deviation are all alike."""
    return deviation <= abs(mean) * EXACTNESS


def effective_count(sizes: ArrayLike) -> float:
    """How many things of one size a mean over things of these `sizes` is as exact as.

    (Σ n)² / Σ n², Kish's effective sample size (1965, "Survey Sampling"): nine patients of 14, 12,
    12, 8, 8, 2, 2, 1 and 1 images are as 5.8.
    """
    weights = np.asarray(sizes, dtype=float)
    return float(weights.sum() ** 2 / (weights**2).sum())


def interval_of_unanimous(share: float, sizes: ArrayLike) -> tuple[float, float]:
    """95 % interval of a share between 0 and 1 that each cluster of `sizes` has as 0, or as 1.

    Of such scores a bootstrap's draws are all alike. Clopper and Pearson (1934) for no failure, or
    no success: with 360 images all right, more than one in a hundred may still be wrong. NaN of too
    few clusters, as `Correction.interval` has it.
    """
    if np.size(sizes) < FEWEST_CLUSTERS:
        return np.nan, np.nan
    reach = 1 - ((1 - CONFIDENCE) / 2) ** (1 / effective_count(sizes))
    return (1 - reach, 1.0) if share == 1 else (0.0, reach)


def expected_best(values: Sequence[float]) -> np.ndarray:
    """(N,) the expected best of n = 1 … N random trials, from the values of N of them.

    The mean of the maximum over all subsets of n, Σ_i x_(i) C(i - 1, n - 1) / C(N, n): unbiased,
    unlike the maximum of n draws with replacement (Dodge et al. 2019), which is too low (Tang et
    al. 2020, "Showing your work doesn't always work").
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    count = len(ordered)
    rank = np.arange(1, count + 1)
    best = np.empty(count)
    for size in range(1, count + 1):
        ranks = rank[size - 1 :]
        weights = np.exp(_log_choose(ranks - 1, size - 1) - _log_choose(count, size))
        best[size - 1] = weights @ ordered[size - 1 :]
    return best


def _log_choose(whole: "np.ndarray | int", part: int) -> np.ndarray:
    whole = np.asarray(whole, dtype=float)
    return np.asarray(gammaln(whole + 1) - gammaln(part + 1.0) - gammaln(whole - part + 1))
