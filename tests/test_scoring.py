import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dl4ia.data.dataset import Dataset
from dl4ia.evaluation.scoring import score, summary, table
from dl4ia.statistics import Scores, bootstrap, difference
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask

CPU = torch.device("cpu")
GLANDS = SegmentationTask()


class Threshold(nn.Module):
    """Gland where the first stain is above a level; moved to the right by `shift` pixels."""

    def __init__(self, level: float, shift: int = 0) -> None:
        super().__init__()
        self.level, self.shift = level, shift

    def forward(self, images: Tensor) -> Tensor:
        logit = (images[:, :1] - self.level).roll(self.shift, 3) * 20
        return torch.cat([-logit, logit], 1)


def squares(count: int = 6, size: int = 16, groups: bool = False) -> Dataset:
    """A bright square in each image, with some noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(count, size, size, dtype=torch.int64)
    for number in range(count):
        labels[number, 3 : 8 + number % 3, 4:12] = 1
    noise = 0.5 * torch.rand(count, 2, size, size, generator=generator)
    images = labels[:, None] * 0.5 + noise
    names = tuple(f"image_{number:02d}.png" for number in range(count))
    patients = tuple(str(number // 2) for number in range(count))
    return Dataset(images, labels, names, patients if groups else None)


def test_scores_are_those_of_the_task_itself() -> None:
    test = squares()
    models = [Threshold(0.5), Threshold(0.4), Threshold(0.3)]
    found = summary(score(GLANDS, models, test, CPU), None, None)
    each = [GLANDS.evaluate(model, test, CPU) for model in models]
    for name in ("dice", "dice_pooled", "iou"):
        values = [metrics[name] for metrics in each]
        assert found[f"test_{name}"] == pytest.approx(np.mean(values))
        assert found[f"test_{name}_sd"] == pytest.approx(np.std(values, ddof=1))
        assert found[f"test_{name}_seed_1"] == pytest.approx(values[1])
        assert found[f"test_{name}_low"] <= found[f"test_{name}"] <= found[f"test_{name}_high"]
    expected = {"surface_dice_1px", "surface_dice_2px", "hausdorff_95", "object_f1", "object_dice",
                "object_hausdorff"}  # fmt: skip
    assert {f"test_{name}" for name in expected} <= found.keys()


def test_one_seed_has_no_deviation() -> None:
    assert "test_dice_sd" not in summary(
        score(GLANDS, [Threshold(0.5)], squares(), CPU), None, None
    )


def test_the_ensemble_is_of_mean_probabilities() -> None:
    test = squares()
    models = [Threshold(0.45), Threshold(0.7)]
    scored = score(GLANDS, models, test, CPU)
    mean = sum(model(test.images).softmax(1) for model in models) / 2
    expected = GLANDS.image_scores(mean, test)["dice"].mean()
    assert summary(scored, None, None)["test_dice_ensemble"] == pytest.approx(expected)


def test_averaging_over_views_turns_each_back() -> None:
    """A model without a sense of direction gives the same; one that shifts is averaged out."""
    test = squares()
    plain = Threshold(0.45)
    views = GLANDS.averaged_probabilities(plain, test, CPU)
    assert torch.allclose(views, plain(test.images).softmax(1), atol=1e-6)
    shifting = score(GLANDS, [Threshold(0.45, shift=1)], test, CPU)
    found = summary(shifting, None, None)
    assert found["test_dice_ensemble_averaged"] > found["test_dice"]
    wide = Dataset(test.images[..., :12], test.labels[..., :12], test.names)
    views = GLANDS.averaged_probabilities(plain, wide, CPU)
    assert torch.allclose(views, plain(wide.images).softmax(1), atol=1e-6)


def test_a_better_model_is_known_to_be_better() -> None:
    test = squares(12, groups=True)  # of six patients
    levels = (0.5, 0.502, 0.504)
    better = score(GLANDS, [Threshold(level) for level in levels], test, CPU)
    worse = score(GLANDS, [Threshold(level, 2) for level in levels], test, CPU)
    found = summary(better, worse, test.groups)
    assert found["p_better_dice"] > 0.99
    assert found["p_better_hausdorff_95"] > 0.99  # lower is better
    assert 0 < found["difference_dice_low"] < found["difference_dice"]
    assert found["difference_dice"] == pytest.approx(found["test_dice"] - found["report_dice"])
    assert 0 < summary(worse, better, test.groups)["p_better_dice"] < 0.01


def test_of_few_patients_there_is_no_interval() -> None:
    test = squares(8, groups=True)
    models = score(GLANDS, [Threshold(0.5), Threshold(0.4)], test, CPU)
    found = summary(models, models, test.groups)
    assert {"test_dice", "test_dice_sd", "report_dice", "difference_dice"} <= found.keys()
    assert not any(name.endswith(("_low", "_high")) or "p_better" in name for name in found)
    assert "test_dice_low" in summary(models, models, None)


def test_the_table_has_every_seed_and_image(tmp_path: Path) -> None:
    test = squares(groups=True)
    scored = score(GLANDS, [Threshold(0.5), Threshold(0.4)], test, CPU)
    rows = table({"winner": scored}, test)
    assert len(rows) == 12
    assert rows[7]["seed"] == 1 and rows[7]["image"] == "image_01.png" and rows[7]["patient"] == "0"
    assert "dice_pooled" not in rows[0]  # no mean over images
    first = [float(row["dice"]) for row in rows if row["seed"] == 0]
    assert np.mean(first) == pytest.approx(scored.single["dice"].by_seed()[0])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.DictWriter(file, list(rows[0])).writerows(rows)  # all rows have the same columns


class Sure(nn.Module):
    """Says the class that the image's first pixel names, always as sure."""

    def forward(self, images: Tensor) -> Tensor:
        return 4 * nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float()


