from itertools import combinations

import numpy as np
import pytest

from dl4ia import statistics
from dl4ia.statistics import (
    Correction,
    Scores,
    bootstrap,
    effective_count,
    estimate,
    expected_best,
    interval_of_unanimous,
    one_sided_p,
)

STUDIES = 2000  # simulated; the share of 95 % has a standard error of half a per cent


def correlated_values(generator: np.random.Generator, correlation: float) -> np.ndarray:
    """(STUDIES, 5) values of mean 0.8 and SD 0.05, each row correlated among itself."""
    common = generator.normal(size=(STUDIES, 1)) * correlation**0.5
    own = generator.normal(size=(STUDIES, 5)) * (1 - correlation) ** 0.5
    return np.asarray(0.8 + 0.05 * (common + own))


def test_intervals_over_splits_cover_the_truth() -> None:
    """Values that share 1/5, as those of five 80/20 splits are taken to."""
    generator = np.random.default_rng(0)
    found = [estimate(list(row), held_out=0.25) for row in correlated_values(generator, 0.2)]
    assert 0.935 < np.mean([each.low <= 0.8 <= each.high for each in found]) < 0.965
    # Left uncorrected, the interval is too short.
    naive = [estimate(list(row), held_out=0.0) for row in correlated_values(generator, 0.2)]
    assert np.mean([each.low <= 0.8 <= each.high for each in naive]) < 0.88


def test_an_estimate_of_hand_made_values() -> None:
    found = estimate([0.7, 0.8, 0.9], held_out=0.25)
    assert found.mean == pytest.approx(0.8)
    assert found.deviation == pytest.approx(0.1)
    assert found.error == pytest.approx(0.1 * (1 / 3 + 1 / 4) ** 0.5)
    assert found.high - found.mean == pytest.approx(4.30265 * found.error, rel=1e-5)  # t, 2 df
    assert found.count == 3


def test_one_value_says_nothing_of_its_error() -> None:
    found = estimate([0.8], held_out=0.25)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert np.isnan(found.error)
    assert one_sided_p([0.3], held_out=0.25) == 1


def test_the_paired_test_errs_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    differences = correlated_values(generator, 0.2) - 0.8
    rejected = np.mean([one_sided_p(list(row), 0.25) < 0.05 for row in differences])
    assert 0.035 < rejected < 0.065
    assert one_sided_p([0.1, 0.1, 0.1], 0.25) < 1e-9
    assert one_sided_p([0.0, 0.0], 0.25) == 1
    assert one_sided_p([-0.1, -0.2, -0.15], 0.25) > 0.95


def scores_of(generator: np.random.Generator, patients: int, images: int, spread: float) -> Scores:
    """Five seeds on patients x images images; mean 0.8, with effects of all three."""
    by_patient = np.repeat(generator.normal(0, spread, patients), images)
    by_image = generator.normal(0, 0.1, patients * images)
    by_seed = generator.normal(0, 0.01, (5, 1))
    rest = generator.normal(0, 0.02, (5, patients * images))
    return Scores.of(0.8 + by_patient + by_image + by_seed + rest)


def percentiles(draws: np.ndarray) -> list[float]:
    """As they would be of things without number."""
    return np.quantile(draws, [0.025, 0.975]).tolist()


def correction_of(draws: np.ndarray, clusters: int, *scores: Scores) -> Correction:
    """Of clusters of one size."""
    return Correction.of(draws, np.ones(clusters), [each.by_seed() for each in scores])


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_intervals_over_test_images_cover_the_truth(spread: float) -> None:
    generator = np.random.default_rng(2)
    patients, images = 40, 2
    names = np.repeat([f"patient {number}" for number in range(patients)], images).tolist()
    clustered, plain = [], []
    for study in range(400):
        scores = scores_of(generator, patients, images, spread)
        for covered, clusters in ((clustered, names), (plain, None)):
            draws = bootstrap([scores], clusters, study, draws=400)[0]
            count = patients if clusters else patients * images
            low, high = correction_of(draws, count, scores).interval(draws)
            covered.append(low <= 0.8 <= high)
    assert 0.92 < np.mean(clustered) < 0.98
    if spread:  # patients differ: images drawn on their own make it too short
        assert np.mean(plain) < np.mean(clustered) - 0.04


