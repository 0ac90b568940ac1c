"""Pictures of a winner: how it learned, and what it sees in test images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("agg")
from matplotlib import pyplot as plt

from dl4ia.data.dataset import Dataset
from dl4ia.metrics import PixelCounts

REPORT_IMAGE = "image_05.png"  # the one of the report's figures
HIT, MISSED, INVENTED = (255, 255, 255), (230, 70, 60), (70, 130, 240)


def draw_history(
    history: Mapping[str, Sequence[float]],
    retrainings: Sequence[Sequence[float]],
    metric: str,
    file: Path,
) -> None:
    """The winner's trial (training and validation loss and metric) and its retrainings' losses."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    epochs = range(1, len(history["train_loss"]) + 1)
    left.plot(epochs, history["train_loss"], label="training part, as trained")
    left.plot(epochs, history["val_loss"], label="validation part, cross-entropy")
    for number, losses in enumerate(retrainings):
        label = "retrainings on all training images" if number == 0 else None
        left.plot(range(1, len(losses) + 1), losses, color="0.7", linewidth=1, label=label)
    left.set(xlabel="epoch", ylabel="loss", title="Loss", yscale="log")
    left.legend(frameon=False)
    right.plot(epochs, history[f"val_{metric}"], label="mean over images")
    if f"val_{metric}_pooled" in history:
        right.plot(epochs, history[f"val_{metric}_pooled"], label="pooled over pixels")
    right.set(xlabel="epoch", ylabel=metric, title=f"Validation {metric}", ylim=(0, 1))
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def draw_segmentations(dataset: Dataset, predictions: Tensor, folder: Path) -> list[Path]:
    """Input, prediction and label of the report's image, the worst and the best; as PNG files.

    predictions: (N, H, W) masks. White: gland found; red: missed; blue: invented.
    """
    dice = PixelCounts.of(predictions, dataset.labels).dice()
    chosen = {"worst": int(dice.argmin()), "best": int(dice.argmax())}
    if REPORT_IMAGE in dataset.names:
        chosen = {"image_05": dataset.names.index(REPORT_IMAGE)} | chosen
    files = []
    for title, index in chosen.items():
        figure, panels = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
        prediction, label = predictions[index], dataset.labels[index]
        panels[0].imshow(displayable(dataset.images[index]))
        panels[1].imshow(prediction.numpy(), cmap="gray", vmin=0, vmax=1)
        panels[2].imshow(label.numpy(), cmap="gray", vmin=0, vmax=1)
        panels[3].imshow(errors(prediction, label))
        titles = ("input", "prediction", "label", "red: missed, blue: invented")
        for axes, name in zip(panels, titles, strict=True):
            axes.set_title(name, fontsize=10)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("0.7")  # a white mask needs its edge
        place = "as in the report" if title == "image_05" else f"{title} of {len(dataset)}"
        figure.suptitle(f"{dataset.names[index]} ({place}): Dice {dice[index]:.3f}")
        files.append(folder / f"test_{title}.png")
        figure.savefig(files[-1], dpi=100)
        plt.close(figure)
    return files


def displayable(image: Tensor) -> np.ndarray:
    """(2 or 3, H, W) in [0, 1] -> (H, W, 3): two stains are shown as red and green."""
    channels, height, width = image.shape
    blue = torch.zeros(3 - channels, height, width)
    return torch.cat([image, blue]).permute(1, 2, 0).numpy()


def errors(prediction: Tensor, label: Tensor) -> np.ndarray:
    """(H, W) masks -> (H, W, 3) uint8."""
    picture = np.zeros((*label.shape, 3), np.uint8)
    predicted, labelled = prediction.numpy() != 0, label.numpy() != 0
    picture[predicted & labelled] = HIT
    picture[~predicted & labelled] = MISSED
    picture[predicted & ~labelled] = INVENTED
    return picture
