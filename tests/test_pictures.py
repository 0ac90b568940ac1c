from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dl4ia.data.dataset import Dataset
from dl4ia.data.embedded import EmbeddedGlands
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.tasks.panels import HIT, INVENTED, MISSED, displayable
from dl4ia.tasks.panels import errors as error_picture
from dl4ia.tasks.pictures import (
    draw_confusion,
    draw_history,
    draw_misclassified,
    draw_segmentations,
)


def test_errors_have_their_colours() -> None:
    prediction, label = torch.tensor([[1, 1], [0, 0]]), torch.tensor([[1, 0], [1, 0]])
    picture = error_picture(prediction, label)
    assert picture.tolist() == [[list(HIT), list(INVENTED)], [list(MISSED), [0, 0, 0]]]


def test_two_stains_are_red_and_green() -> None:
    shown = displayable(torch.tensor([[[0.25]], [[0.5]]]))
    assert shown.tolist() == [[[0.25, 0.5, 0.0]]]
    assert displayable(torch.ones(3, 4, 5)).shape == (4, 5, 3)


def test_the_reports_image_the_worst_the_median_and_the_best_are_drawn(tmp_path: Path) -> None:
    dataset: Dataset = EmbeddedGlands().train().subset(range(6))
    predictions = dataset.labels.clone()
    predictions[3] = 1 - predictions[3]
    files = draw_segmentations(dataset, predictions, tmp_path)
    names = [f"test_{name}.png" for name in ("image_05", "worst", "median", "best")]
    assert [file.name for file in files] == names
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert pixels.shape[1] > 1000 and pixels.std() > 20


def test_grey_images_are_shown_grey() -> None:
    assert displayable(torch.tensor([[[0.25, 0.75]]])).tolist() == [[[0.25] * 3, [0.75] * 3]]


def test_confusion_and_misclassified_images_are_drawn(tmp_path: Path) -> None:
    dataset = EmbeddedDigits().train().subset(range(60))
    classes = tuple("0123456789")
    one_wrong = dataset.labels.clone()
    one_wrong[3] = (one_wrong[3] + 1) % 10
    confidence = torch.rand(60)
    for file in (
        draw_confusion(dataset.labels, one_wrong, classes, tmp_path),
        draw_misclassified(dataset, one_wrong, classes, tmp_path, confidence),
        draw_misclassified(dataset, 9 - dataset.labels, classes, tmp_path),
    ):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert pixels.shape[1] > 400 and pixels.std() > 10


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """In "$5 to $10" matplotlib would see a formula, and in "a$_$" a wrong one."""
    dataset = EmbeddedDigits().train().subset(range(40))
    classes = ("$5 to $10", "a$_$", *"23456789")
    assert draw_confusion(dataset.labels, 9 - dataset.labels, classes, tmp_path).exists()
    assert draw_misclassified(dataset, 9 - dataset.labels, classes, tmp_path).exists()
    glands = EmbeddedGlands().train().subset(range(2))
    named = replace(glands, names=("a$_$.png", "b.png"))
    assert draw_segmentations(named, glands.labels, tmp_path)[0].exists()


def test_many_classes_are_shown_in_part(tmp_path: Path) -> None:
    """A picture of all would take memory by their square: of 1,600 a hundred times that."""
    labels = torch.arange(400) % 200
    classes = tuple(f"class {number}" for number in range(200))
    file = draw_confusion(labels, labels.roll(1), classes, tmp_path)
    assert max(Image.open(file).size) < 3000


def test_nothing_misclassified_is_drawn_too(tmp_path: Path) -> None:
    dataset = EmbeddedDigits().train().subset(range(20))
    assert draw_misclassified(dataset, dataset.labels, tuple("0123456789"), tmp_path).exists()


def test_the_history_is_drawn(tmp_path: Path) -> None:
    history = {
        name: [0.5, 0.4] for name in ("train_loss", "val_loss", "val_dice", "val_dice_pooled")
    }
    retrainings = [{"train_loss": [0.6, 0.5]}, {"train_loss": [0.7, 0.4]}]
    draw_history(history, retrainings, "dice", tmp_path / "history.png")
    assert np.asarray(Image.open(tmp_path / "history.png").convert("L")).std() > 5
