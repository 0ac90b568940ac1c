import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from dl4ia.command_line.flag_types import ALL
from dl4ia.data.embedded_digits import EmbeddedDigits
from dl4ia.errors import OutOfMemory, TrialFailure
from dl4ia.search_space import (
    SpaceModule,
    check_point,
    choice,
    defaults_of,
    real,
    sample,
    settings_of,
)
from dl4ia.selection.ablation import ablate, is_measured, measured_effects, turned_back
from dl4ia.tasks.classification import ClassificationTask
from dl4ia.tasks.segmentation import SegmentationTask
from dl4ia.tasks.task import Task
from dl4ia.workflow import ablation
from search_spaces import classification, segmentation

SPACE = {
    "optimizer": choice("adam", "adamw", doc=""),
    "weight_decay": real(0.0, 1.0, doc="", when={"optimizer": ("adamw",)}),
    "dropout": real(0.0, 0.5, doc=""),
    "width": choice(8, 16, doc=""),
    "depth": choice(1, 2, doc="", when={"width": (8,)}),
}
BASELINE = {"optimizer": "adam", "dropout": 0.0, "width": 8, "depth": 1}
WINNER = {"optimizer": "adamw", "weight_decay": 0.1, "dropout": 0.2, "width": 16}


def test_one_choice_at_a_time_with_what_hangs_on_it() -> None:
    assert turned_back(SPACE, WINNER, [BASELINE], {}) == {
        "optimizer": {"optimizer": "adam", "dropout": 0.2, "width": 16},
        "dropout": WINNER | {"dropout": 0.0},
        "width": WINNER | {"width": 8, "depth": 1},
    }


def test_a_choice_that_leaves_another_without_a_value_is_left_out() -> None:
    baseline = {name: value for name, value in BASELINE.items() if name != "depth"}
    assert set(turned_back(SPACE, WINNER, [baseline], {})) == {"optimizer", "dropout"}


def test_what_comes_to_apply_keeps_the_value_that_it_has_where_it_does_not() -> None:
    assert turned_back(SPACE, WINNER, [BASELINE], {"depth": 2})["width"]["depth"] == 2
    assert turned_back(SPACE, WINNER, [BASELINE], {"depth": 3})["width"]["depth"] == 1  # no choice


def test_what_would_have_more_weights_than_the_study_may_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """modern_cnn has 20,156; with the report's architecture, at its own width, twice as many."""
    winner = classification.REFERENCE_MODELS["modern_cnn"]

    def session(most: int | None, asked: tuple[str, ...]) -> Any:
        return SimpleNamespace(
            arguments=SimpleNamespace(most_weights=most, ablate=asked),
            whole=classification,
            task=ClassificationTask(tuple("0123456789")),
            dataset=EmbeddedDigits().train().subset(range(10)),
            study=SimpleNamespace(get_trials=lambda deepcopy: [SimpleNamespace(params=winner)]),
        )

    of_winner: Any = SimpleNamespace(winner=0)
    whole = ablation._turned_back(session(None, ALL), winner)
    limited = ablation._turned_back(session(25_000, ALL), winner)
    assert whole.keys() - limited.keys() == {"architecture"}
    said = (
        "  --ablate architecture: with exercise_1_4's the network has 45,620 weights, over "
        "--most-weights 25,000\n"
    )
    for asked in (ALL, ("architecture", "base_width")):
        ablation._tell_left_out(session(25_000, asked), of_winner)
        assert capsys.readouterr().out == said
    ablation._tell_left_out(session(None, ALL), of_winner)
    assert not capsys.readouterr().out


def test_a_wide_unets_width_is_turned_back_alone() -> None:
    """At width 32 depth and convolutions do not apply: they are 3 and 1, as in the report."""
    models = segmentation.REPORT_MODELS | segmentation.REFERENCE_MODELS
    known = [models[segmentation.BASELINE], *models.values()]
    defaults = defaults_of(SegmentationTask.settings)
    narrow = turned_back(segmentation.SPACE, models["unet"], known, defaults)["base_width"]
    settings = [settings_of(SegmentationTask.settings, point) for point in (models["unet"], narrow)]
    assert settings[1] == replace(settings[0], base_width=8)


