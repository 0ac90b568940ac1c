"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Iterable

import torch
from torch import nn

MOMENTUM = 0.9
EXPONENTIAL_FLOOR = 1 / 30  # the report: from 0.003 to 0.0001
WARM_UP = 0.3  # share of the steps, and start, of one_cycle (Smith & Topin 2019)
ONE_CYCLE_START = 1 / 25


def make_optimizer(
    name: str, weights: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """`adam`, `adamw` (decoupled weight decay), `momentum` or `sgd` (L2 penalty)."""
    if name == "adam":
        return torch.optim.Adam(weights, learning_rate, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay, fused=True)
    if name in ("momentum", "sgd"):
        momentum = MOMENTUM if name == "momentum" else 0.0
        return torch.optim.SGD(
            weights, learning_rate, momentum, weight_decay=weight_decay, fused=True
        )
    raise ValueError(f"optimizer {name!r}: expected adam, adamw, momentum or sgd")


def schedule_factor(name: str, step: int, total: int) -> float:
    """What the largest learning rate is multiplied by at `step` of 0 .. total - 1.

    `exponential` is the report's Equation 1 with its lost minus sign,
    min + (max - min) exp(-step / total), and min = max / 30. `fast_exponential` decays three times
    as fast, as the report's code for digits did (2,000 iterations of 6,000).
    """
    progress = step / total
    if name == "constant":
        return 1.0
    if name == "exponential":
        return EXPONENTIAL_FLOOR + (1 - EXPONENTIAL_FLOOR) * math.exp(-progress)
    if name == "fast_exponential":
        return EXPONENTIAL_FLOOR + (1 - EXPONENTIAL_FLOOR) * math.exp(-3 * progress)
    if name == "cosine":
        return _half_cosine(progress)
    if name == "one_cycle":
        if progress < WARM_UP:
            return 1 - (1 - ONE_CYCLE_START) * _half_cosine(progress / WARM_UP)
        return _half_cosine((progress - WARM_UP) / (1 - WARM_UP))
    known = "constant, exponential, fast_exponential, cosine or one_cycle"
    raise ValueError(f"schedule {name!r}: expected {known}")


def _half_cosine(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    return (1 + math.cos(math.pi * progress)) / 2
