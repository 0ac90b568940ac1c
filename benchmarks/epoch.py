"""An epoch of training against the same trained the usual way (peers.py), in one run.

    python benchmarks/epoch.py digits --data data  # MNIST as torchvision leaves it
    python benchmarks/epoch.py glands --data data/WARWICK  # without --data: drawn glands

An epoch is 80 % of the training images trained on and the others scored; the test images are not
read. Each way (dl4ia's; the usual one with the DataLoader in the training process, and with two
workers) is a process of its own, as a user's would be. They take turns, an epoch each; the ratio is
of the median seconds, without the first epoch's, which warms up. Takes about 5 minutes a point on
two cores. The report's full batches take a step an epoch: after so few their scores say only that
both learn.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from flags import add_record, parser_of
from table import record

EPOCHS = {"digits": 4, "glands": 30}
GOALS = {"digits": 2, "glands": 2.5}
POINTS = {"digits": ["exercise_1_4", "modern_cnn"], "glands": ["unet", "modern_unet"]}
WAYS = {"dl4ia": None, "usual way": 0, "usual way, 2 workers": 2}  # of the DataLoader


def epochs_of(
    way: str, task: str, folder: Path | None, name: str, seed: int, epochs: int
) -> Iterator[str]:
    """Train the point `name`; a line an epoch: seconds, and the validation part's score."""
    workers = WAYS[way]
    if workers is None:
        from dl4ia.environment import tune_process

        tune_process()
    import torch
    from peers import DEVICE, in_torchs_layers, open_material, train_plainly

    from dl4ia.search.objective import train_point

    material = open_material(task, folder)
    point, parts = material.points[name], (material.train, material.validation)
    if workers is None:
        _, results = train_point(material.task, point, *parts, epochs, seed, DEVICE)
        for result in results:
            yield f"{result['seconds']} {result['val_' + material.task.metric]}"
    else:
        torch.manual_seed(seed)
        model = in_torchs_layers(material.task.build(point, material.train))
        loaders = material.loaders(point, workers)
        for seconds, score in train_plainly(model, loaders, point, epochs):
            yield f"{seconds} {score}"


def main() -> None:
    """Print the medians, their ratios and the scores."""
    parser = parser_of(__doc__)
    parser.add_argument("task", choices=tuple(POINTS))
    parser.add_argument("--data", type=Path, help="digits: of torchvision's MNIST (default: data)")
    parser.add_argument("--points", nargs="+", metavar="NAME", help="of the search space")
    parser.add_argument("--epochs", type=int, help="default: 4 of digits, 30 of glands")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each (default: 2)")
    add_record(parser)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # a way, a point and a seed
    arguments = parser.parse_args()
    count = arguments.epochs or EPOCHS[arguments.task]
    if count < 2:
        parser.error("--epochs: expected 2 at least, for the first one is left out")
    if arguments.one:
        way, name, seed = arguments.one
        epochs = epochs_of(way, arguments.task, arguments.data, name, int(seed), count)
        for _ in sys.stdin:  # a line asks for an epoch
            print(next(epochs), flush=True)
        return
    for name in arguments.points or POINTS[arguments.task]:
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        scores: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in range(arguments.seeds):
            processes = {way: start(way, name, seed) for way in WAYS}
            last: dict[str, float] = {}  # the score after the last epoch
            for epoch in range(count):
                for way, process in processes.items():
                    taken, last[way] = ask(process)
                    if epoch:
                        seconds[way].append(taken)
            for way, process in processes.items():
                process.communicate()
                scores[way].append(last[way])
        ours = statistics.median(seconds["dl4ia"])
        for way in WAYS:
            median = statistics.median(seconds[way])
            found = ", ".join(f"{value:.4f}" for value in scores[way])
            ratio = f"dl4ia is {median / ours:.2f} times as fast" if way != "dl4ia" else ""
            print(f"{name:<12}  {way:<20}  {median:6.2f} s  scores {found}  {ratio}", flush=True)
        if arguments.record:
            usual = min(statistics.median(seconds[way]) for way in WAYS if way != "dl4ia")
            record(
                f"{arguments.task}: an epoch of {name}, against the better usual way",
                f"{ours:.2f} s",
                f"{usual:.2f} s",
                f"{usual / ours:.1f}",
                f"{GOALS[arguments.task]} times",
                of_training=True,
            )


def start(way: str, name: str, seed: int) -> subprocess.Popen[str]:
    """This very command, as a process that trains one way."""
    command = [sys.executable, *sys.argv, "--one", way, name, str(seed)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Seconds and score of one more epoch."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    seconds, score = process.stdout.readline().split()
    return float(seconds), float(score)


if __name__ == "__main__":
    main()
