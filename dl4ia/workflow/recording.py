"""From a study to MLflow: whatever is missing there is written, and nothing twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from dl4ia.errors import TrackingError
from dl4ia.report.notes import ending
from dl4ia.search.records import repeat_record, study_record, trial_record
from dl4ia.search.study import Identity
from dl4ia.search.trials import ended_trials
from dl4ia.search.turns import TurnLost
from dl4ia.selection.repeats import kept_repeats
from dl4ia.tracking.runs import DatasetRecord

if TYPE_CHECKING:
    from dl4ia.tracking.writing import Tracker


class Recorded(Protocol):
    """What is needed of a study to write it: a session has it, and so has the storage alone."""

    @property
    def name(self) -> str: ...
    @property
    def study(self) -> optuna.Study: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def environment(self) -> dict[str, str]: ...
    @property
    def data(self) -> DatasetRecord: ...
    @property
    def tracker(self) -> "Tracker": ...


def open_parent(recorded: Recorded) -> str:
    """The study's own run, RUNNING; what a process before has begun to write is discarded."""
    tracker, name = recorded.tracker, recorded.name
    tracker.discard_unfinished(name)
    runs = tracker.find(name, "study")
    if runs:
        parent = next(iter(runs.values()))
        tracker.reopen(parent)
        return parent
    record = study_record(name, recorded.identity, recorded.environment, datetime.now())
    return tracker.write(record, recorded.data, None)


@contextmanager
def closed_if_cut_off(close: Callable[[], None]) -> Iterator[None]:
    """Where the block ends by an error, or Ctrl-C, `close` the study's own run.

    But where that run is another process's (TurnLost). That MLflow is away too does not hide why.
    """
    try:
        yield
    except TurnLost:
        raise
    except BaseException:
        with suppress(TrackingError, StorageInternalError):
            close()
        raise


def write_trials(
    recorded: Recorded,
    parent: str,
    written: dict[str, str],
    after_trial: Callable[[FrozenTrial, str], object],
) -> None:
    """The finished trials that `written` (number -> run) lacks; it is filled as they are written.

    after_trial: is given each and its run.
    """
    for trial in ended_trials(recorded.study):
        if str(trial.number) not in written:
            record = trial_record(recorded.name, recorded.identity, trial)
            record = replace(record, description=ending(trial, recorded.identity.metric))
            run = recorded.tracker.write(record, recorded.data, parent)
            written[str(trial.number)] = run
            after_trial(trial, run)


def write_repeats(recorded: Recorded, parent: str) -> int:
    """The repeats of finalists and ablation, one run a training; how many were missing."""
    kept, missing = kept_repeats(recorded.study), _missing_repeats(recorded)
    for key in missing:
        record = repeat_record(recorded.name, recorded.identity, key, kept[key])
        recorded.tracker.write(record, recorded.data, parent)
    return len(missing)


def repeats_are_written(recorded: Recorded) -> bool:
    """Whether MLflow has every training of the repeats."""
    return not _missing_repeats(recorded)


def _missing_repeats(recorded: Recorded) -> list[str]:
    written = recorded.tracker.find(recorded.name, "repeat", "dl4ia.row")
    return [key for key in kept_repeats(recorded.study) if key not in written]
