"""The sampler is Optuna's TPE, quicker: it samples the same points."""

import random

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from dl4ia.search.sampler import Sampler
from dl4ia.search_space import Space, choice, integer, real, sample

SPACE: Space = {
    "kind": choice("a", "b", "c", doc="a choice"),
    "flag": choice(False, True, doc="another"),
    "rate": real(1e-4, 1.0, log=True, doc="a number"),
    "depth": integer(1, 6, doc="a whole number"),
    "momentum": real(0.0, 1.0, doc="one that not all have", when={"kind": ("a",)}),
    "width": integer(8, 64, doc="another", when={"kind": ("a", "b")}),
}


class Optunas(Sampler):
    """It with Optuna's own sampling."""

    _sample = TPESampler._sample
    _get_internal_repr = TPESampler._get_internal_repr


def value_of(point: dict[str, float]) -> float:
    return point["rate"] + point.get("momentum", 0.2) - abs(point["depth"] - 3) / 10


def sampled_by(sampler: Sampler, objectives: int) -> list[dict[str, float]]:
    """The points of 60 trials, of two processes in turns: completed, pruned, failed, running."""
    study = optuna.create_study(directions=["maximize"] * objectives, sampler=sampler)
    draw, running = random.Random(1), []
    for number in range(60):
        trial = study.ask()
        point = sample(SPACE, trial)
        running.append((trial, value_of(point)))
        while len(running) > draw.randrange(1, 4):
            ended, value = running.pop(0)
            if number % 7 == 3 and objectives == 1:
                ended.report(value, number % 3 + 1)
                study.tell(ended, state=TrialState.PRUNED)
            elif number % 11 == 5:
                study.tell(ended, state=TrialState.FAIL)
            else:
                study.tell(ended, [value, -float(number % 5)][:objectives])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_points_are_optunas(objectives: int) -> None:
    found, expected = (sampled_by(kind(3, 8), objectives) for kind in (Sampler, Optunas))
    assert found == expected
    values = [value_of(point) for point in found]
    assert sum(values[-20:]) > sum(values[:20]), "it has learnt"


def test_a_running_trial_is_known_by_what_has_been_sampled_for_it() -> None:
    """One after the other, or all at once before the first of them was asked for."""
    points = []
    for kind in (Sampler, Optunas):
        study = optuna.create_study(direction="maximize", sampler=kind(3, 8))
        study.optimize(lambda trial: value_of(sample(SPACE, trial)), n_trials=12)
        first, second = study.ask(), study.ask()
        begun = {name: SPACE[name].suggest(first, name) for name in ("kind", "flag")}
        relative = study.trials[12].system_attrs["tpe:relative_params:0"]
        assert '"rate"' in relative and begun.keys() == study.trials[12].params.keys()
        points.append(sample(SPACE, second))
    assert points[0] == points[1]


def test_two_that_are_asked_for_before_either_is_sampled() -> None:
    """Each takes the other one for running, not itself."""
    sampler = Sampler(3, 8)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: value_of(sample(SPACE, trial)), n_trials=12)
    asked = [study.ask(), study.ask()]
    for trial in asked:
        sample(SPACE, trial)
        good, others = sampler._split(study, study.trials[trial.number])
        assert {each.number for each in good + others} == {*range(14)} - {trial.number}