def test_digits_have_accuracies_of_classes_and_a_calibration_error() -> None:
    task = ClassificationTask(("a", "b", "c"))
    labels = torch.tensor([0, 0, 1, 1])
    said = torch.tensor([0.0, 1.0, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    test = Dataset(said, labels, ("1", "2", "3", "4"))
    found = summary(score(task, [Sure()], test, CPU), None, None)
    assert found["test_accuracy"] == 0.75
    assert found["test_accuracy_of_a"] == 0.5 and found["test_accuracy_of_b"] == 1
    assert "test_accuracy_of_c" not in found  # no image is of it
    confidence = torch.tensor([4.0, 0, 0]).softmax(0)[0].item()
    assert found["test_calibration_error"] == pytest.approx(abs(0.75 - confidence), abs=1e-6)
    assert "test_accuracy_ensemble_averaged" not in found
    assert found["test_accuracy_ensemble"] == 0.75


def test_of_a_class_of_few_images_there_is_no_interval() -> None:
    """However many images there are of others."""
    task = ClassificationTask(("a", "b", "c"))
    labels = torch.tensor([0] * 40 + [1] * 4)
    said = torch.cat([labels[:-1], torch.tensor([0])]).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    test = Dataset(said, labels, tuple(map(str, range(44))))
    ours = score(task, [Sure(), Sure()], test, CPU)
    theirs = score(task, [Sure()], Dataset(said.roll(1, 0), labels, test.names), CPU)
    found = summary(ours, theirs, None)
    assert found["test_accuracy_of_b"] == 0.75 and "test_accuracy_low" in found
    assert not {"test_accuracy_of_b_low", "p_better_accuracy_of_b"} & found.keys()
    assert "test_accuracy_of_a_low" in found


def test_differences_of_rounding_are_none() -> None:
    """The same images wrong by the same seeds, summed in another order."""
    images = np.random.default_rng(0).integers(0, 3, (3, 60)) / 3
    draws = bootstrap([Scores.of_seeds([Scores.of(row) for row in images])], None, 0)[0]
    moved = draws * (1 + 1e-15 * np.sign(draws - draws.mean()))
    assert (draws != moved).any() and not difference(draws, moved).any()
    assert difference(0.9, 0.8) == pytest.approx(0.1) and difference(1e-9, 0.0) == 1e-9


def test_images_that_are_all_right_leave_room_for_others() -> None:
    """A bootstrap would be sure: each of its draws is all right too."""
    test = squares(8, groups=False)
    perfect = score(GLANDS, [Threshold(0.5), Threshold(0.5)], test, CPU)
    found = summary(perfect, perfect, None)
    assert found["test_dice"] == 1 == found["test_dice_high"]
    assert found["test_dice_low"] == pytest.approx(0.025 ** (1 / 8))
    assert "test_hausdorff_95_low" not in found  # of a distance nobody knows how far it goes
    assert "difference_dice_low" not in found and found["difference_dice"] == 0
    worse = score(GLANDS, [Threshold(0.8), Threshold(0.7)], test, CPU)
    for first, second in ((perfect, worse), (worse, perfect)):
        found = summary(first, second, None)
        assert abs(found["difference_dice"]) > 0.1  # from a score that is not known to be whole
        assert not {"difference_dice_low", "difference_dice_high", "p_better_dice"} & found.keys()
    by_patient = squares(12, groups=True)  # six
    found = summary(score(GLANDS, [Threshold(0.5)], by_patient, CPU), None, by_patient.groups)
    assert found["test_dice_low"] == pytest.approx(0.025 ** (1 / 6))
