"""Losses: functions of logits (N, classes, …) and labels (N, …), a mean over the batch."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - Dice of the gland probability, a mean over images (Milletari et al. 2016, V-Net).

    The squares of the paper are left out and 1 pixel is added to both sides, so that empty masks
    have a gradient.
    """
    probability = logits.softmax(1)[:, 1]  # (N, H, W)
    gland = labels.to(probability.dtype)
    both = (probability * gland).sum((1, 2))
    total = probability.sum((1, 2)) + gland.sum((1, 2))
    return (1 - (2 * both + 1) / (total + 1)).mean()


def make_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """`cross_entropy`, or `cross_entropy_dice`: plus soft Dice, weighted alike (nnU-Net, 2021).

    label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).

    `report_code` is in no search space: what the report's code took for cross-entropy of glands, to
    see what came of it.
    """

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    if name == "cross_entropy":
        return cross_entropy
    if name == "cross_entropy_dice":
        return lambda logits, labels: cross_entropy(logits, labels) + soft_dice_loss(logits, labels)
    if name == "report_code":
        return report_code_loss
    raise ValueError(f"loss {name!r}: expected cross_entropy or cross_entropy_dice")


def report_code_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax of logits (N, 2, H, W) over classes, and of that again over the rows of the image.

    The report's code puts the classes last, where PyTorch's cross-entropy expects them second: the
    rows are taken for the classes, and each column's true pixels of a class for what is to come.
    """
    probabilities = logits.softmax(1).movedim(1, -1)  # (N, H, W, 2)
    wanted = F.one_hot(labels, logits.shape[1]).to(probabilities.dtype)
    return F.cross_entropy(probabilities, wanted)
