"""The segmentation task: how its points become networks, and how these are scored."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.metrics.counts import PixelCounts
from dl4ia.metrics.objects import ObjectCounts, object_dice, object_hausdorff
from dl4ia.metrics.surfaces import boundary_scores
from dl4ia.models.segmentation import ModelSettings, SegmentationModel
from dl4ia.search_space import settings_of
from dl4ia.statistics import Scores
from dl4ia.tasks.sketches import sketch_segmentations

# At once, and so many of 128x128; fixed, so that scoring does not depend on what is tuned.
EVALUATION_BATCH = 16
EVALUATION_PIXELS = EVALUATION_BATCH * 128 * 128
TRIAL_IMAGES = 3  # that every trial is pictured with


class SegmentationTask:
    """Glands against background; a study's value is the validation Dice, a mean over images."""

    name = "segmentation"
    metric = "dice"
    counts_images = False
    classes: tuple[str, ...] = ("background", "gland")
    cores_a_worker = 4
    settings = ModelSettings
    trains_in_low_precision = True

    def strata(self, dataset: Dataset) -> np.ndarray:
        """(N,) the share of gland pixels: every validation part gets its mix of sizes."""
        return dataset.labels.double().mean((1, 2)).numpy()

    def build(self, point: Mapping[str, Any], train: Dataset) -> SegmentationModel:
        """A fresh network, drawn from the global random stream; `train` gives the statistics."""
        settings = settings_of(ModelSettings, point)
        return SegmentationModel(settings, *train.channel_statistics)

    def evaluate(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> dict[str, float]:
        """Loss (cross-entropy, whatever was trained), dice, dice_pooled and iou of all images."""
        losses, counts = [], []
        for logits, labels in self._predictions(model, dataset, device):
            losses.append(F.cross_entropy(logits, labels, reduction="none").sum((1, 2)))
            counts.append(PixelCounts.of(logits.argmax(1), labels))
        pixels = dataset.labels[0].numel()
        loss = torch.cat(losses).double().mean().item() / pixels
        return {"loss": loss} | PixelCounts.concatenate(counts).summary()

    def predict(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N, H, W) uint8 masks, 1 where gland is the likelier class."""
        parts = [
            logits.argmax(1).to("cpu", torch.uint8)
            for logits, _ in self._predictions(model, dataset, device)
        ]
        return torch.cat(parts)

    def probabilities(self, model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
        """(N, 2, H, W) float32 on the CPU."""
        pairs = self._predictions(model, dataset, device)
        return torch.cat([logits.float().softmax(1).cpu() for logits, _ in pairs])

    def averaged_probabilities(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> Tensor:
        """The mean over flips, and quarter turns too where the images are square: 8 or 4 views."""
        height, width = dataset.images.shape[2:]
        total = torch.zeros(len(dataset), len(self.classes), height, width)
        views = list(product((False, True), (0, 1, 2, 3) if height == width else (0, 2)))
        for flipped, turns in views:
            images = dataset.images.flip(3) if flipped else dataset.images
            turned = replace(dataset, images=images.rot90(turns, (2, 3)))
            found = self.probabilities(model, turned, device).rot90(-turns, (2, 3))
            total += found.flip(3) if flipped else found
        return total / len(views)

    def image_scores(self, probabilities: Tensor, dataset: Dataset) -> dict[str, Scores]:
        """dice, dice_pooled, iou; the boundary's; and the contest's object by object (pixels)."""
        masks, labels = probabilities.argmax(1), dataset.labels
        objects = (masks, labels, dataset.instances)
        counts = PixelCounts.of(masks, labels)
        twice, pixels = 2 * counts.both, counts.predicted + counts.labelled
        return {
            "dice": Scores.of(counts.dice()),
            "dice_pooled": Scores.of(twice, pixels),
            "iou": Scores.of(counts.iou()),
            **{name: Scores.of(values) for name, values in boundary_scores(masks, labels).items()},
            "object_f1": Scores.of(ObjectCounts.of(*objects).f1()),
            "object_dice": Scores.of(object_dice(*objects)),
            "object_hausdorff": Scores.of(object_hausdorff(*objects)),
        }

    def whole_scores(self, probabilities: Tensor, dataset: Dataset) -> dict[str, float]:
        """Empty: all of its metrics are means, or ratios of sums, over images."""
        return {}

    def draw_trial(
        self, model: nn.Module, validation: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """The first validation images, prediction, label and errors, as one PNG file."""
        shown = validation.subset(range(min(len(validation), TRIAL_IMAGES)))
        return [sketch_segmentations(shown, self.predict(model, shown, device), folder)]

    def draw(
        self, model: nn.Module, test: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """Input, prediction and label of image 05, the worst, median and best, as PNG files."""
        from dl4ia.tasks.pictures import draw_segmentations  # slow to import

        return draw_segmentations(test, self.predict(model, test, device), folder)

    def _predictions(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels, a few images at a time: all would not fit into memory."""
        model.eval()
        model.to(device)
        pixels = dataset.images[0, 0].numel()
        batch = max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // pixels))
        for start in range(0, len(dataset), batch):
            images = dataset.images[start : start + batch].to(device)
            labels = dataset.labels[start : start + batch].to(device)
            with torch.no_grad():
                logits = model(images.contiguous(memory_format=torch.channels_last))
            yield logits, labels
