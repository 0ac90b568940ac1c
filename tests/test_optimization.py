"""Schedules at their ends, and what the optimizers are."""

import math

import pytest
import torch
from torch import nn

from dl4ia.training.optimization import make_optimizer, schedule_factor

TOTAL = 1000


def factors(schedule: str) -> list[float]:
    return [schedule_factor(schedule, step, TOTAL) for step in range(TOTAL)]


def test_constant_stays_at_1() -> None:
    assert set(factors("constant")) == {1.0}


def test_exponential_is_the_reports_equation_1() -> None:
    values = factors("exponential")
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(1 / 30 + 29 / 30 * math.exp(-1), abs=1e-3)
    # Equation 1 itself, at a third of 300 steps: from 0.003 towards 0.0001.
    rate = 0.0001 + (0.003 - 0.0001) * math.exp(-100 / 300)
    assert 0.003 * schedule_factor("exponential", 100, 300) == pytest.approx(rate)


def test_fast_exponential_is_the_reports_code_for_digits() -> None:
    # 2,000 iterations are the time constant, 6,000 are trained: from 0.003 towards 0.0001.
    rate = 0.0001 + (0.003 - 0.0001) * math.exp(-1500 / 2000)
    assert 0.003 * schedule_factor("fast_exponential", 1500, 6000) == pytest.approx(rate)


def test_cosine_falls_from_1_to_0() -> None:
    values = factors("cosine")
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert values[TOTAL // 2] == pytest.approx(0.5)
    assert 0 < values[-1] < 1e-4


def test_one_cycle_rises_to_1_and_falls_to_0() -> None:
    values = factors("one_cycle")
    peak = values.index(max(values))
    assert values[0] == pytest.approx(1 / 25)
    assert peak == 300
    assert values[peak] == 1
    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert 0 < values[-1] < 1e-4


@pytest.mark.parametrize(
    "schedule", ["constant", "exponential", "fast_exponential", "cosine", "one_cycle"]
)
def test_a_training_of_one_step_learns(schedule: str) -> None:
    assert 0 < schedule_factor(schedule, 0, 1) <= 1


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(
        ValueError, match="'linear'.*constant, exponential, fast_exponential, cosine"
    ):
        schedule_factor("linear", 0, 10)


@pytest.mark.parametrize(
    ("name", "kind", "momentum"),
    [
        ("adam", torch.optim.Adam, None),
        ("adamw", torch.optim.AdamW, None),
        ("momentum", torch.optim.SGD, 0.9),
        ("sgd", torch.optim.SGD, 0.0),
    ],
)
def test_optimizers(name: str, kind: type[torch.optim.Optimizer], momentum: float | None) -> None:
    optimizer = make_optimizer(name, nn.Linear(2, 2).parameters(), 0.003, 0.01)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.003
    assert group["weight_decay"] == 0.01
    assert group.get("momentum") == momentum
    if momentum is None:
        assert group["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("name", ["adam", "adamw", "momentum", "sgd"])
def test_a_step_goes_downhill(name: str) -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer(name, [weight], 0.1, 0.0)
    (weight**2).sum().backward()
    optimizer.step()
    assert 0 < weight.item() < 2


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="'lion': expected adam, adamw, momentum or sgd"):
        make_optimizer("lion", nn.Linear(2, 2).parameters(), 0.1, 0.0)
