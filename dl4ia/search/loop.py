"""The search: trials are claimed one by one, trained and told, by any number of processes.

They are claimed in turns. Whoever's turn it is counts what has finished and what is running, fails
the trials whose process has died, has their points run again, and asks for a trial only where one
is missing: so many as were asked for will have finished, whoever runs and whatever is killed.
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from dl4ia.environment import describe_process, is_alive, is_dead, this_process
from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.search.patience import patiently
from dl4ia.search.trials import counts, finished_trials, is_interrupted, is_skipped
from dl4ia.search.turns import TurnLost, Turns

if TYPE_CHECKING:
    from dl4ia.search.objective import Objective

MOST_ATTEMPTS = 3  # of a point whose process dies, or has no memory; it may be the point's doing
MOST_SKIPPED = 500
WAIT = 0.5  # seconds between two looks, while others train the last trials
MOST_WAIT = 600.0  # seconds, for memory
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
        with turns.take(CLAIM):
            trial = _claim(study, trials, turns, silences, room)
        if trial is not None:
            ended = _run(study, objective, trial)
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


class Silences:
    """Which trials nothing has been heard of for so long that they are taken for dead.

    A trial has been silent for the storage's grace period, and is still when a process has known
    that for two heartbeats: while a server is away nobody is heard, and as it comes back each has
    to have the time for a word.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study, self._storage = study, _backend(study)
        self._known: dict[int, float] = {}  # by the trial's id: since when

    def look(self) -> set[int]:
        """The ids of those that are dead by now."""
        now = time.monotonic()
        silent = self._storage._get_stale_trial_ids(self._study._study_id)
        self._known = {trial: self._known.get(trial, now) for trial in silent}
        patience = 2 * self._storage.get_heartbeat_interval()
        return {trial for trial, since in self._known.items() if now - since >= patience}


class Room:
    """Whether there may be memory for a trial, after one of this process's had none.

    There may be as one of those trials has ended that this machine trained beside it, or after
    MOST_WAIT: it may be what others do that ends, or the process of the neighbour is stopped.
    """

    def __init__(self) -> None:
        self._neighbours: set[int] = set()
        self._end = 0.0

    def was_missing(self, trials: list[FrozenTrial]) -> None:
        """For a trial of this process that has just ended."""
        self._end = time.monotonic() + MOST_WAIT
        self._neighbours = {
            trial.number
            for trial in trials
            if trial.state == TrialState.RUNNING
            and "process" in trial.user_attrs  # else it is just claimed
            and is_alive(trial.user_attrs["process"])
        }

    def is_there(self, trials: list[FrozenTrial]) -> bool:
        """Among these trials, as they are now."""
        running = {trial.number for trial in trials if trial.state == TrialState.RUNNING}
        all_run = bool(self._neighbours) and self._neighbours <= running
        return not all_run or time.monotonic() > self._end


def _claim(
    study: optuna.Study, trials: int, turns: Turns, silences: Silences, room: Room
) -> optuna.Trial | None:
    """A trial for this process, whose turn it is; None where none is to be begun now.

    None too where the turn was lost meanwhile, with a server that was started again: others have
    then counted without this trial, or this process without theirs.
    """
    known = study.get_trials(deepcopy=False)
    if _fail_dead(study, known, silences):
        known = study.get_trials(deepcopy=False)
    _run_interrupted_again(study, known)
    if sum(trial.state == TrialState.RUNNING or counts(trial) for trial in known) >= trials:
        return None
    if not room.is_there(known):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # `_alive` sends them
        trial = study.ask()
    try:
        turns.confirm(CLAIM, anew=False)
        # Before it is anybody's: of a trial that was never heard of nobody would know the silence.
        patiently(lambda: _backend(study).record_heartbeat(trial._trial_id))
        trial.set_user_attr("process", this_process())
    except TurnLost:
        with suppress(UpdateFinishedTrialError):
            _give_up(
                study,
                study._storage.get_trial(trial._trial_id),
                "its lock on the database was lost",
            )
        return None
    except UpdateFinishedTrialError:  # whose turn it was meanwhile has taken it for dead
        return None
    except KeyboardInterrupt:
        _stop(study, trial)
        raise
    return trial


def _fail_dead(study: optuna.Study, trials: list[FrozenTrial], silences: Silences) -> bool:
    """Fail the running trials that nobody trains any more; whether there were any."""
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    silent = silences.look() if running else set()
    found = False
    for trial in running:
        process = trial.user_attrs.get("process")
        if process is None:  # cut off while it was claimed
            reason = "its process died as it began"
        elif is_dead(process) or process == this_process():  # which trains none as it claims
            reason = f"{describe_process(process)} died"
        elif trial._trial_id in silent and not is_alive(process):
            reason = f"{describe_process(process)} was silent for {_backend(study).grace_period} s"
        else:
            continue
        found = True
        with suppress(UpdateFinishedTrialError):  # it was not dead, and told us so just now
            _give_up(study, trial, reason)
    return found


def _give_up(study: optuna.Study, trial: FrozenTrial, reason: str) -> None:
    storage, number = study._storage, trial._trial_id
    storage.set_trial_user_attr(number, "interrupted", reason)
    attempts = trial.user_attrs.get("attempts", 1)
    if attempts >= MOST_ATTEMPTS:
        failure = f"{reason}, the last of {attempts} attempts"
        storage.set_trial_user_attr(number, "failure", failure)
    storage.set_trial_state_values(number, TrialState.FAIL)


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
    with suppress(UpdateFinishedTrialError), _alive(study, trial):
        try:
            value = objective(trial)
        except optuna.TrialPruned:
            return _tell(study, trial, TrialState.PRUNED)
        except OutOfMemory as failure:  # it may be others that had the memory
            _give_up(study, study._storage.get_trial(trial._trial_id), str(failure))
            return study._storage.get_trial(trial._trial_id)
        except TrialFailure:
            return _tell(study, trial, TrialState.FAIL)
        except (UpdateFinishedTrialError, StorageInternalError):
            raise  # of a database that is away or full: whoever finds it dead runs its point again
        except KeyboardInterrupt:
            _stop(study, trial)
            raise
        except Exception:
            _tell(study, trial, TrialState.FAIL)
            raise
        return _tell(study, trial, TrialState.COMPLETE, value)
    return None


def _stop(study: optuna.Study, trial: optuna.Trial) -> None:
    """The user has stopped the process that trains it, or was about to."""
    with suppress(UpdateFinishedTrialError, StorageInternalError):
        trial.set_user_attr("stopped", "by the user")
        _tell(study, trial, TrialState.FAIL)


def _tell(
    study: optuna.Study,
    trial: optuna.Trial,
    state: TrialState,
    values: float | tuple[float, ...] | None = None,
) -> FrozenTrial | None:
    ended = study.tell(trial, values, state, skip_if_finished=True)
    return None if "interrupted" in ended.user_attrs else ended


@contextmanager
def _alive(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Meanwhile tell the storage again and again that the trial is being trained."""
    storage = _backend(study)
    interval = storage.get_heartbeat_interval()
    done = threading.Event()

    def tell() -> None:
        while not done.wait(interval):
            with suppress(Exception):  # the server may be away for a while
                storage.record_heartbeat(trial._trial_id)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _backend(study: optuna.Study) -> Any:
    """The storage behind Optuna's cache, which has the heartbeats."""
    return getattr(study._storage, "_backend", study._storage)
