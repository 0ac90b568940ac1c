"""The search: trials are claimed one by one, trained and told, by any number of processes.

They are claimed in turns. Whoever's turn it is counts what has finished and what is running, fails
the trials whose process has died, has their points run again, and asks for a trial only where one
is missing: so many as were asked for will have finished, whoever runs and whatever is killed.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from dl4ia.command_line.process import Uninterrupted, is_stopping
from dl4ia.environment import this_process
from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.search.liveness import Silences, alive, fail_dead, give_up
from dl4ia.search.patience import patiently
from dl4ia.search.room import Room
from dl4ia.search.transactions import storage_of
from dl4ia.search.trials import counts, finished_trials, is_interrupted, is_skipped
from dl4ia.search.turns import TurnLost, Turns

if TYPE_CHECKING:
    from dl4ia.search.objective import Objective

MOST_SKIPPED = 500
WAIT = 0.5  # seconds between two looks, while others train the last trials
CLAIM = "claim"


def search(
    study: optuna.Study,
    objective: "Objective",
    trials: int,
    timeout: float | None,
    turns: Turns,
    after_trial: Callable[[FrozenTrial], None],
) -> None:
    """Run trials until `trials` of the study have finished, or `timeout` seconds have passed.

    after_trial: is shown what this process has run, but for skipped points; of these MOST_SKIPPED
    in a row raise InputError.
    """
    skipped = 0  # in a row
    room = Room()
    end = None if timeout is None else time.monotonic() + timeout
    silences = Silences(study)
    while end is None or time.monotonic() < end:
        trial = ended = None
        try:
            # Not while it is claimed: a trial that nobody knows of yet nobody could stop.
            with turns.take(CLAIM), Uninterrupted():
                trial = _claim(study, trials, turns, silences, room)
            if trial is not None:
                ended = _run(study, objective, trial)
        except KeyboardInterrupt:
            if trial is not None:
                _stop(study, trial)
            raise
        if trial is not None:
            if ended is not None and is_skipped(ended):
                skipped += 1
                if skipped == MOST_SKIPPED:
                    raise InputError(
                        f"--most-weights: the last {skipped} points had more (the last one "
                        f"{ended.user_attrs['skipped']}); expected a number that networks of this "
                        "search space can have: give another --study-name and more weights"
                    )
            elif ended is not None:
                skipped = 0
                if "interrupted" in ended.user_attrs:
                    room.was_missing(study.get_trials(deepcopy=False))
                after_trial(ended)
        elif len(finished_trials(study)) >= trials:
            return
        else:
            time.sleep(WAIT)


def _claim(
    study: optuna.Study, trials: int, turns: Turns, silences: Silences, room: Room
) -> optuna.Trial | None:
    """A trial for this process, whose turn it is; None where none is to be begun now.

    None too where the turn was lost meanwhile, with a server that was started again: others have
    then counted without this trial, or this process without theirs.
    """
    known = study.get_trials(deepcopy=False)
    if fail_dead(study, known, silences):
        known = study.get_trials(deepcopy=False)
    _run_interrupted_again(study, known)
    if sum(trial.state == TrialState.RUNNING or counts(trial) for trial in known) >= trials:
        return None
    if not room.is_there(known):
        return None
    if is_stopping():
        raise KeyboardInterrupt
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # `alive` sends them
        trial = study.ask()
    try:
        turns.confirm(CLAIM, anew=False)
        # Before it is anybody's: of a trial that was never heard of nobody would know the silence.
        patiently(lambda: storage_of(study).record_heartbeat(trial._trial_id))
        trial.set_user_attr("process", this_process())
    except TurnLost:
        with suppress(UpdateFinishedTrialError):
            give_up(
                study,
                study._storage.get_trial(trial._trial_id),
                "its lock on the database was lost",
            )
        return None
    except UpdateFinishedTrialError:  # whose turn it was meanwhile has taken it for dead
        return None
    except KeyboardInterrupt:  # a second one
        _stop(study, trial)
        raise
    return trial


def _run_interrupted_again(study: optuna.Study, trials: list[FrozenTrial]) -> None:
    """Enqueue every interrupted point once more."""
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    for trial in trials:
        if not is_interrupted(trial) or trial.number in retried:
            continue
        point = trial.system_attrs.get("fixed_params", {}) | trial.params
        kept = ("seed", "point", "report_model")
        told: dict[str, Any] = {
            name: trial.user_attrs[name] for name in kept if name in trial.user_attrs
        }
        # That the user has stopped it is no sign that it kills its process.
        died = "stopped" not in trial.user_attrs
        told |= {"retry_of": trial.number}
        told |= {"attempts": trial.user_attrs.get("attempts", 1) + died}
        study.enqueue_trial(point, user_attrs=told)


def _run(study: optuna.Study, objective: "Objective", trial: optuna.Trial) -> FrozenTrial | None:
    """Train and tell; None where another process has given the trial up meanwhile.

    Of the others one that had no memory is told to be `interrupted`.
    """
    with suppress(UpdateFinishedTrialError), alive(study, trial):
        try:
            return _tell(study, trial, TrialState.COMPLETE, objective(trial))
        except optuna.TrialPruned:
            return _tell(study, trial, TrialState.PRUNED)
        except OutOfMemory as failure:  # it may be others that had the memory
            give_up(study, study._storage.get_trial(trial._trial_id), str(failure))
            return study._storage.get_trial(trial._trial_id)
        except TrialFailure:
            return _tell(study, trial, TrialState.FAIL)
        except (UpdateFinishedTrialError, StorageInternalError):
            raise  # of a database that is away or full: whoever finds it dead runs its point again
        except Exception:
            _tell(study, trial, TrialState.FAIL)
            raise
    return None


def _stop(study: optuna.Study, trial: optuna.Trial) -> None:
    """The user has stopped the process that trains it, or was about to."""
    with suppress(UpdateFinishedTrialError, StorageInternalError):
        told = {"stopped": "by the user"}
        storage_of(study).end_trial(trial._trial_id, TrialState.FAIL, told)


def _tell(
    study: optuna.Study,
    trial: optuna.Trial,
    state: TrialState,
    values: float | tuple[float, ...] | None = None,
) -> FrozenTrial | None:
    ended = study.tell(trial, values, state, skip_if_finished=True)
    return None if "interrupted" in ended.user_attrs else ended
