"""Does the epoch in which pruning decides tell what a trial will come to? The rank correlation.

    python benchmarks/pruning_signal.py digits --data data --out DIR  # MNIST
    python benchmarks/pruning_signal.py glands --out DIR  # the drawn glands

Of MNIST the training images 4,000 to 8,000 are taken, others than search_strategies.py's. Half of
the points are random ones of the space, half random neighbours of its last reference model. Each is
trained to its end, and once more as far as the epoch in which pruning decides, which is scored by a
mean of the weights over the last steps, as a study scores it; a training's own weights are the
peer. Prints Spearman's rank correlation of both with the value at the end, over all points and over
their better half, in which a study's pruning decides, and how many of the best five go on where the
best quarter does. Trainings are kept in --out: the same command goes on where it was, and shares
the work where it runs several times at once. Takes half an hour on one thread. The test images are
not read.
"""

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from flags import add_record, parser_of
from kept import made_by, make_missing, read
from materials import open_task
from search_strategies import EPOCHS
from table import record

from dl4ia.environment import tune_process

POINTS, KEPT = 32, 0.7  # of a neighbour's hyperparameters, as many stay
IMAGES = range(4000, 8000)  # of MNIST
BEST = 5


def draw_points(searched: Any, count: int) -> list[dict[str, Any]]:
    """Random points and neighbours of the last reference model in turns, always the same."""
    import optuna

    from dl4ia.search_space import sample

    draw = random.Random(1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    *_, reference = searched.REFERENCE_MODELS.values()
    points = []
    for number in range(count):
        if number % 2:
            study.enqueue_trial({k: v for k, v in reference.items() if draw.random() < KEPT})
        points.append(sample(searched.SPACE, study.ask()))
    return points


def summarize(
    latest: Sequence[float], means: Sequence[float], ends: Sequence[float]
) -> list[tuple[str, str, str, str]]:
    """A row each for a training's own weights and their mean, as `main` prints them."""
    from scipy.stats import spearmanr

    ranked = sorted(range(len(ends)), key=ends.__getitem__, reverse=True)
    better = ranked[: len(ends) // 2]
    rows: list[tuple[str, str, str, str]] = []
    for name, values in (("its own weights", latest), ("a mean of them", means)):
        everywhere = spearmanr(values, ends)[0]
        above = spearmanr([values[n] for n in better], [ends[n] for n in better])[0]
        on = sorted(ranked, key=values.__getitem__, reverse=True)[: len(ends) // 4]
        rows.append((name, f"{everywhere:.2f}", f"{above:.2f}", str(len({*on} & {*ranked[:BEST]}))))
    return rows


def main() -> None:
    """Train what is missing, and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("task", choices=tuple(EPOCHS))
    parser.add_argument("--data", type=Path, help="default: what the program brings along")
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--out", type=Path, required=True, help="where the trainings are kept")
    add_record(parser)
    arguments = parser.parse_args()
    if arguments.points < 4 * BEST:
        parser.error(f"--points {arguments.points}: expected {4 * BEST} at least")
    tune_process()
    import optuna
    import torch

    from dl4ia.data.splits import make_splits
    from dl4ia.errors import TrialFailure
    from dl4ia.markdown import table
    from dl4ia.search.halving import rung
    from dl4ia.search.objective import train_point

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task, source, searched = open_task(arguments.task, arguments.data)
    dataset = source.train()
    if arguments.task == "digits" and arguments.data is not None:
        dataset = dataset.subset(IMAGES)
    (split,) = make_splits(task.strata(dataset), 1, 0)
    parts = dataset.subset(split.train), dataset.subset(split.validation)
    epochs = EPOCHS[arguments.task][arguments.data is not None]
    decisive, device, metric = rung(epochs), torch.device("cpu"), f"val_{task.metric}"
    points = {str(n): p for n, p in enumerate(draw_points(searched, arguments.points))}

    def train(name: str) -> list[float] | str:
        """By its own weights, by their mean, at its end; or how it failed."""
        point, seed = points[name], int(name)
        try:
            _, whole = train_point(task, point, *parts, epochs, seed, device)
            course = [result[metric] for result in whole]
            _, again = train_point(task, point, *parts, epochs, seed, device, foresee_in=decisive)
            *_, foreseen = islice(again, decisive)
        except TrialFailure as failure:
            return str(failure)
        return [course[decisive - 1], foreseen[metric], course[-1]]

    images = arguments.data.name if arguments.data else "embedded"
    maker = made_by()
    name = f"{arguments.task}-{images}-{arguments.points}-points"
    folder = arguments.out / name / maker.replace("/", " ")
    for name in make_missing(folder, points, train):
        print(f"{name}: {read(folder, name)}", flush=True)
    found = [read(folder, name) for name in points]
    if None in found:
        print("other processes are at work on the rest")
        return
    latest, means, ends = zip(*(each for each in found if not isinstance(each, str)), strict=True)
    rows = summarize(latest, means, ends)
    head = (
        f"epoch {decisive} of {epochs} by", "correlation", "in the better half",
        f"of the best {BEST} go on",
    )  # fmt: skip
    print(table([head, *rows]))
    print(f"{len(ends)} of {len(points)} points trained to their end; {maker}")
    if arguments.record:
        peer, ours = rows
        record(
            f"{arguments.task}: rank correlation of the pruning epoch with the end; better half",
            f"{ours[1]}; {ours[2]}",
            f"{peer[1]}; {peer[2]}",
        )


if __name__ == "__main__":
    main()
