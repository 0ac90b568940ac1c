"""The best value found against the time spent: dl4ia's search, plain TPE, random search.

    python benchmarks/search_strategies.py digits --data data --images 4000 --out curves  # MNIST
    python benchmarks/search_strategies.py glands --out curves  # the drawn glands
    python benchmarks/search_strategies.py glands --data data/WARWICK --out curves

Runs each strategy's study of 50 trials from five seeds (the same split for the same seed), on one
thread. Prints the median over the seeds of the best value so far, after shares of the time that
plain TPE takes in all, and after what share each strategy's median reaches plain TPE's last one;
draws the curves. --record keeps both for README.md. Time is the process's CPU time, which with one
thread is wall time on a quiet machine, and less disturbed by neighbours on another. Studies are
kept in --out: the same command goes on where it was, and shares the work where it runs several
times at once. Takes hours. The test images are not read.
"""

import shutil
import statistics
import tempfile
import time
from datetime import date
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from flags import add_record, parser_of
from kept import made_by, make_missing, read
from table import README, record

from dl4ia.environment import tune_process
from dl4ia.markdown import table, write_between_marks

if TYPE_CHECKING:
    import optuna

    from dl4ia.search.objective import Objective
    from dl4ia.search_space import SpaceModule

TRIALS, SEEDS = 50, (0, 1, 2, 3, 4)
# As the studies have without and with --data; of digits on all of MNIST, however few --images are.
EPOCHS = {"digits": (40, 8), "glands": (28, 60)}
OURS, TPE, RANDOM = "dl4ia", "TPE", "random"
STRATEGIES = {
    OURS: "its default: the report's and the reference models first, TPE, successive halving",
    "dl4ia, unpruned": "the same without pruning",
    TPE: "Optuna's default: TPE, no pruning, no trials to begin with",
    RANDOM: "random points, no pruning",
    "GP": "Optuna's Gaussian process, no pruning",
}
SHARES = (0.1, 0.2, 1 / 3, 0.5, 0.75, 1.0)  # of the time that plain TPE takes in all

Curve = list[tuple[float, float]]  # CPU seconds, and the best value by then


def open_search(
    strategy: str, objective: "Objective", searched: "SpaceModule", storage: str
) -> "optuna.Study":
    """A fresh study; ours in the database `storage`, as it always is."""
    import optuna

    from dl4ia.search.storage import open_storage
    from dl4ia.search.study import Identity, open_study

    if strategy.startswith(OURS):
        identity = Identity(
            objective.task.name, objective.task.metric, "", "", {}, "", "", objective.epochs, 1,
            objective.seed,
        )  # fmt: skip
        study = open_study(open_storage(storage), strategy, identity, searched)
        if strategy != OURS:
            study.pruner = optuna.pruners.NopPruner()
        return study
    samplers = {
        TPE: optuna.samplers.TPESampler,
        RANDOM: optuna.samplers.RandomSampler,
        "GP": optuna.samplers.GPSampler,
    }
    sampler = samplers[strategy](seed=objective.seed)
    pruner = optuna.pruners.NopPruner()
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)


