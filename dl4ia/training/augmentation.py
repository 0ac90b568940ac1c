"""Augmentation of whole batches on their device.

Every image has its own random numbers: an epoch's draws are a table with one row an image, drawn
on the CPU, so that an image meets the same fate on every device and in every batch.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NUMBERS = 9  # uniform numbers in [-1, 1] an image: 3 flips and turns, 6 affine
CONTROL_POINTS = 6  # a side of the elastic grid
LARGEST_TURN = math.radians(45)
LARGEST_SCALE = math.log(1.3)
LARGEST_SHEAR = 0.2
LARGEST_SHIFT = 0.1  # of the side
ELASTIC_DEVIATION = 0.048  # of the side at the control points; 0.04 between them
LARGEST_GAIN, LARGEST_OFFSET = 0.3, 0.1  # of a stain's intensity


@dataclass(frozen=True)
class AugmentationSettings:
    """What is done to the training images; strengths run from 0 (off) to 1."""

    report_rotations: bool = False
    augmentation: str = "none"
    shift: float = 0.0
    affine: float = 0.0
    elastic: float = 0.0
    stain_jitter: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether pixels move."""
        turned = self.augmentation == "flips_and_quarter_turns"
        return turned or max(self.shift, self.affine, self.elastic) > 0


def extend_with_report_rotations(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The training part and its copies turned by -90 and 180 degrees (the report's model 1).

    images (N, C, H, W) -> (3 N, C, H, W); labels likewise. A quarter turn of an image that is not
    square is stretched back to its height and width, as GlaS images were when they were squared.
    """
    axes, size = (-2, -1), images.shape[2:]
    turned, turned_labels = images.rot90(-1, axes), labels.rot90(-1, axes)
    if turned.shape[2:] != size:
        turned = F.interpolate(turned, size=size, mode="bilinear", align_corners=False)
        nearest = F.interpolate(turned_labels[:, None].float(), size=size, mode="nearest-exact")
        turned_labels = nearest[:, 0].to(labels.dtype)
    return (
        torch.cat([images, turned, images.rot90(2, axes)]),
        torch.cat([labels, turned_labels, labels.rot90(2, axes)]),
    )


class Augmenter:
    """Augments the batches of one training, epoch by epoch, from a seed."""

    def __init__(
        self, settings: AugmentationSettings, count: int, channels: int, seed: int
    ) -> None:
        self.settings = settings
        self.shape = (count, channels)
        self.generator = torch.Generator().manual_seed(seed)
        self.draw()

    def draw(self) -> None:
        """New random numbers for every image; call it before each epoch."""
        count, channels = self.shape
        self.numbers = 2 * torch.rand(count, NUMBERS, generator=self.generator) - 1
        self.bumps = torch.randn(count, 2, CONTROL_POINTS, CONTROL_POINTS, generator=self.generator)
        self.stains = 2 * torch.rand(count, 2, channels, 1, 1, generator=self.generator) - 1

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Augment images (B, C, H, W) and labels, the data set's rows `rows` (B,).

        Labels of pixels (B, H, W) move with the images; labels of images (B,) stay.
        """
        device = images.device
        if self.settings.warps:
            grid = self._grid(rows, *images.shape[2:]).to(device)
            images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
            if labels.ndim > 1:
                warped = F.grid_sample(
                    labels[:, None].float(),
                    grid,
                    mode="nearest",
                    padding_mode="reflection",
                    align_corners=False,
                )
                labels = warped[:, 0].to(labels.dtype)
        if self.settings.stain_jitter > 0:
            gain, offset = (self.settings.stain_jitter * self.stains[rows]).to(device).unbind(1)
            images = (images * (1 + LARGEST_GAIN * gain) + LARGEST_OFFSET * offset).clamp(0, 1)
        return images, labels

    def _grid(self, rows: Tensor, height: int, width: int) -> Tensor:
        """(B, H, W, 2) places to sample from, x then y, in [-1, 1] across the image."""
        numbers = self.numbers[rows]  # (B, NUMBERS)
        y = (2 * torch.arange(height) + 1) / height - 1
        x = (2 * torch.arange(width) + 1) / width - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]  # (1, H, W, 2)
        if self.settings.augmentation == "flips_and_quarter_turns":
            signs = torch.where(numbers[:, None, None, :2] > 0, 1.0, -1.0)
            turned = (numbers[:, 2] > 0)[:, None, None, None]
            places = signs * torch.where(turned, places.flip(-1), places)
        sides = torch.tensor([width, height]) / 2  # pixels: turns and shears keep their angles
        matrices = _affine_matrices(self.settings.affine * numbers[:, 3:7])
        places = (places * sides) @ matrices.mT[:, None] / sides
        largest = 2 * LARGEST_SHIFT * (self.settings.affine + self.settings.shift)
        places = places + largest * numbers[:, None, None, 7:]
        if self.settings.elastic > 0:
            bumps = F.interpolate(
                self.bumps[rows], size=(height, width), mode="bicubic", align_corners=True
            )
            deviation = 2 * ELASTIC_DEVIATION * self.settings.elastic
            places = places + deviation * bumps.permute(0, 2, 3, 1)
        return places.expand(len(rows), height, width, 2)


def _affine_matrices(amounts: Tensor) -> Tensor:
    """(B, 4) amounts of turn, scale along both axes and shear in [-1, 1] -> (B, 2, 2)."""
    turn, scale, stretch, shear = amounts.T
    cosine, sine = torch.cos(LARGEST_TURN * turn), torch.sin(LARGEST_TURN * turn)
    rotation = torch.stack([cosine, -sine, sine, cosine], -1).view(-1, 2, 2)
    scale_x = torch.exp(LARGEST_SCALE * (scale + stretch) / 2)
    scale_y = torch.exp(LARGEST_SCALE * (scale - stretch) / 2)
    zero = torch.zeros_like(shear)
    upper = torch.stack([scale_x, LARGEST_SHEAR * shear, zero, scale_y], -1).view(-1, 2, 2)
    return rotation @ upper
