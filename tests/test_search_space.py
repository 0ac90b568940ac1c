"""A space's domains are strict, its conditions hold, and what it samples is what it accepts."""

from typing import Any

import optuna
import pytest

from dl4ia.search_space import (
    Space,
    check_point,
    choice,
    fingerprint,
    integer,
    markdown_table,
    real,
    sample,
)

SPACE: Space = {
    "network": choice("small", "large", doc="which network"),
    "flag": choice(True, False, doc="on or off"),
    "depth": integer(2, 5, doc="levels", when={"network": ("large",)}),
    "rate": real(1e-4, 1e-1, log=True, doc="step size"),
    "decay": real(0.0, 1.0, doc="shrinking", when={"network": ("large",), "flag": (True,)}),
}
SMALL = {"network": "small", "flag": True, "rate": 0.01}
LARGE = {"network": "large", "flag": True, "depth": 3, "rate": 0.01, "decay": 0.5}


def test_choice_membership_is_strict() -> None:
    flags, sizes = choice(True, False, doc=""), choice(1, 2, "full", doc="")
    assert True in flags
    assert 1 not in flags
    assert 1 in sizes
    assert "full" in sizes
    assert True not in sizes
    assert 1.0 not in sizes
    assert None not in sizes


def test_real_membership_is_strict() -> None:
    domain = real(0.5, 2.0, doc="")
    assert 0.5 in domain
    assert 2.0 in domain
    for outside in (0.4999, 2.0001, float("nan"), 1, True, "1.0"):
        assert outside not in domain


def test_integer_membership_is_strict() -> None:
    domain = integer(1, 3, doc="")
    assert 1 in domain
    assert 3 in domain
    for outside in (0, 4, 2.0, True, "2"):
        assert outside not in domain


@pytest.mark.parametrize("point", [SMALL, LARGE, LARGE | {"rate": 1e-4}])
def test_points_inside_are_accepted(point: dict[str, Any]) -> None:
    check_point(SPACE, point, "inside")


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (SMALL | {"rate": 0.5}, ("rate=0.5", "0.0001 to 0.1")),
        (SMALL | {"flag": 1}, ("flag=1", "`True`, `False`")),
        (SMALL | {"network": "huge"}, ("network='huge'", "`small`, `large`")),
        (LARGE | {"depth": 3.0}, ("depth=3.0", "2 to 5")),
        (SMALL | {"width": 3}, ("width", "network, flag, depth, rate, decay")),
        ({"network": "small", "flag": True}, ("rate is missing",)),
        (SMALL | {"depth": 3}, ("depth does not apply", "large")),
        (LARGE | {"flag": False}, ("decay does not apply",)),
    ],
)
def test_errors_name_the_point_and_the_value(point: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="model_9") as raised:
        check_point(SPACE, point, "model_9")
    for word in words:
        assert word in str(raised.value)


def test_sampled_points_lie_inside_and_lack_what_does_not_apply() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = []
    for _ in range(50):
        trial = study.ask()
        point = sample(SPACE, trial)
        check_point(SPACE, point, "sampled")
        assert trial.params == point
        assert ("depth" in point) == (point["network"] == "large")
        points.append(tuple(sorted(point)))
        study.tell(trial, 0.0)
    assert len(set(points)) == 3  # small; large without decay; large with decay


def test_an_enqueued_point_is_sampled_as_it_is() -> None:
    study = optuna.create_study()
    study.enqueue_trial(LARGE)
    assert sample(SPACE, study.ask()) == LARGE


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("network", choice("small", "large", "huge", doc="which network")),
        ("network", choice("large", "small", doc="which network")),
        ("flag", choice(1, 0, doc="on or off")),
        ("depth", integer(2, 6, doc="levels", when={"network": ("large",)})),
        ("depth", integer(2, 5, doc="levels", when={"network": ("small",)})),
        ("depth", integer(2, 5, doc="levels")),
        ("rate", real(1e-4, 2e-1, log=True, doc="step size")),
        ("rate", real(1e-4, 1e-1, doc="step size")),
        ("new", integer(0, 1, doc="")),
    ],
)
def test_the_fingerprint_tells_spaces_apart(name: str, domain: Any) -> None:
    assert fingerprint({**SPACE, name: domain}) != fingerprint(SPACE)


def test_the_fingerprint_overlooks_reworded_meanings() -> None:
    reworded = SPACE | {"flag": choice(True, False, doc="in other words")}
    assert fingerprint(reworded) == fingerprint(SPACE)
    assert len(fingerprint(SPACE)) == 12


def test_the_table_shows_domains_conditions_and_points() -> None:
    lines = markdown_table(SPACE, {"tiny": SMALL, "big": LARGE}).splitlines()
    assert "| `network` | `small`, `large` |  | which network |" in lines
    assert "| `rate` | 0.0001 to 0.1, log |  | step size |" in lines
    assert "| `decay` | 0 to 1 | network is large; flag is True | shrinking |" in lines
    assert "| named point | `tiny` | `big` |" in lines
    assert "| `depth` | – | 3 |" in lines