@pytest.mark.parametrize(("patients", "at_least", "plain"), [(5, 0.89, 0.88), (9, 0.92, 0.93)])
def test_of_few_patients_the_draws_vary_too_little(
    patients: int, at_least: float, plain: float
) -> None:
    generator = np.random.default_rng(6)
    names = np.repeat([str(number) for number in range(patients)], 4).tolist()
    covered, by_draws_alone, probable = [], [], []
    for study in range(500):
        scores = scores_of(generator, patients, 4, 0.1)
        draws = bootstrap([scores], names, study, draws=400)[0]
        correction = correction_of(draws, patients, scores)
        for within, (low, high) in (
            (covered, correction.interval(draws)),
            (by_draws_alone, percentiles(draws)),
        ):
            within.append(low <= 0.8 <= high)
        probable.append(correction.one_minus_p(draws - 0.8))
    assert at_least < np.mean(covered) < 0.98
    assert np.mean(by_draws_alone) < min(plain, np.mean(covered))
    assert 0.02 < np.mean(np.array(probable) > 0.95) < 0.08


def test_of_patients_with_few_and_many_images_the_interval_is_wider() -> None:
    """As many as the course's test patients have."""
    sizes = [14, 12, 12, 8, 8, 2, 2, 1, 1]
    assert effective_count(sizes) == pytest.approx(60**2 / 622)
    assert effective_count([0.3] * 7) == pytest.approx(7)
    generator = np.random.default_rng(12)
    names = np.repeat([str(number) for number in range(9)], sizes)
    covered, as_if_equal, by_draws_alone = [], [], []
    for study in range(500):
        values = 0.8 + generator.normal(0, 0.1, 60) + generator.normal(0, 0.01, (5, 1))
        scores = Scores.of(values + np.repeat(generator.normal(0, 0.1, 9), sizes))
        draws = bootstrap([scores], names.tolist(), study, draws=400)[0]
        for within, (low, high) in (
            (covered, Correction.of(draws, sizes, [scores.by_seed()]).interval(draws)),
            (as_if_equal, correction_of(draws, 9, scores).interval(draws)),
            (by_draws_alone, percentiles(draws)),
        ):
            within.append(low <= 0.8 <= high)
    assert 0.93 < np.mean(covered) < 0.98
    assert np.mean(by_draws_alone) < 0.9
    assert np.mean(by_draws_alone) < np.mean(as_if_equal) < np.mean(covered)


def test_of_one_source_the_degrees_are_one_fewer() -> None:
    generator = np.random.default_rng(7)
    images = generator.normal(0.8, 0.1, 12)
    one = Scores.of(images)
    draws = bootstrap([one], None, 0)[0]
    assert correction_of(draws, 12, one).degrees == pytest.approx(11)
    seeds = Scores.of(np.repeat([[0.7], [0.8], [0.9]], 500, axis=1))
    draws = bootstrap([seeds], None, 0)[0]
    assert correction_of(draws, 500, seeds).degrees == pytest.approx(2, abs=0.1)


