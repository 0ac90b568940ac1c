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
ELASTIC_STREAM = 0xE1A57  # turns a training's seed into that of another stream
LARGEST_GAIN, LARGEST_OFFSET = 0.3, 0.1  # of a stain's intensity
QUARTER_TURNS = "flips_and_quarter_turns"


@dataclass(frozen=True)
class AugmentationSettings:
    """What is done to the training images; strengths run from 0 (off) to 1."""

    report_rotations: bool = False
    augmentation: str = "none"
    shift: float = 0.0
    affine: float = 0.0
    elastic: float = 0.0
    stain_jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.augmentation not in ("none", QUARTER_TURNS):
            raise ValueError(
                f"augmentation {self.augmentation!r}: expected none or {QUARTER_TURNS}"
            )

    @property
    def warps(self) -> bool:
        """Whether pixels move."""
        turned = self.augmentation == QUARTER_TURNS
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
    """Augments the batches of one training, epoch by epoch, from a seed.

    Random numbers are drawn on the CPU once an epoch and then lie on the images' device: nothing is
    copied between steps.
    """

    def __init__(self, settings: AugmentationSettings, images: Tensor, seed: int) -> None:
        """images (N, C, H, W): all that are trained on."""
        self.settings, self._device = settings, images.device
        self._count, self._channels, height, width = images.shape
        self._affine = torch.Generator().manual_seed(seed)  # and the stains'
        self._elastic = torch.Generator().manual_seed(seed ^ ELASTIC_STREAM)
        y = (2 * torch.arange(height) + 1) / height - 1
        x = (2 * torch.arange(width) + 1) / width - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        self._places = places.to(self._device)  # (1, H, W, 2) of the pixels themselves
        # Half the sides in pixels, in which turns and shears keep their angles.
        self._sides = (torch.tensor([width, height]) / 2).to(self._device)
        self.draw()

    def draw(self) -> None:
        """New random numbers for every image; call it before each epoch."""
        settings, count, channels = self.settings, self._count, self._channels
        if settings.warps or settings.stain_jitter > 0:
            numbers = 2 * torch.rand(count, NUMBERS, generator=self._affine) - 1
            stains = 2 * torch.rand(count, 2, channels, 1, 1, generator=self._affine) - 1
            self.numbers, self.stains = numbers.to(self._device), stains.to(self._device)
            self._matrices = _affine_matrices(settings.affine * self.numbers[:, 3:7])
        if settings.elastic > 0:  # most of the numbers: tens of milliseconds for all of MNIST
            shape = (count, 2, CONTROL_POINTS, CONTROL_POINTS)
            self.bumps = torch.randn(shape, generator=self._elastic).to(self._device)

    def state(self) -> list[Tensor]:
        """Where its random streams are."""
        return [self._affine.get_state(), self._elastic.get_state()]

    def set_state(self, state: list[Tensor]) -> None:
        """Go on where an augmenter of the same settings had this `state`."""
        self._affine.set_state(state[0])
        self._elastic.set_state(state[1])

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Augment images (B, C, H, W) and labels, the data set's rows `rows` (B,), on the device.

        Labels of pixels (B, H, W) move with the images; labels of images (B,) stay.
        """
        if self.settings.warps:
            grid = self._grid(rows)
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
            gain, offset = (self.settings.stain_jitter * self.stains[rows]).unbind(1)
            images = (images * (1 + LARGEST_GAIN * gain) + LARGEST_OFFSET * offset).clamp(0, 1)
        return images, labels

    def _grid(self, rows: Tensor) -> Tensor:
        """(B, H, W, 2) places to sample from, x then y, in [-1, 1] across the image."""
        numbers = self.numbers[rows]  # (B, NUMBERS)
        places, sides = self._places, self._sides
        if self.settings.augmentation == QUARTER_TURNS:
            signs = torch.where(numbers[:, None, None, :2] > 0, 1.0, -1.0)
            turned = (numbers[:, 2] > 0)[:, None, None, None]
            places = signs * torch.where(turned, places.flip(-1), places)
        matrices = self._matrices[rows]
        # As a product of matrices of two by two it takes twice as long, for the same numbers.
        x, y = (places * sides).unbind(-1)
        (xx, xy), (yx, yy) = (row.unbind(1) for row in matrices[..., None, None].unbind(1))
        places = torch.stack([x * xx + y * xy, x * yx + y * yy], -1) / sides
        largest = 2 * LARGEST_SHIFT * (self.settings.affine + self.settings.shift)
        places = places + largest * numbers[:, None, None, 7:]
        if self.settings.elastic > 0:
            size = tuple(places.shape[1:3])
            bumps = F.interpolate(self.bumps[rows], size, mode="bicubic", align_corners=True)
            deviation = 2 * ELASTIC_DEVIATION * self.settings.elastic
            places = places + deviation * bumps.permute(0, 2, 3, 1)
        return places.expand(len(rows), -1, -1, -1)


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