def run_one(
    task_name: str, data: Path | None, images: int | None, strategy: str, seed: int, trials: int
) -> Curve:
    """One study, on the first so many training images, or all."""
    import optuna
    import torch
    from materials import open_task

    from dl4ia.data.splits import make_splits
    from dl4ia.errors import TrialFailure
    from dl4ia.search.objective import Objective

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task, source, searched = open_task(task_name, data)
    dataset = source.train()
    dataset = dataset.subset(range(min(len(dataset), images or len(dataset))))
    splits = make_splits(task.strata(dataset), 1, seed)
    epochs = EPOCHS[task_name][data is not None]
    device = torch.device("cpu")
    objective = Objective(task, searched.SPACE, dataset, splits, epochs, seed, device, {})
    curve: Curve = []
    with tempfile.TemporaryDirectory() as folder:
        study = open_search(strategy, objective, searched, f"sqlite:///{folder}/optuna.db")
        start = time.process_time()

        def note(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            if trial.state == optuna.trial.TrialState.COMPLETE:
                curve.append((time.process_time() - start, study.best_value))

        study.optimize(objective, trials, catch=(TrialFailure,), callbacks=[note])
        curve.append((time.process_time() - start, study.best_value))
    return curve


def best_by(curve: Curve, seconds: float) -> float:
    """The best value after so many seconds; minus infinity before the first trial has completed."""
    return max((value for when, value in curve if when <= seconds), default=float("-inf"))


def reaches(curves: list[Curve], target: float) -> float | None:
    """After how many seconds the median of the curves is at least `target`; None where never."""
    for seconds in sorted(when for curve in curves for when, _ in curve):
        if statistics.median(best_by(curve, seconds) for curve in curves) >= target:
            return seconds
    return None


def summarize(curves: dict[str, list[Curve]]) -> str:
    """A table: medians of the best value so far, and the time to plain TPE's last one."""
    whole = statistics.median(curve[-1][0] for curve in curves[TPE])
    target = statistics.median(curve[-1][1] for curve in curves[TPE])
    head = [f"{share:.0%}" for share in SHARES]
    rows = [("strategy", *head, "at its end", "takes", f"reaches {target:.4f} after")]
    for strategy, found in curves.items():
        medians = [
            statistics.median(best_by(curve, share * whole) for curve in found) for share in SHARES
        ]
        medians.append(statistics.median(curve[-1][1] for curve in found))
        cells = [f"{value:.4f}" if value > float("-inf") else "–" for value in medians]
        ends = statistics.median(curve[-1][0] for curve in found) / whole
        reached = reaches(found, target)
        cells += [f"{ends:.0%}", "never" if reached is None else f"{reached / whole:.0%}"]
        rows.append((strategy, *cells))
    return table(rows)


def keep(task_name: str, curves: dict[str, list[Curve]], caption: str, picture: Path) -> None:
    """The figures for README.md's table, and the curves and their summary for its section on them.

    One line against each peer: how long it takes to plain TPE's last value.
    """
    target = statistics.median(curve[-1][1] for curve in curves[TPE])
    ours = reaches(curves[OURS], target)
    for peer in [peer for peer in (TPE, RANDOM) if peer in curves]:
        theirs = reaches(curves[peer], target)
        record(
            f"{task_name}: CPU time to plain TPE's best value, against {peer}",
            "never" if ours is None else f"{ours:.0f} s",
            "never" if theirs is None else f"{theirs:.0f} s",
            "–" if ours is None or theirs is None else f"{theirs / ours:.1f}",
            "3 times" if peer == TPE else "–",
        )
    kept = README.with_name(f"curves-{task_name}.png")
    shutil.copy(picture, kept)
    text = f"{summarize(curves)}\n\n{caption}\n\n![Best value against CPU time]({kept.name})"
    write_between_marks(README, f"{task_name} curves", text)


def draw(curves: dict[str, list[Curve]], title: str, path: Path) -> None:
    """The medians over the seeds as steps, each study thin behind them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    last = max(curve[-1][0] for found in curves.values() for curve in found)
    for number, (strategy, found) in enumerate(curves.items()):
        for curve in found:
            times, values = zip(*curve, strict=True)
            axes.step(times, values, where="post", color=f"C{number}", alpha=0.2, linewidth=0.8)
        moments = sorted(when for curve in found for when, _ in curve)
        medians = [statistics.median(best_by(curve, when) for curve in found) for when in moments]
        axes.step(moments, medians, where="post", color=f"C{number}", label=strategy)
    final = [curve[-1][1] for found in curves.values() for curve in found]
    spread = max(final) - min(final)
    axes.set_ylim(min(final) - 2 * spread, max(final) + 0.2 * spread)
    axes.set(xlim=(0, last), xlabel="CPU seconds, one thread", ylabel="best validation value")
    axes.set_title(title)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing; print the table and draw the curves of the seeds that all have."""
    parser = parser_of(__doc__)
    parser.add_argument("task", choices=tuple(EPOCHS))
    parser.add_argument("--data", type=Path, help="default: what the program brings along")
    parser.add_argument("--images", type=int, help="the first so many to train on (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="where the studies are kept")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument(
        "--strategies",
        nargs="+",
        choices=tuple(STRATEGIES),
        default=[name for name in STRATEGIES if name != "GP"],
        help="; ".join(f"{name}: {meaning}" for name, meaning in STRATEGIES.items()),
    )
    add_record(parser)
    arguments = parser.parse_args()
    if arguments.record and not {OURS, TPE} <= set(arguments.strategies):
        parser.error(f"--record compares {OURS} with {TPE}: name both in --strategies")
    tune_process()
    name = f"{arguments.task}-{arguments.data.name if arguments.data else 'embedded'}"
    if arguments.images:
        name += f"-{arguments.images}"
    maker = made_by()
    folder = arguments.out / f"{name}-{arguments.trials}-trials" / maker.replace("/", " ")
    jobs = {
        f"{strategy}-{seed}": (strategy, seed)
        for seed, strategy in product(arguments.seeds, arguments.strategies)
    }

    def make(job: str) -> Curve:
        return run_one(
            arguments.task, arguments.data, arguments.images, *jobs[job], arguments.trials
        )

    for job in make_missing(folder, jobs, make):
        seconds, value = read(folder, job)[-1]
        print(f"{job:<20} {value:.4f} in {seconds:.0f} s", flush=True)
    made = {job: read(folder, job) for job in jobs}
    if None in made.values():
        print("other processes are at work on the rest")
        return
    curves = {
        strategy: [made[f"{strategy}-{seed}"] for seed in arguments.seeds]
        for strategy in arguments.strategies
    }
    title = f"{name}: median of {len(arguments.seeds)} studies of {arguments.trials} trials"
    picture = folder / "curves.png"
    draw(curves, title, picture)
    if TPE in curves:
        print(summarize(curves), f"{title}; {maker}", sep="\n")
    print(picture)
    if arguments.record:
        keep(arguments.task, curves, f"{title}; {maker}, {date.today()}.", picture)


if __name__ == "__main__":
    main()
