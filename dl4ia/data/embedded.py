"""The drawn glands as a data source, for whoever has no data of their own."""

import torch

from dl4ia.data.dataset import Dataset
from dl4ia.data.glands import Part, draw_glands


class EmbeddedGlands:
    """85 training and 60 test images of 64x64 pixels; a `dl4ia.data.dataset.Source`."""

    name = "glands"
    description = "the embedded, drawn glands: 85 training and 60 test images of 64x64 pixels"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.preparation: dict[str, str | float] = {"drawn_from_seed": seed}

    def train(self) -> Dataset:
        """The training images and labels."""
        return self._draw("train")

    def test(self) -> Dataset:
        """The test images and labels; for `dl4ia.evaluation` alone."""
        return self._draw("test")

    def _draw(self, part: Part) -> Dataset:
        drawn = draw_glands(part, self.seed)
        return Dataset(
            images=torch.from_numpy(drawn.images).float() / 255,
            labels=torch.from_numpy(drawn.masks).long(),
            names=tuple(f"image_{number:02d}.png" for number in range(1, len(drawn.images) + 1)),
            groups=tuple(str(patient) for patient in drawn.patients),
        )
