"""Losses: functions of logits (N, classes, H, W) and labels (N, H, W), a mean over the batch."""

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


def cross_entropy_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice, weighted alike (Isensee et al. 2021, nnU-Net)."""
    return F.cross_entropy(logits, labels) + soft_dice_loss(logits, labels)


LOSSES: dict[str, Loss] = {
    "cross_entropy": F.cross_entropy,
    "cross_entropy_dice": cross_entropy_dice_loss,
}
