"""Which trials are still being trained, and what becomes of those that are not.

Whoever trains one tells the storage so again and again (`alive`). What has died is failed by
whoever looks next, and its point is run again, MOST_ATTEMPTS times in all.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb.models import TrialHeartbeatModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState

from dl4ia.environment import describe_process, is_alive, is_dead, this_process
from dl4ia.search.patience import patiently
from dl4ia.search.transactions import storage_of

MOST_ATTEMPTS = 3  # of a point whose process dies, or has no memory; it may be the point's doing


@contextmanager
def alive(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Meanwhile tell the storage again and again that the trial is being trained."""
    storage = storage_of(study)
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


class Silences:
    """Which trials nothing has been heard of for so long that they are taken for dead.

    A trial has been silent for the storage's grace period, and is still when a process has known
    that for two heartbeats: while a server is away nobody is heard, and as it comes back each has
    to have the time for a word.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study, self._storage = study._study_id, storage_of(study)
        interval = self._storage.get_heartbeat_interval()
        assert interval is not None, "open_storage sets one"
        self._patience = 2 * interval
        self._known: dict[tuple[int, datetime], float] = {}  # by id and last word: since when

    def look(self) -> set[int]:
        """The ids of those that are dead by now."""
        now = time.monotonic()
        silent = self._storage._get_stale_trial_ids(self._study)
        # One that has said a word since the last look is not silent for as long as that.
        words = patiently(lambda: self._last_words(silent)) if silent else []
        self._known = {word: self._known.get(word, now) for word in words}
        return {trial for (trial, _), since in self._known.items() if now - since >= self._patience}

    def _last_words(self, trials: list[int]) -> list[tuple[int, datetime]]:
        table = TrialHeartbeatModel
        with _create_scoped_session(self._storage.scoped_session) as session:
            rows = session.query(table.trial_id, table.heartbeat)
            return [(trial, word) for trial, word in rows.filter(table.trial_id.in_(trials))]


def fail_dead(study: optuna.Study, trials: list[FrozenTrial], silences: Silences) -> bool:
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
            reason = (
                f"{describe_process(process)} was silent for {storage_of(study).grace_period} s"
            )
        else:
            continue
        found = True
        with suppress(UpdateFinishedTrialError):  # it was not dead, and told us so just now
            give_up(study, trial, reason)
    return found


def give_up(study: optuna.Study, trial: FrozenTrial, reason: str) -> None:
    """Fail a trial of which nobody knows what its point is worth.

    Raises UpdateFinishedTrialError, and leaves the trial as it is, where it has ended meanwhile.
    """
    told = {"interrupted": reason}
    attempts = trial.user_attrs.get("attempts", 1)
    if attempts >= MOST_ATTEMPTS:
        told["failure"] = f"{reason}, the last of {attempts} attempts"
    storage_of(study).end_trial(trial._trial_id, TrialState.FAIL, told)
