"""How often a test score's 95 % interval holds the truth, in simulations of few patients or seeds.

    python benchmarks/coverage.py

Prints the share of simulated studies whose interval covers the true mean: over few patients, as
`dl4ia.statistics.Reach` widens the draws of the bootstrap and by their percentiles alone; and over
few seeds that differ more than the images' mean does, of a score and of a difference. A minute.
"""

import argparse

import numpy as np

from dl4ia import statistics
from dl4ia.statistics import Reach, Scores, bootstrap

DRAWS, TRUTH = 400, 0.8
PATIENTS, IMAGES_A_PATIENT, SEEDS = (4, 5, 9), 4, (2, 3, 5)
IMAGES, SEED_DEVIATION = 200, 0.003
IMAGE_DEVIATION = 0.001 * IMAGES**0.5  # so that their mean has a standard error of 0.001


def covers(interval: tuple[float, float], truth: float) -> bool:
    low, high = interval
    return low <= truth <= high


def of_patients(patients: int, studies: int) -> tuple[float, float]:
    """Coverage as it is, and by percentiles; patients, images, seeds and the rest all vary."""
    generator = np.random.default_rng(patients)
    names = np.repeat([str(number) for number in range(patients)], IMAGES_A_PATIENT).tolist()
    found = []
    for study in range(studies):
        values = (
            TRUTH
            + np.repeat(generator.normal(0, 0.1, patients), IMAGES_A_PATIENT)
            + generator.normal(0, 0.1, len(names))
            + generator.normal(0, 0.01, (5, 1))
            + generator.normal(0, 0.02, (5, len(names)))
        )
        scores = Scores.of(values)
        draws = bootstrap([scores], names, study, DRAWS)[0]
        low, high = np.quantile(draws, [0.025, 0.975])
        reach = Reach.of(draws, patients, [scores.by_seed()])
        found.append((covers(reach.interval(draws), TRUTH), covers((low, high), TRUTH)))
    widened, plain = np.mean(found, axis=0)
    return float(widened), float(plain)


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
        score = Reach.of(ours, IMAGES, by_seed[:1]).interval(ours)
        difference = Reach.of(ours - theirs, IMAGES, by_seed).interval(ours - theirs)
        found.append((covers(score, TRUTH), covers(difference, 0.0)))
    of_score, of_difference = np.mean(found, axis=0)
    return float(of_score), float(of_difference)


def main() -> None:
    """Print a line for each number of patients, and of seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--studies", type=int, default=2000, help="simulated (default: %(default)s)"
    )
    studies = parser.parse_args().studies
    statistics.FEWEST_CLUSTERS = min(PATIENTS)  # what is refused for its coverage is shown too
    for patients in PATIENTS:
        widened, plain = of_patients(patients, studies)
        print(f"{patients} patients: {widened:.1%}; by percentiles alone {plain:.1%}", flush=True)
    for seeds in SEEDS:
        of_score, of_difference = of_seeds(seeds, studies)
        print(f"{seeds} seeds: {of_score:.1%}, a difference {of_difference:.1%}", flush=True)


if __name__ == "__main__":
    main()
