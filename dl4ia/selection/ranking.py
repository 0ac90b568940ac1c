"""The completed trials of a study, best first, and which of them are to be trained again."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from dl4ia.errors import InputError
from dl4ia.search.trials import first_value


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials, best validation value first; of equals the fewer weights first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(
        trials, key=lambda trial: (-first_value(trial), trial.user_attrs["weights"], trial.number)
    )


def best_value(study: optuna.Study) -> float | None:
    """Of the completed trials; None before there is one."""
    ranked = ranked_trials(study)
    return first_value(ranked[0]) if ranked else None


def best_trial(study: optuna.Study) -> FrozenTrial:
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


def best_report_model(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial of a report model with the best validation value."""
    named = [trial for trial in ranked_trials(study) if "report_model" in trial.user_attrs]
    return named[0] if named else None


def choose_finalists(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """The best `count` trials of different points, and the best report model's besides.

    Raises InputError where no trial is completed.
    """
    best_trial(study)
    chosen: list[FrozenTrial] = []
    for trial in ranked_trials(study):
        if len(chosen) < count and all(trial.params != other.params for other in chosen):
            chosen.append(trial)
    report = best_report_model(study)
    if report is not None and all(report.params != other.params for other in chosen):
        chosen.append(report)
    return chosen
