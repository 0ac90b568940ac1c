import optuna
import pytest
from optuna.trial import TrialState, create_trial

from dl4ia.errors import InputError
from dl4ia.selection import choose_winner, ranked_trials


def study_of(*trials: tuple[float, int, TrialState]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for value, weights, state in trials:
        study.add_trial(
            create_trial(
                value=value if state != TrialState.FAIL else None,
                state=state,
                user_attrs={"weights": weights, "failure": "epoch 2: out of memory"},
            )
        )
    return study


def test_the_best_completed_trial_wins() -> None:
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    study = study_of((0.7, 10, complete), (0.9, 10, pruned), (0.8, 10, complete))
    assert choose_winner(study).number == 2
    assert [trial.number for trial in ranked_trials(study)] == [2, 0]


def test_of_equals_the_one_with_fewer_weights_wins() -> None:
    complete = TrialState.COMPLETE
    study = study_of((0.7, 30, complete), (0.7, 10, complete), (0.7, 20, complete))
    assert [trial.number for trial in ranked_trials(study)] == [1, 2, 0]


def test_without_a_completed_trial_the_last_failure_is_named() -> None:
    with pytest.raises(InputError, match="epoch 2: out of memory"):
        choose_winner(study_of((0.0, 1, TrialState.FAIL)))
