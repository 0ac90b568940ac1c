"""The report's figures from our trainings: histories, and segmentations side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dl4ia.data.dataset import Dataset
from dl4ia.metrics.counts import PixelCounts
from dl4ia.replication.trainings import Outcome
from dl4ia.tasks.panels import displayable, errors
from dl4ia.tasks.pictures import plt

CURVES = {"train": "training images", "scored": "test images"}


@dataclass(frozen=True)
class Figure:
    """A figure of the report: the histories of some trainings.

    trainings: label -> name of a training. metric: "accuracy" or "dice_pooled".
    """

    title: str
    trainings: Mapping[str, str]
    metric: str


def draw_histories(
    figure: Figure, outcomes: Mapping[str, Sequence[Outcome]], file: Path
) -> Path | None:
    """Loss and metric over epochs: means over seeds, shaded from the lowest to the highest.

    None, and no file, where a training is missing.
    """
    if not all(outcomes.get(name) for name in figure.trainings.values()):
        return None
    drawn, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axes, quantity in zip(panels, ("loss", figure.metric), strict=True):
        for number, (label, name) in enumerate(figure.trainings.items()):
            for part, images in CURVES.items():
                found = [
                    outcome.history[f"{part}_{quantity}"]
                    for outcome in outcomes[name]
                    if f"{part}_{quantity}" in outcome.history
                ]
                if not found:
                    continue
                values = np.array(found)  # (seeds, epochs)
                epochs = np.arange(1, values.shape[1] + 1)
                style = "-" if part == "scored" else ":"
                words = f"{label}, {images}" if label else images
                axes.plot(epochs, values.mean(0), style, color=f"C{number}", label=words)
                axes.fill_between(
                    epochs, values.min(0), values.max(0), color=f"C{number}", alpha=0.2, lw=0
                )
        axes.set(xlabel="epoch", ylabel=quantity.replace("_", ", "))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_yscale("log")
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(file, dpi=110)
    plt.close(drawn)
    return file


def draw_side_by_side(
    dataset: Dataset, predictions: Mapping[str, Tensor], names: Sequence[str], file: Path
) -> Path:
    """Images `names`, a row each: input, label, and what each model makes of it, errors coloured.

    predictions: model -> (N, H, W) masks of `dataset`.
    """
    rows = [dataset.names.index(name) for name in names if name in dataset.names]
    size = (2.4 * (2 + len(predictions)), 2.7 * len(rows))
    drawn, panels = plt.subplots(
        len(rows), 2 + len(predictions), figsize=size, layout="constrained", squeeze=False
    )
    for line, index in zip(panels, rows, strict=True):
        label = dataset.labels[index]
        line[0].imshow(displayable(dataset.images[index]))
        line[0].set_title(dataset.names[index], size=9)
        line[1].imshow(label.numpy(), cmap="gray", vmin=0, vmax=1)
        line[1].set_title("label", size=9)
        for axes, (model, masks) in zip(line[2:], predictions.items(), strict=True):
            axes.imshow(errors(masks[index], label))
            dice = PixelCounts.of(masks[index][None], label[None]).dice().item()
            axes.set_title(f"{model}: Dice {dice:.3f}", size=9)
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("0.7")
    drawn.suptitle("White: right. Red: missed gland. Blue: invented gland.", size=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(file, dpi=100)
    plt.close(drawn)
    return file
