"""Where the report's trainings are run: on MNIST and WARWICK, or on what stands in for them."""

from pathlib import Path

import torch

from dl4ia.data.dataset import Source
from dl4ia.data.digit_source import digit_source
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.replication.trainings import Bench
from dl4ia.session import open_device
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.tasks.task import Task


def open_bench(
    task: str, data: Path | None, default: Path, out: Path, name: str, device: str, images: int
) -> Bench:
    """The bench of "classification" or "segmentation", its training images read.

    data, default: as given, and where to look otherwise. images: at most so many for training.
    Raises InputError as the sources do.
    """
    source: Source
    scorer: Task = SegmentationTask()
    if task == "classification":
        source = digits = digit_source(data, default, out / "cache", "grey")
        scorer = ClassificationTask(digits.classes)
    else:
        source = _glands(data, default)
    if is_stand_in(source):
        print(
            f"*** {source.description}:\n*** the report's figures are of other images", flush=True
        )
    dataset = source.train()
    if images < len(dataset):
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        dataset = dataset.subset(order[:images].tolist())
    found, environment = open_device(device)
    return Bench(scorer, source, dataset, found, environment, out / "artifacts" / name)


def is_stand_in(source: Source) -> bool:
    """Whether its images are others than the report's, for want of these."""
    return isinstance(source, EmbeddedGlands | EmbeddedDigits)


def _glands(data: Path | None, default: Path) -> Source:
    if data is None and not default.is_dir():
        return EmbeddedGlands()
    # The report knew nothing of the half pixel between its images and their labels.
    return GlandFolder(data or default, image_shift=0.0)
