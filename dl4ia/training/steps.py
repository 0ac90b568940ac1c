"""The steps of one training: a batch, augmented, through the network and back."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dl4ia.training.augmentation import Augmenter
from dl4ia.training.averaging import WeightAverage
from dl4ia.training.losses import Loss
from dl4ia.training.precision import computing_in

# Pixels that pass through the network at once, on a CPU 16 gland images, or 334 digits. A larger
# batch is passed in parts whose gradients add up to the same step; only batch normalisation
# notices, whose statistics are then those of a part. It bounds the memory of the report's full
# batches, and is faster in the caches. A GPU takes more at once: the course's images in one part.
LARGEST_PART, LARGEST_PART_ON_GPU = 16 * 128 * 128, 128 * 128 * 128
# Bytes of a GPU's memory that a pixel may take. The widest networks keep half as many for the way
# back (tests/test_memory.py counts them); the rest is for gradients, and for what cuDNN works in.
BYTES_A_PIXEL = 8192


class Steps:
    """Takes the steps of one training, an epoch at a time."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        augmenter: Augmenter,
        averages: Sequence[WeightAverage] = (),
        precision: torch.dtype = torch.float32,
        largest_part: int | None = None,
    ) -> None:
        """images (N, C, H, W) and labels: all that are trained on, on the model's device.

        largest_part: pixels that pass through the network at once; None: what suits the device.
        """
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.images, self.labels, self.augmenter = images, labels, augmenter
        self.averages, self.precision = averages, precision
        self.largest_part = largest_part or _largest_part(images.device)

    def take(self, order: Tensor, rates: Sequence[float]) -> Tensor:
        """A step at each of the learning `rates`, on as many batches, as equal as they can be.

        order: (N,) rows of the images, on their device. Returns (2,) there: summed losses and right
        shares of images.
        """
        totals = torch.zeros(2, device=order.device)
        for rows, rate in zip(order.tensor_split(len(rates)), rates, strict=True):
            self.optimizer.param_groups[0]["lr"] = rate
            totals += self._learn(rows)
            for average in self.averages:
                average.update()
        return totals

    def _learn(self, rows: Tensor) -> Tensor:
        """One step of the optimizer; (2,) as `take` returns."""
        images, labels = self.augmenter(self.images[rows], self.labels[rows], rows)
        count = len(rows)
        # At least two images a part: of one, batch normalisation may learn nothing.
        most = max(1, count // 2)
        needed = math.ceil(images[:, 0].numel() / self.largest_part)
        parts = min(most, needed)
        totals = torch.zeros(2, device=images.device)
        self.optimizer.zero_grad()
        for some_images, some_labels in zip(
            images.tensor_split(parts), labels.tensor_split(parts), strict=True
        ):
            with computing_in(self.precision, images.device):
                logits = self.model(some_images.contiguous(memory_format=torch.channels_last))
            share = self.loss(logits.float(), some_labels) * len(some_images)
            (share / count).backward()
            right = (logits.detach().argmax(1) == some_labels).float().mean() * len(some_images)
            totals += torch.stack([share.detach(), right])
        self.optimizer.step()
        return totals


def _largest_part(device: torch.device) -> int:
    """How many pixels suit the device."""
    if device.type != "cuda":
        return LARGEST_PART
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return min(LARGEST_PART_ON_GPU, memory // BYTES_A_PIXEL)
