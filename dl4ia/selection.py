"""Choosing the winner, by validation alone."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.errors import InputError


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials, best validation value first; of equals the fewer weights first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(
        trials, key=lambda trial: (-(trial.value or 0.0), trial.user_attrs["weights"], trial.number)
    )


def choose_winner(study: optuna.Study) -> FrozenTrial:
    """The completed trial with the best validation value."""
    ranked = ranked_trials(study)
    if not ranked:
        failures = [trial.user_attrs.get("failure") for trial in study.get_trials(deepcopy=False)]
        reason = next((failure for failure in reversed(failures) if failure), "none was trained")
        raise InputError(
            f"study {study.study_name!r} has no completed trial to choose from; the last failure: "
            f"{reason}; more trials (--trials) or epochs (--epochs, in another study) may help"
        )
    return ranked[0]
