"""The spaces hold the report's models, and every name in them reaches the code."""

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest

from dl4ia.models import classification as digit_models
from dl4ia.models import segmentation as gland_models
from dl4ia.search_space import SpaceModule, check_point
from dl4ia.training.augmentation import AugmentationSettings
from dl4ia.training.fit import TrainingSettings
from search_spaces import classification, segmentation
from search_spaces.__main__ import README, SPACES, readme

DIGITS, GLANDS = classification.REPORT_MODELS, segmentation.REPORT_MODELS
NAMED = [
    (searched, name)
    for searched in SPACES.values()
    for name in searched.REPORT_MODELS | searched.REFERENCE_MODELS
]


@pytest.mark.parametrize(("searched", "name"), NAMED, ids=[name for _, name in NAMED])
def test_named_points_lie_inside(searched: SpaceModule, name: str) -> None:
    check_point(searched.SPACE, (searched.REPORT_MODELS | searched.REFERENCE_MODELS)[name], name)


def test_the_reports_models_are_there() -> None:
    models = [f"model_{number}" for number in range(1, 6)]
    assert list(GLANDS) == ["baseline", *models, "unet", "resnet"]
    assert list(DIGITS) == [f"exercise_1_{number}" for number in range(1, 5)] + models[:4]
    for searched in SPACES.values():
        assert not searched.REPORT_MODELS.keys() & searched.REFERENCE_MODELS.keys()


def test_the_readme_is_fresh() -> None:
    assert README.read_text(encoding="utf-8") == readme(), "run python -m search_spaces"


@pytest.mark.parametrize(
    ("searched", "model", "other"),
    [(classification, digit_models, segmentation), (segmentation, gland_models, classification)],
    ids=SPACES,
)
def test_each_hyperparameter_is_a_setting_of_one_part_of_the_code(
    searched: SpaceModule, model: Any, other: SpaceModule
) -> None:
    settings = Counter(
        field.name
        for kind in (model.ModelSettings, TrainingSettings, AugmentationSettings)
        for field in fields(kind)
    )
    assert set(settings.values()) == {1}
    assert settings.keys() - searched.SPACE.keys() <= other.SPACE.keys(), "searched by neither"
    assert searched.SPACE.keys() <= settings.keys()


@pytest.mark.parametrize("point", GLANDS.values(), ids=GLANDS)
def test_facts_that_all_gland_models_share(point: dict[str, Any]) -> None:
    shared = {
        "initialization": "report",
        "loss": "cross_entropy",
        "optimizer": "adam",
        "learning_rate": 0.003,
        "batch_size": "full",
        "dropout": 0.0,
        "averaging": 0.0,
        "affine": 0.0,
        "elastic": 0.0,
        "stain_jitter": 0.0,
    }
    assert shared.items() <= point.items()
    # Of the widest networks the space leaves the depth at the report's.
    assert point.get("depth", gland_models.ModelSettings.depth) == 3


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
def test_facts_in_which_gland_models_differ(
    name: str, architecture: str, normalization: str, schedule: str
) -> None:
    point = GLANDS[name]
    assert point["architecture"] == architecture
    assert point["normalization"] == normalization
    assert point["schedule"] == schedule


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "exercise_1_1",
            {"optimizer": "sgd", "learning_rate": 0.01, "batch_size": 30, "hidden_width": 128},
        ),
        ("exercise_1_2", {"optimizer": "sgd", "learning_rate": 0.005, "head_width": 10}),
        ("exercise_1_3", {"pool": "before_convolution", "learning_rate": 0.003}),
        ("exercise_1_4", {"optimizer": "adam", "learning_rate": 0.001, "head_width": 10}),
        ("model_1", {"head_width": 50, "dropout": 0.25, "schedule": "constant"}),
        ("model_2", {"head_width": 10, "normalization": "batch", "schedule": "constant"}),
        ("model_3", {"head_width": 10, "schedule": "fast_exponential", "learning_rate": 0.003}),
        ("model_4", {"head_width": 200, "dropout": 0.25, "schedule": "fast_exponential"}),
    ],
)
def test_facts_of_the_digit_models(name: str, facts: dict[str, Any]) -> None:
    point = DIGITS[name]
    assert facts.items() <= point.items()
    assert point["initialization"] == "report" and point["activation"] == "relu"
    assert point["label_smoothing"] == point["shift"] == point["affine"] == point["elastic"] == 0.0
    if name != "exercise_1_1":
        assert point["batch_size"] == 100 and point["base_width"] == 8
