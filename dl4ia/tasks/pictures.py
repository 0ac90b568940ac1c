"""Pictures of a winner: how it learned, and what it sees in test images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor

matplotlib.use("agg")
from matplotlib import pyplot as plt

from dl4ia.data.dataset import Dataset
from dl4ia.metrics.counts import PixelCounts, confusion_matrix
from dl4ia.tasks.panels import MOST_CLASSES, MOST_MISCLASSIFIED, displayable, errors

REPORT_IMAGE = "image_05.png"  # the one of the report's figures


def draw_history(
    history: Mapping[str, Sequence[float]],
    retrainings: Sequence[Mapping[str, Sequence[float]]],
    metric: str,
    file: Path,
) -> None:
    """The winner's trial (losses, metric on training and validation part) and its retrainings."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    _curves(
        left,
        history,
        retrainings,
        {
            "train_loss": "training part, as augmented and trained",
            "val_loss": "validation part, cross-entropy",
        },
    )
    left.set(xlabel="epoch", ylabel="loss", title="Loss", yscale="log")
    _curves(
        right,
        history,
        retrainings,
        {
            f"train_{metric}": "training part, as augmented and trained",
            f"val_{metric}": "validation part, mean over images",
            f"val_{metric}_pooled": "validation part, pooled over pixels",
        },
    )
    right.set(xlabel="epoch", ylabel=metric, title=metric.capitalize())
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _curves(
    axes: plt.Axes,
    history: Mapping[str, Sequence[float]],
    retrainings: Sequence[Mapping[str, Sequence[float]]],
    labels: Mapping[str, str],
) -> None:
    """Those metrics of `labels` that there are, over epochs; the retrainings' in grey."""
    for name, label in labels.items():
        for number, retraining in enumerate(retrainings):
            if name in retraining:
                grey = "retrainings on all training images" if number == 0 else None
                epochs = range(1, len(retraining[name]) + 1)
                axes.plot(epochs, retraining[name], color="0.7", linewidth=1, label=grey)
        if name in history:
            axes.plot(range(1, len(history[name]) + 1), history[name], label=label)


def draw_front(
    points: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float, str]],
    names: tuple[str, str],
    file: Path,
) -> Path:
    """All trials and the Pareto front; points: (first objective, cost), with a name on the front.

    names: those of the first objective and of the cost, whose axis is logarithmic.
    """
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.scatter([cost for _, cost in points], [value for value, _ in points], color="0.75", s=20)
    ordered = sorted(front, key=lambda point: point[1])
    axes.plot([cost for _, cost, _ in ordered], [value for value, _, _ in ordered], "o-")
    for value, cost, name in ordered:
        axes.annotate(_as_it_is(name), (cost, value), (4, -10), textcoords="offset points", size=7)
    axes.set(xscale="log", xlabel=names[1], ylabel=names[0])
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file


def draw_confusion(
    labels: Tensor, predictions: Tensor, classes: Sequence[str], folder: Path
) -> Path:
    """(N,) labels and predictions as a table of the first 40 classes, a row for each true one."""
    whole = confusion_matrix(labels, predictions, len(classes)).numpy()
    counts = whole[:MOST_CLASSES, :MOST_CLASSES]
    names = [_as_it_is(name) for name in classes[:MOST_CLASSES]]
    wrong = counts - np.diag(np.diag(counts))
    side = max(4.5, 0.55 * len(names))
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(wrong, cmap="Reds")  # the right ones would drown the others
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if wrong[row, column] > 0.6 * wrong.max() else "black"
        weight = "bold" if row == column else "normal"
        if count:
            axes.text(
                column, row, count, ha="center", va="center", color=colour, weight=weight, size=8
            )
    ticks = range(len(names))
    long = any(len(name) > 3 for name in names)
    axes.set_xticks(ticks, names, rotation=90 if long else 0)
    axes.set_yticks(ticks, names)
    right, total = int(np.trace(whole)), int(whole.sum())
    some = f"; {len(names)} of the {len(classes)} classes" if len(names) < len(classes) else ""
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{right:,} of {total:,} test images right ({right / total:.2%}){some}", size=10)
    file = folder / "test_confusion.png"
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file


def draw_misclassified(
    dataset: Dataset,
    predictions: Tensor,
    classes: Sequence[str],
    folder: Path,
    confidence: Tensor | None = None,
) -> Path:
    """Up to 24 wrong ones of (N,) predictions; those of the highest `confidence` (N,), if given."""
    wrong = (predictions != dataset.labels).nonzero()[:, 0]
    if confidence is not None:
        wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)]
    shown = wrong[:MOST_MISCLASSIFIED]
    columns = min(8, max(4, len(shown)))  # fewer than four are too narrow for the title
    rows = max(1, -(-len(shown) // columns))
    size = (1.25 * columns, 1.6 * rows + 0.5)
    figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, index in zip(panels.flat, shown.tolist(), strict=False):
        axes.imshow(displayable(dataset.images[index]))
        true, predicted = classes[int(dataset.labels[index])], classes[int(predictions[index])]
        share = "" if confidence is None else f" ({confidence[index]:.0%})"
        arrow = " → " if len(true) + len(predicted) < 9 else " →\n"
        title = _as_it_is(f"{true}{arrow}{predicted}{share}")
        axes.set_title(title, size=8 if arrow == " → " else 6)
    kind = "the first" if confidence is None else "the most confident"
    some = f", {kind} {len(shown)}" if len(shown) < len(wrong) else ""
    figure.suptitle(
        f"{len(wrong)} of {len(dataset)} test images misclassified{some}: true → predicted", size=10
    )
    file = folder / "test_misclassified.png"
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file


def draw_segmentations(dataset: Dataset, predictions: Tensor, folder: Path) -> list[Path]:
    """Input with outlines, prediction and label of the report's image, worst, median and best.

    predictions: (N, H, W) masks; PNG files. White: gland found; red: missed; blue: invented.
    """
    dice = PixelCounts.of(predictions, dataset.labels).dice()
    order = dice.argsort(stable=True).tolist()
    chosen = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    if REPORT_IMAGE in dataset.names:
        chosen = {"image_05": dataset.names.index(REPORT_IMAGE)} | chosen
    files = []
    for title, index in chosen.items():
        figure, panels = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
        prediction, label = predictions[index], dataset.labels[index]
        panels[0].imshow(displayable(dataset.images[index]))
        for mask, colour, style in ((label, "white", "-"), (prediction, "yellow", "--")):
            if 0 < (mask != 0).float().mean() < 1:  # else there is no outline
                outline = (mask != 0).float().numpy()
                panels[0].contour(outline, [0.5], colors=colour, linestyles=style, linewidths=1)
        panels[1].imshow(prediction.numpy(), cmap="gray", vmin=0, vmax=1)
        panels[2].imshow(label.numpy(), cmap="gray", vmin=0, vmax=1)
        panels[3].imshow(errors(prediction, label))
        titles = (
            "input; label white, prediction yellow",
            "prediction",
            "label",
            "red: missed, blue: invented",
        )
        for axes, name in zip(panels, titles, strict=True):
            axes.set_title(name, fontsize=10)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("0.7")  # a white mask needs its edge
        place = "" if title == "image_05" else f" ({title} of {len(dataset)})"
        figure.suptitle(f"{_as_it_is(dataset.names[index])}{place}: Dice {dice[index]:.3f}")
        files.append(folder / f"test_{title}.png")
        figure.savefig(files[-1], dpi=100)
        plt.close(figure)
    return files


def _as_it_is(name: str) -> str:
    """A name from outside, in which matplotlib would take dollars for the marks of formulas."""
    return name.replace("$", r"\$")
