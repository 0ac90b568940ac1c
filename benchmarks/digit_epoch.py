"""An epoch of the report's digit network against the same trained the usual way, in one run.

    python benchmarks/digit_epoch.py --data data

The peer is what the libraries' own examples do: torchvision's MNIST with ToTensor for each sample,
a DataLoader with shuffling (in the training process, and with two workers), float32, Adam, batches
of 100. Network, first weights, batch size and learning rate are the same (Exercise 1.4: 21,688
weights). An epoch is 48,000 training images and the scoring of the other 12,000; the test images
are not read. The variants take turns, an epoch each; the ratio is of the median seconds. Takes
about 5 minutes on two cores.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from dl4ia.environment import tune_process

EPOCHS, BATCH, NAME = 4, 100, "exercise_1_4"
WAYS = {"dl4ia": None, "usual way": 0, "usual way, 2 workers": 2}  # of the DataLoader

Epoch = tuple[float, float]  # seconds, validation accuracy


def usual_way(model, folder: Path, split, learning_rate: float, workers: int) -> Iterator[Epoch]:  # type: ignore[no-untyped-def]
    """Train and validate as the examples do, an epoch at a time."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    dataset = datasets.MNIST(folder, train=True, transform=transforms.ToTensor())
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    train = DataLoader(Subset(dataset, split.train), BATCH, shuffle=True, **options)
    validation = DataLoader(Subset(dataset, split.validation), 1000, **options)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    while True:
        start = time.perf_counter()
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in validation:
                right += int((model(images).argmax(1) == labels).sum())
        yield time.perf_counter() - start, right / len(split.validation)


def main() -> None:
    """Print the medians, their ratios and the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="of torchvision's MNIST")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each (default: 2)")
    arguments = parser.parse_args()
    tune_process()
    import torch

    from dl4ia.classification import ClassificationTask
    from dl4ia.data.idx_folder import IdxFolder
    from dl4ia.data.splits import make_splits
    from dl4ia.objective import train_point
    from search_spaces.classification import REPORT_MODELS

    source, point = IdxFolder(arguments.data), REPORT_MODELS[NAME]
    dataset, task = source.train(), ClassificationTask(source.classes)
    (split,) = make_splits(task.strata(dataset), 1, seed=0)
    parts = dataset.subset(split.train), dataset.subset(split.validation)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    accuracies: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(arguments.seeds):
        epochs: dict[str, Iterator[Epoch]] = {}
        last: dict[str, float] = {}  # the accuracy after the last epoch
        for way, workers in WAYS.items():
            if workers is None:
                _, results = train_point(task, point, *parts, EPOCHS, seed, torch.device("cpu"))
                epochs[way] = ((each["seconds"], each["val_accuracy"]) for each in results)
            else:
                torch.manual_seed(seed)
                model, rate = task.build(point, parts[0]), point["learning_rate"]
                epochs[way] = usual_way(model, arguments.data, split, rate, workers)
        for _ in range(EPOCHS):
            for way in WAYS:
                taken, last[way] = next(epochs[way])
                seconds[way].append(taken)
        for way in WAYS:
            accuracies[way].append(last[way])
    ours = statistics.median(seconds["dl4ia"])
    for way in WAYS:
        median = statistics.median(seconds[way])
        scores = ", ".join(f"{value:.4f}" for value in accuracies[way])
        ratio = f"dl4ia is {median / ours:.2f} times as fast" if way != "dl4ia" else ""
        print(f"{way:<22} {median:6.2f} s an epoch  accuracy {scores}  {ratio}")


if __name__ == "__main__":
    main()
