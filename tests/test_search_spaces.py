"""The segmentation space holds the report's models, and every name in it reaches the code."""

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest

from dl4ia.models.segmentation import ModelSettings
from dl4ia.search_space import check_point
from dl4ia.training.augmentation import AugmentationSettings
from dl4ia.training.fit import TrainingSettings
from search_spaces.__main__ import README, readme
from search_spaces.segmentation import REFERENCE_MODELS, REPORT_MODELS, SPACE

NAMED = REPORT_MODELS | REFERENCE_MODELS


@pytest.mark.parametrize("name", NAMED)
def test_named_points_lie_inside(name: str) -> None:
    check_point(SPACE, NAMED[name], name)


def test_the_reports_models_are_there() -> None:
    models = [f"model_{number}" for number in range(1, 6)]
    assert list(REPORT_MODELS) == ["baseline", *models, "unet", "resnet"]
    assert not REPORT_MODELS.keys() & REFERENCE_MODELS.keys()


def test_the_readme_is_fresh() -> None:
    assert README.read_text(encoding="utf-8") == readme(), "run python -m search_spaces"


def test_each_hyperparameter_is_a_setting_of_one_part_of_the_code() -> None:
    settings = Counter(
        field.name
        for kind in (ModelSettings, TrainingSettings, AugmentationSettings)
        for field in fields(kind)
    )
    assert SPACE.keys() <= settings.keys()
    assert set(settings.values()) == {1}
    assert settings.keys() - SPACE.keys() == {"label_smoothing", "shift"}  # of the digit space


@pytest.mark.parametrize("point", REPORT_MODELS.values(), ids=REPORT_MODELS)
def test_facts_that_all_report_models_share(point: dict[str, Any]) -> None:
    shared = {
        "initialization": "report",
        "loss": "cross_entropy",
        "optimizer": "adam",
        "learning_rate": 0.003,
        "batch_size": "full",
        "dropout": 0.0,
        "affine": 0.0,
        "elastic": 0.0,
        "stain_jitter": 0.0,
    }
    assert shared.items() <= point.items()
    # Of the widest networks the space leaves the depth at the report's.
    assert point.get("depth", ModelSettings.depth) == 3


@pytest.mark.parametrize(
    ("name", "architecture", "normalization", "schedule"),
    [
        ("baseline", "fcn", "none", "constant"),
        ("model_1", "fcn", "none", "constant"),
        ("model_2", "fcn", "none", "exponential"),
        ("model_3", "fcn", "batch", "exponential"),
        ("model_4", "encoder_decoder", "none", "constant"),
        ("model_5", "encoder_decoder", "batch", "constant"),
        ("unet", "unet", "batch", "exponential"),
        ("resnet", "resnet", "batch", "exponential"),
    ],
)
def test_facts_in_which_report_models_differ(
    name: str, architecture: str, normalization: str, schedule: str
) -> None:
    point = REPORT_MODELS[name]
    assert point["architecture"] == architecture
    assert point["normalization"] == normalization
    assert point["schedule"] == schedule
    assert point["base_width"] == (8 if architecture == "fcn" else 32)
    assert point["augmentation"] == ("report_rotations" if name == "model_1" else "none")
