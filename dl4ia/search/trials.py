"""What is known of a trial: how it ended, whether it counts, and its attributes.

Optuna's dashboard shows all user attributes of a trial, each in one line however long; its system
attributes it does not show. What is too long to be looked at is kept among the latter (`hide`).
"""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
PREFIX = "dl4ia:"


def hide(trial: optuna.Trial, name: str, value: Any) -> None:
    """Write it into the running trial."""
    trial.storage.set_trial_system_attr(trial._trial_id, PREFIX + name, value)


def hidden(trial: FrozenTrial, name: str) -> Any:
    """What `hide` has written; an empty dict where it has not."""
    # Earlier studies have it among their user attributes.
    return trial.system_attrs.get(PREFIX + name, trial.user_attrs.get(name, {}))


def history_of(trial: FrozenTrial) -> dict[str, list[float]]:
    """Metric -> one value an epoch; empty where no epoch was trained."""
    found: dict[str, list[float]] = hidden(trial, "history")
    return found


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial was cut off: it says nothing of its point, and does not count."""
    return trial.state == TrialState.FAIL and "failure" not in trial.user_attrs


def has_died(trial: FrozenTrial) -> bool:
    """Whether its process died, for the last time or not: no sign that trials get anywhere."""
    return not {"interrupted", "crashed"}.isdisjoint(trial.user_attrs)


def seconds_of(trial: FrozenTrial) -> float:
    """How long its epochs took, with their evaluation."""
    return sum(history_of(trial).get("seconds", []))


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """The trial of that number; to be read."""
    return study.get_trials(deepcopy=False)[number]


def first_value(trial: FrozenTrial) -> float:
    """A completed trial's validation metric, of several objectives the first."""
    values: list[float] = trial.values
    return values[0]


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards `--trials`: completed, pruned, or failed for a reason."""
    return [trial for trial in study.get_trials(deepcopy=False) if counts(trial)]


def counts(trial: FrozenTrial) -> bool:
    """Whether it is one of `finished_trials`."""
    return trial.state in FINISHED and not is_interrupted(trial) and not is_skipped(trial)


def is_skipped(trial: FrozenTrial) -> bool:
    """Whether its point was never trained, for it has more weights than the study is to have."""
    return "skipped" in trial.user_attrs


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All that were trained, to whatever end: those that count, and the interrupted."""
    ended = study.get_trials(deepcopy=False, states=FINISHED)
    return [trial for trial in ended if not is_skipped(trial)]
