"""How often a test score's 95 % interval holds the truth, in simulations of few patients or seeds.

    python benchmarks/coverage.py

Prints the share of simulated studies whose interval covers the true mean: over few patients, of
four images each and as the course's test set has them, as `Correction` widens the draws
of the bootstrap and by their percentiles alone, and how many times as wide it makes them; and over
few seeds that differ more than the images' mean does, of a score and of a difference. A minute.
"""

from collections.abc import Sequence

import numpy as np
from flags import parser_of

from dl4ia import statistics
from dl4ia.statistics import Correction, Scores, bootstrap

DRAWS, TRUTH = 400, 0.8
PATIENTS = ((4,) * 4, (4,) * 5, (4,) * 9, (14, 12, 12, 8, 8, 2, 2, 1, 1))  # images of each
SEEDS = (2, 3, 5)
IMAGES, SEED_DEVIATION = 200, 0.003
IMAGE_DEVIATION = 0.001 * IMAGES**0.5  # so that their mean has a standard error of 0.001


def covers(interval: tuple[float, float], truth: float) -> bool:
    low, high = interval
    return low <= truth <= high


def of_patients(sizes: Sequence[int], studies: int) -> tuple[float, float, float]:
    """Coverage as it is, and by percentiles; and the ratio of the mean widths.

    Patients, images, seeds and the rest all vary.
    """
    patients = len(sizes)
    generator = np.random.default_rng(patients)
    names = np.repeat([str(number) for number in range(patients)], sizes).tolist()
    found, widths = [], []
    for study in range(studies):
        values = (
            TRUTH
            + np.repeat(generator.normal(0, 0.1, patients), sizes)
            + generator.normal(0, 0.1, len(names))
            + generator.normal(0, 0.01, (5, 1))
            + generator.normal(0, 0.02, (5, len(names)))
        )
        scores = Scores.of(values)
        draws = bootstrap([scores], names, study, DRAWS)[0]
        low, high = np.quantile(draws, [0.025, 0.975])
        interval = Correction.of(draws, sizes, [scores.by_seed()]).interval(draws)
        found.append((covers(interval, TRUTH), covers((low, high), TRUTH)))
        widths.append((interval[1] - interval[0], high - low))
    widened, plain = np.mean(found, axis=0)
    width, plain_width = np.mean(widths, axis=0)
    return float(widened), float(plain), float(width / plain_width)


def of_seeds(seeds: int, studies: int) -> tuple[float, float]:
    """Coverage of a score's interval, and of a difference's whose truth is 0."""
    generator = np.random.default_rng(seeds)
    found = []
    for study in range(studies):
        images = generator.normal(0, IMAGE_DEVIATION, IMAGES)  # as hard for both
        pair = [
            Scores.of(TRUTH + images + generator.normal(0, SEED_DEVIATION, (seeds, 1)))
            for _ in range(2)
        ]
        ours, theirs = bootstrap(pair, None, study, DRAWS)
        by_seed = [each.by_seed() for each in pair]
        sizes = np.ones(IMAGES)
        score = Correction.of(ours, sizes, by_seed[:1]).interval(ours)
        difference = Correction.of(ours - theirs, sizes, by_seed).interval(ours - theirs)
        found.append((covers(score, TRUTH), covers(difference, 0.0)))
    of_score, of_difference = np.mean(found, axis=0)
    return float(of_score), float(of_difference)


def main() -> None:
    """Print a line for each number of patients, and of seeds."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--studies", type=int, default=2000, help="simulated (default: %(default)s)"
    )
    studies = parser.parse_args().studies
    statistics.FEWEST_CLUSTERS = 4  # what is refused for its coverage is shown too
    for sizes in PATIENTS:
        widened, plain, times = of_patients(sizes, studies)
        print(
            f"{len(sizes)} patients with {min(sizes)} to {max(sizes)} images: {widened:.1%}; by "
            f"percentiles alone {plain:.1%}, {times:.2f} times as narrow",
            flush=True,
        )
    for seeds in SEEDS:
        of_score, of_difference = of_seeds(seeds, studies)
        print(f"{seeds} seeds: {of_score:.1%}, a difference {of_difference:.1%}", flush=True)


if __name__ == "__main__":
    main()