def test_of_four_patients_an_interval_would_be_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why there is none."""
    monkeypatch.setattr(statistics, "FEWEST_CLUSTERS", 4)
    generator, covered = np.random.default_rng(11), []
    names = np.repeat(list("abcd"), 4).tolist()
    for study in range(500):
        scores = scores_of(generator, 4, 4, 0.1)
        draws = bootstrap([scores], names, study, draws=400)[0]
        low, high = correction_of(draws, 4, scores).interval(draws)
        covered.append(low <= 0.8 <= high)
    assert 0.8 < np.mean(covered) < 0.9


def test_of_too_few_clusters_nothing_is_said() -> None:
    scores = Scores.of(np.random.default_rng(8).random((5, 4)))
    draws = bootstrap([scores], None, 0)[0]
    correction = correction_of(draws, 4, scores)
    assert np.isnan([*correction.interval(draws), correction.one_minus_p(draws)]).all()


def test_seeds_are_drawn_too() -> None:
    """Where all images score alike, the interval is that of the seeds."""
    scores = Scores.of(np.repeat([[0.7], [0.8], [0.9]], 20, axis=1))
    draws = bootstrap([scores], None, 0)[0]
    low, high = correction_of(draws, 20, scores).interval(draws)
    assert low == pytest.approx(0.7, abs=0.04)
    assert high == pytest.approx(0.9, abs=0.04)


def test_differences_are_paired_over_images() -> None:
    generator = np.random.default_rng(3)
    images = generator.normal(0.8, 0.1, 60)
    one = Scores.of(np.tile(images, (5, 1)))
    other = Scores.of(np.tile(images - 0.01, (5, 1)))
    first, second = bootstrap([one, other], None, 0)
    assert first - second == pytest.approx(0.01)
    assert correction_of(first - second, 60, one, other).one_minus_p(first - second) == 1
    assert np.std(first) > 0.005


def test_pooled_scores_are_ratios_of_sums() -> None:
    scores = Scores(np.array([[2.0, 0.0], [4.0, 4.0]]), np.array([[4.0, 4.0], [4.0, 12.0]]))
    assert scores.by_seed() == pytest.approx([0.25, 0.5])
    assert scores.mean() == pytest.approx(0.375)


def test_many_images_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).random((2, 30))
    whole = bootstrap([Scores.of(values)], None, 0, draws=3000)
    monkeypatch.setattr("dl4ia.statistics.LARGEST_DRAW", 100)  # three draws at once
    parts = bootstrap([Scores.of(values)], None, 0, draws=3000)
    assert np.isfinite(parts).all()
    assert percentiles(parts) == pytest.approx(percentiles(whole), abs=0.01)


def test_what_is_not_among_the_images_has_no_value() -> None:
    """The accuracy of a class that no test image is of."""
    nothing = Scores.of(np.zeros(6), np.zeros(6))
    assert np.isnan(nothing.mean())
    draws = bootstrap([nothing], None, 0)[0]
    assert np.isnan(correction_of(draws, 6, nothing).interval(draws)).all()
    some = Scores.of([1.0, 0, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 0])  # in some draws it is missing
    draws = bootstrap([some], None, 0)[0]
    assert np.isnan(draws).any() and correction_of(draws, 6, some).interval(draws) == (0, 1)


def test_how_probable_it_is_that_one_is_better() -> None:
    """Of draws that are normal it is the share above 0, but for the tails of t."""
    draws = np.random.default_rng(9).normal(0.1, 0.1, 100_000)
    assert Correction(1e6).one_minus_p(draws) == pytest.approx(np.mean(draws > 0), abs=0.005)
    assert 0.5 < Correction(3).one_minus_p(draws) < Correction(1e6).one_minus_p(draws) - 0.03
    assert Correction(3).one_minus_p(-draws) == pytest.approx(1 - Correction(3).one_minus_p(draws))
    for same, expected in ((0.0, 0.5), (0.1, 1.0), (-0.1, 0.0)):
        assert Correction(3).one_minus_p(np.full(9, same)) == expected


def test_draws_without_a_value_are_for_nobody() -> None:
    """As of a class that not every draw has an image of."""
    correction = Correction(9)
    assert correction.one_minus_p(np.array([0.1, np.nan, 0.2])) == correction.one_minus_p(
        np.array([0.1, 0.2])
    )
    assert np.isnan(correction.one_minus_p(np.array([np.nan])))


def test_the_expected_best_is_the_mean_over_all_subsets() -> None:
    values = [0.3, 0.9, 0.5, 0.5, 0.7]
    for size, found in enumerate(expected_best(values), start=1):
        subsets = [max(subset) for subset in combinations(values, size)]
        assert found == pytest.approx(np.mean(subsets))


def test_the_expected_best_is_unbiased() -> None:
    """The best of n uniform numbers is n / (n + 1) on average."""
    generator = np.random.default_rng(4)
    found = np.mean([expected_best(generator.random(8)) for _ in range(3000)], axis=0)
    assert found == pytest.approx([n / (n + 1) for n in range(1, 9)], abs=0.01)


def test_the_expected_best_of_many_trials_stays_finite() -> None:
    values = np.linspace(0, 1, 2000)
    found = expected_best(list(values))
    assert np.isfinite(found).all()
    assert found[-1] == pytest.approx(1)
    assert (np.diff(found) >= -1e-9).all()


def test_the_interval_of_unanimous_scores_is_exact() -> None:
    """Where one in so many is wrong, all of a sample are right in no more than 2.5 % of samples."""
    for count in (5, 360):
        low, high = interval_of_unanimous(1, np.ones(count))
        assert high == 1 and low**count == pytest.approx(0.025)
        assert interval_of_unanimous(0, np.ones(count)) == pytest.approx((0, 1 - low))


def test_values_all_alike_have_no_interval() -> None:
    assert not estimate([0.5, 0.5, 0.5], 0.25).has_interval
    assert not estimate([0.9965] * 5, 0.25).has_interval  # whose mean is rounded
    assert not estimate([0.5], 0.25).has_interval
    assert estimate([0.5, 0.6], 0.25).has_interval
    assert np.isnan(Correction(9).interval(np.full(9, 0.5))).all()