class RandomTrial:
    """Samples without Optuna."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        return self.random.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self.random.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self.random.randint(low, high)


@pytest.mark.parametrize(
    ("searched", "task"),
    [(segmentation, SegmentationTask), (classification, ClassificationTask)],
    ids=["segmentation", "classification"],
)
def test_what_is_turned_back_is_a_point_of_the_space(
    searched: SpaceModule, task: type[Task]
) -> None:
    defaults = defaults_of(task.settings)
    models = searched.REPORT_MODELS | searched.REFERENCE_MODELS
    known = [models[searched.BASELINE], *models.values()]
    for seed in range(200):
        winner = sample(searched.SPACE, RandomTrial(seed))
        for name, point in turned_back(searched.SPACE, winner, known, defaults).items():
            check_point(searched.SPACE, point, name)
            assert point[name] == known[0][name] != winner[name]


class Additive:
    """Repeats whose value is a sum, on splits of unequal difficulty."""

    held_out = 0.25
    numbers = range(3, 6)

    def __init__(self) -> None:
        self.trained: list[tuple[int, dict[str, Any]]] = []

    def prepare(self, *_: object) -> None:
        pass

    def look_up(self) -> Callable[[Mapping[str, Any], int], float | None]:
        return self.known

    def known(self, point: Mapping[str, Any], number: int) -> float | None:
        return self.outcome(point, number) if (number, dict(point)) in self.trained else None

    def value(self, point: Mapping[str, Any], number: int, *_: object) -> float:
        self.trained.append((number, dict(point)))
        return self.outcome(point, number)

    def outcome(self, point: Mapping[str, Any], number: int) -> float:
        if point["width"] == 8:
            raise TrialFailure("epoch 1: loss is nan")
        adam = 0.0 if point["optimizer"] == "adamw" else [0.1, 0.12, 0.11][number - 3]
        return [0.5, 0.7, 0.9][number - 3] - adam + point["dropout"] * 0.1


def test_effects_are_paired_over_repeats() -> None:
    repeats: Any = Additive()
    turned = turned_back(SPACE, WINNER, [BASELINE], {})
    values = {}
    ablate(WINNER, turned, repeats, "trial 7", lambda: None, values.__setitem__)
    assert values == pytest.approx({3: 0.52, 4: 0.72, 5: 0.92})
    assert [point["width"] for _, point in repeats.trained].count(8) == 1  # it failed, for good
    effects = measured_effects(WINNER, turned, repeats)
    assert [each.name for each in effects] == ["optimizer", "dropout", "width"]
    optimizer, dropout, width = effects
    assert optimizer.differences == pytest.approx((0.1, 0.12, 0.11))
    assert (optimizer.chosen, optimizer.turned_back) == ("adamw", "adam")
    found = optimizer.estimate(repeats.held_out)
    assert found.mean == pytest.approx(0.11) and found.low > 0  # though splits differ by 0.4
    assert dropout.differences == pytest.approx((0.02, 0.02, 0.02))
    assert width.failure == "epoch 1: loss is nan"
    assert is_measured(effects, turned, 3) and not is_measured(effects, turned, 4)


def test_what_was_trained_before_a_stop_is_measured() -> None:
    """The first repeat whole, and of the second all but the last choice."""

    class Stopped(Additive):
        def value(self, point: Mapping[str, Any], number: int, *_: object) -> float:
            if number == 4 and point["optimizer"] == "adam":
                raise KeyboardInterrupt
            return super().value(point, number)

    turned = turned_back(SPACE, WINNER, [BASELINE], {})
    wanted = {name: turned[name] for name in ("dropout", "optimizer")}
    repeats: Any = Stopped()
    assert measured_effects(WINNER, turned, repeats) == []
    with pytest.raises(KeyboardInterrupt):
        ablate(WINNER, wanted, repeats, "trial 7", lambda: None, lambda *_: None)
    effects = measured_effects(WINNER, turned, repeats)
    assert [(each.name, len(each.differences)) for each in effects] == [
        ("optimizer", 1),
        ("dropout", 2),
    ]  # not the width, which was not asked for
    assert is_measured(effects, ["dropout"], 2) and not is_measured(effects, wanted, 2)


def test_that_the_memory_ran_out_is_no_effect_of_a_choice() -> None:
    """It would stand in the study for good, where the next start may have enough."""

    class Full(Additive):
        def outcome(self, point: Mapping[str, Any], number: int) -> float:
            if point["optimizer"] == "adam":
                raise OutOfMemory("epoch 1: out of memory")
            return super().outcome(point, number)

    turned = turned_back(SPACE, WINNER, [BASELINE], {})
    repeats: Any = Full()
    with pytest.raises(OutOfMemory):
        ablate(WINNER, turned, repeats, "trial 7", lambda: None, lambda *_: None)
