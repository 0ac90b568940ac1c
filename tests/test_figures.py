"""The report page's plots of trials: what they show, and that hopeless trials do not flatten it."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from dl4ia.report import figures
from dl4ia.report.style import value_range

GOOD = [0.97, 0.98, 0.985, 0.99, 0.995]


def study_of(values: list[float]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate(values):
        point = {"rate": 0.1 + number / 100, "share": 0.9 - number / 100}
        space = {name: FloatDistribution(0, 1) for name in point}
        study.add_trial(create_trial(value=value, params=point, distributions=space))
    return study


def test_hopeless_trials_do_not_take_the_axis() -> None:
    low, high = value_range([0.1, 0.1, *GOOD])
    assert 0.9 < low < 0.97 and 0.995 < high < 1
    assert value_range(GOOD) == pytest.approx((0.9685, 0.9965))  # all of them, and room
    low, high = value_range([0.1, *[1.0] * 5])
    assert low < 0.1 and high > 1
    assert value_range([]) == (0, 1)


def test_plots_keep_to_the_range() -> None:
    study = study_of([0.1, *GOOD, 0.1])
    expected = value_range([0.1, *GOOD, 0.1])
    names = [str(trial.number) for trial in study.trials]
    history = figures.history(study.trials, "accuracy", names)
    assert history.layout.yaxis.range == expected
    assert max(max(trace.x) for trace in history.data if trace.x) == 6  # a double click shows all
    slices = figures.slices(study, ["rate", "share"], "accuracy")
    assert slices.layout.yaxis.range == expected
    assert set(slices.data[0].marker.color) == set(range(7))  # the trials' own numbers
    lines = [
        trace
        for trace in figures.parallel(study, ["rate", "share"], "accuracy").data
        if trace.mode == "lines"
    ]
    assert len(lines) == len(GOOD)
