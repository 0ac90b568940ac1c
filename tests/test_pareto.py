import optuna
import pytest
from optuna.trial import TrialState, create_trial

from dl4ia.errors import InputError
from dl4ia.search.pareto import knee_point, pareto_front


def study_of(*values: tuple[float, ...]) -> optuna.Study:
    further = ["minimize"] * (len(values[0]) - 1) if values else ["minimize"]
    study = optuna.create_study(directions=["maximize", *further])
    for each in values:
        study.add_trial(create_trial(values=list(each)))
    return study


def test_the_front_is_what_no_other_beats() -> None:
    study = study_of((0.9, 1000), (0.8, 100), (0.85, 2000), (0.7, 100), (0.5, 10))
    assert [trial.number for trial in pareto_front(study)] == [0, 1, 4]


def test_the_knee_is_nearest_to_the_best_of_all() -> None:
    """Accuracy hardly falls from 10,000 weights to 100, and then it breaks down."""
    front = pareto_front(study_of((0.99, 10_000), (0.98, 100), (0.5, 10)))
    assert knee_point(front).number == 1
    # Not by the numbers themselves, among which 1,000 of a million weights are next to nothing.
    front = pareto_front(study_of((0.99, 1_000_000), (0.95, 1000), (0.70, 900)))
    assert knee_point(front).number == 1


def test_one_point_is_its_own_knee() -> None:
    assert knee_point(pareto_front(study_of((0.9, 10)))).number == 0
    assert knee_point(pareto_front(study_of((0.9, 10, 2.0), (0.8, 5, 3.0)))).number == 0


def test_without_a_completed_trial_there_is_no_front() -> None:
    study = study_of()
    study.add_trial(create_trial(state=TrialState.FAIL))
    with pytest.raises(InputError, match="has no completed trial"):
        pareto_front(study)
