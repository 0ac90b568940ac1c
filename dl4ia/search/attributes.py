"""What a trial is known by that is too long to be looked at: kept out of the dashboard's sight.

Optuna's dashboard shows all user attributes of a trial, each in one line however long; its system
attributes it does not show.
"""

from typing import Any

import optuna
from optuna.trial import FrozenTrial

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
