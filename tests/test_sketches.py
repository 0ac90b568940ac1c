from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dl4ia.data.dataset import Dataset
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.tasks.panels import INVENTED, MISSED
from dl4ia.tasks.sketches import (
    DIGIT,
    GAP,
    LINE,
    PANEL,
    sketch_confusion,
    sketch_misclassified,
    sketch_segmentations,
)


def pixels_of(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def test_a_row_of_panels_for_each_image(tmp_path: Path) -> None:
    dataset = EmbeddedGlands().train().subset(range(2))
    predictions = dataset.labels.clone()
    predictions[0] = 0
    predictions[1] = 1
    pixels = pixels_of(sketch_segmentations(dataset, predictions, tmp_path))
    assert pixels.shape[0] > 2 * (PANEL + LINE) and pixels.shape[1] > 4 * PANEL
    upper, lower = pixels[LINE : LINE + PANEL], pixels[2 * LINE + PANEL + 10 :]
    for half, colour, other in ((upper, MISSED, INVENTED), (lower, INVENTED, MISSED)):
        assert (half == colour).all(2).any() and not (half == other).all(2).any()


def test_oblong_images_keep_their_shape(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 16, 64)
    dataset = Dataset(images, torch.ones(1, 16, 64).long(), ("a.png",))
    pixels = pixels_of(sketch_segmentations(dataset, dataset.labels, tmp_path))
    assert pixels.shape[0] < PANEL and pixels.shape[1] > 4 * PANEL


def test_confusion_and_errors_of_any_classes(tmp_path: Path) -> None:
    dataset = EmbeddedDigits().train().subset(range(60))
    names = ("Ω-cell", "a name that is much longer than others", *(f"class {n}" for n in range(98)))
    for classes in (tuple("0123456789"), names):
        for predictions in (9 - dataset.labels, dataset.labels):
            for file in (
                sketch_confusion(dataset.labels, predictions, classes, tmp_path),
                sketch_misclassified(dataset, predictions, torch.rand(60), classes, tmp_path),
            ):
                pixels = pixels_of(file)
                assert pixels.shape[1] > 300 and pixels.std() > 3
                assert max(pixels.shape) < 2000


def test_the_surest_errors_come_first(tmp_path: Path) -> None:
    dataset = EmbeddedDigits().train().subset(range(40))
    classes = tuple("0123456789")
    wrong = (dataset.labels + 1) % 10
    sure = torch.linspace(1, 0, 40)
    all_wrong = pixels_of(sketch_misclassified(dataset, wrong, sure, classes, tmp_path))
    surest = torch.where(torch.arange(40) == 0, wrong, dataset.labels)
    alone = pixels_of(sketch_misclassified(dataset, surest, sure, classes, tmp_path))
    tile = slice(LINE + GAP, LINE + GAP + DIGIT), slice(GAP, GAP + DIGIT)
    assert (all_wrong[tile] == alone[tile]).all() and alone[tile].std() > 3
    last = pixels_of(sketch_misclassified(dataset, wrong, 1 - sure, classes, tmp_path))
    assert (last[tile] != alone[tile]).any()
