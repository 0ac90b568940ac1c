"""What the benchmarks train on: a task, its images, its search space."""

from pathlib import Path

from dl4ia.data.dataset import Source
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.data.gland_folder import GlandFolder
from dl4ia.data.idx_folder import IdxFolder
from dl4ia.search_space import SpaceModule
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.tasks.task import Task
from search_spaces import classification, segmentation


def open_task(name: str, folder: Path | None) -> tuple[Task, Source, SpaceModule]:
    """Of "digits" or "glands"; folder: of IDX files or image pairs, or else what dl4ia brings."""
    if name == "digits":
        digits = IdxFolder(folder) if folder else EmbeddedDigits()
        return ClassificationTask(digits.classes), digits, classification
    glands = GlandFolder(folder) if folder else EmbeddedGlands()
    return SegmentationTask(), glands, segmentation
