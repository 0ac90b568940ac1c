"""The segmentation task: how its points become networks, and how these are scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.metrics import PixelCounts
from dl4ia.models.segmentation import ModelSettings, SegmentationModel
from dl4ia.pictures import draw_segmentations
from dl4ia.search_space import settings_of
from dl4ia.surfaces import hausdorff_95, surface_dice

EVALUATION_BATCH = 16  # images; fixed, so that scoring does not depend on what is tuned


class SegmentationTask:
    """Glands against background; a study's value is the validation Dice, a mean over images."""

    name = "segmentation"
    metric = "dice"
    classes: tuple[str, ...] = ("background", "gland")

    def strata(self, dataset: Dataset) -> np.ndarray:
        """(N,) the share of gland pixels: every validation part gets its mix of sizes."""
        return dataset.labels.double().mean((1, 2)).numpy()

    def build(self, point: Mapping[str, Any], train: Dataset) -> SegmentationModel:
        """A fresh network, drawn from the global random stream; `train` gives the statistics."""
        settings = settings_of(ModelSettings, point)
        return SegmentationModel(settings, *train.channel_statistics())

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

    def further_metrics(self, predictions: Tensor, dataset: Dataset) -> dict[str, float]:
        """surface_dice_1px, surface_dice_2px and hausdorff_95 (pixels), means over images."""
        scores = {
            f"surface_dice_{tolerance}px": surface_dice(predictions, dataset.labels, tolerance)
            for tolerance in (1, 2)
        }
        scores["hausdorff_95"] = hausdorff_95(predictions, dataset.labels)
        return {name: values.mean().item() for name, values in scores.items()}

    def draw(
        self, model: nn.Module, test: Dataset, device: torch.device, folder: Path
    ) -> list[Path]:
        """Input, prediction and label of image 05, the worst and the best, as PNG files."""
        return draw_segmentations(test, self.predict(model, test, device), folder)

    @torch.no_grad()
    def _predictions(
        self, model: nn.Module, dataset: Dataset, device: torch.device
    ) -> list[tuple[Tensor, Tensor]]:
        model.eval()
        model.to(device)
        pairs = []
        for start in range(0, len(dataset), EVALUATION_BATCH):
            images = dataset.images[start : start + EVALUATION_BATCH].to(device)
            labels = dataset.labels[start : start + EVALUATION_BATCH].to(device)
            pairs.append((model(images.contiguous(memory_format=torch.channels_last)), labels))
        return pairs
