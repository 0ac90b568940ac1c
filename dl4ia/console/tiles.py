"""An image of any size through a network of one: cut into tiles, and its answers blended."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dl4ia.data.gland_folder import shift_images


class Canvas:
    """A gland image in work.

    Where it is smaller than the network's size, it lies in the middle of its own reflection.
    """

    def __init__(self, pixels: NDArray[np.uint8], size: tuple[int, int], shift: float) -> None:
        """pixels: (H, W, C). size: the network's H, W. shift: how `shift_images` moves it first."""
        self.pixels = pixels
        self._size, self._shift = size, shift
        sides = pixels.shape[:2]
        missing = [max(0, tile - side) for tile, side in zip(size, sides, strict=True)]
        if any(missing):  # moved before it is reflected, as in training
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
            pixels = shift_images(image, shift)[0].permute(1, 2, 0).numpy()
            self._shift = 0.0
        margins = [(lack // 2, lack - lack // 2) for lack in missing]
        self._inside = tuple(
            slice(before, before + side) for (before, _), side in zip(margins, sides, strict=True)
        )
        reflected = np.pad(pixels, (*margins, (0, 0)), "reflect")
        whole = reflected.shape[:2]
        # A row and a column more: what is moved into a tile comes from its neighbour.
        self._source = np.pad(reflected, ((1, 0), (1, 0), (0, 0)), "edge")
        rows, columns = (tile_starts(side, tile) for side, tile in zip(whole, size, strict=True))
        self._starts = list(product(rows, columns))
        self._window = np.outer(*(_hat(tile) for tile in size))
        self._glands = np.zeros(whole, np.float32)
        self._weights = [
            _covered(side, tile, starts)
            for side, tile, starts in zip(whole, size, (rows, columns), strict=True)
        ]
        self._answered = 0

    def tiles(self) -> Iterator[Tensor]:
        """(C, H, W) float32 in [0, 1], row by row."""
        height, width = self._size
        for row, column in self._starts:
            part = self._source[row : row + height + 1, column : column + width + 1]
            image = torch.from_numpy(part).permute(2, 0, 1).float().div(255)
            yield shift_images(image[None], self._shift)[0, :, 1:, 1:]

    def add(self, probabilities: Tensor) -> None:
        """(2, H, W) of the next tile."""
        row, column = self._starts[self._answered]
        height, width = self._size
        place = self._glands[row : row + height, column : column + width]
        place += probabilities[1].numpy() * self._window
        self._answered += 1

    def mask(self) -> NDArray[np.bool_]:
        """(H, W): where gland is the likelier class, once all tiles have been answered."""
        half = np.outer(*self._weights) / 2
        return (self._glands > half)[self._inside]


def tile_starts(side: int, tile: int) -> list[int]:
    """Where tiles begin along `side` >= `tile` pixels: evenly, a quarter or more overlapping."""
    count = 1 + -(-(side - tile) // (tile - tile // 4))
    return [round(start) for start in np.linspace(0, side - tile, count)]


def _hat(tile: int) -> NDArray[np.float32]:
    """A tile's weights along one axis: its middle knows more than its edges, and none is 0."""
    distance = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
    return (distance / distance.max()).astype(np.float32)


def _covered(side: int, tile: int, starts: list[int]) -> NDArray[np.float32]:
    """The sum of all tiles' weights along one axis."""
    total = np.zeros(side, np.float32)
    for start in starts:
        total[start : start + tile] += _hat(tile)
    return total
