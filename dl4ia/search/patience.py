"""A database that is away for a while is waited for: what a study asks of it is asked again."""

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from dl4ia.command_line.process import is_stopping

Returned = TypeVar("Returned")

PATIENCE = 600.0  # seconds that a server may be away
PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two attempts


def patiently(call: Callable[[], Returned]) -> Returned:
    """What `call` returns, once the database answers.

    Its error where it stays away too long, or where it is away and the user has stopped the study.
    """
    end, pause = time.monotonic() + PATIENCE, PAUSE
    while True:
        try:
            return call()
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            if not _is_away(error) or is_stopping() or time.monotonic() > end:
                raise
        waited = time.monotonic() + pause
        while time.monotonic() < waited and not is_stopping():
            time.sleep(PAUSE)
        pause = min(2 * pause, LONGEST_PAUSE)


def _is_away(error: BaseException) -> bool:
    """Whether a connection was lost or refused, and not what was asked for wrong."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, sqlalchemy.exc.PendingRollbackError):
        return True  # the connection was lost between two queries of one transaction
    if not isinstance(cause, sqlalchemy.exc.DBAPIError):
        return False
    if "sqlite" in type(cause.orig).__module__:
        return "locked" in str(cause.orig)
    return cause.connection_invalidated or isinstance(
        cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
    )


class PatientStorage(RDBStorage):
    """Waits for a server that was stopped, or does not answer, and then goes on."""

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Also where the server was told and died before it could say so."""
        tell = RDBStorage.set_trial_state_values
        return self._end_patiently(
            trial_id, state, lambda: tell(self, trial_id, state, values), otherwise=True
        )

    def _end_patiently(
        self,
        trial_id: int,
        state: TrialState,
        tell: Callable[[], Returned],
        otherwise: Returned,
    ) -> Returned:
        """What `tell` returns; `otherwise` where an earlier attempt had ended the trial unheard."""
        attempts = 0

        def again() -> Returned:
            nonlocal attempts
            attempts += 1
            try:
                return tell()
            except UpdateFinishedTrialError:
                if attempts > 1 and self.get_trial(trial_id).state == state:
                    return otherwise
                raise

        return patiently(again)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*words: Any, **named: Any) -> Any:
        return patiently(lambda: method(*words, **named))

    return call


# All that Optuna asks of a storage once it is open. What a server was told as it died, before it
# could say so, is told twice: a trial begun twice is failed and run again, and a point that was
# enqueued twice is trained twice.
for name in (
    "create_new_study",
    "get_all_studies",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "set_study_system_attr",
    "set_study_user_attr",
    "_create_new_trial",
    "_get_best_trial_id",
    "_get_trials",
    "_set_trial_param",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_intermediate_value",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "_get_stale_trial_ids",
):
    setattr(PatientStorage, name, _patient(getattr(RDBStorage, name)))
