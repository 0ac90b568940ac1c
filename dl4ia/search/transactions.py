"""What a trial is given at one moment is written in one transaction.

Optuna writes each hyperparameter, value and attribute by itself, in a transaction of several
queries: some sixty a trial, milliseconds each, which a trial of a second or two on a GPU waits for.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState

from dl4ia.search.patience import PatientStorage, patiently
from dl4ia.search.trials import FINISHED

Row = dict[str, Any]

# Of each of Optuna's tables: by what one row of a trial is told from another.
PARAMS, VALUES = models.TrialParamModel.__table__, models.TrialIntermediateValueModel.__table__
USER, SYSTEM = models.TrialUserAttributeModel.__table__, models.TrialSystemAttributeModel.__table__
KEYS = {PARAMS: "param_name", VALUES: "step", USER: "key", SYSTEM: "key"}
TRIALS: Any = models.TrialModel.__table__


@dataclass
class Batch:
    """What the trial of this id is given: by table and key the rest of a row, the later one of two.

    state: in which it ends with that; None: it goes on.
    """

    storage: "BatchingStorage"
    trial: int
    state: TrialState | None = None
    rows: dict[Any, dict[str | int, Row]] = field(default_factory=lambda: defaultdict(dict))


_open: ContextVar[Batch | None] = ContextVar("batch", default=None)  # of this thread


@contextmanager
def in_one_transaction(trial: optuna.Trial) -> Iterator[None]:
    """What hyperparameters, values and attributes `trial` is given meanwhile is written at the end.

    By this thread; nothing of them where an error ends it. Until then they are in `trial` alone. In
    other storages than `open_storage` opens each is written at once. One in another is part of it.
    """
    storage = _behind_cache(trial.storage)
    if not isinstance(storage, BatchingStorage) or _batch_of(storage, trial._trial_id):
        yield
        return
    batch = Batch(storage, trial._trial_id)
    outer = _open.set(batch)
    try:
        yield
    finally:
        _open.reset(outer)
    if batch.rows:
        patiently(lambda: storage.write(batch))


def storage_of(study: optuna.Study) -> "BatchingStorage":
    """The one that `open_storage` has opened, in which heartbeats are and trials are ended."""
    storage: BatchingStorage = _behind_cache(study._storage)
    return storage


def _behind_cache(storage: Any) -> Any:
    """Optuna wraps a database in a cache, which lacks what is its own."""
    return getattr(storage, "_backend", storage)


def _batch_of(storage: Any, trial: int) -> Batch | None:
    batch = _open.get()
    is_it = batch is not None and batch.storage is storage and batch.trial == trial
    return batch if is_it else None


class BatchingStorage(PatientStorage):
    """A database in which a trial can be given several things `in_one_transaction`."""

    def write(self, batch: Batch) -> None:
        """Raises UpdateFinishedTrialError, as Optuna does, where the trial has ended."""
        new: Row = {"state": TRIALS.c.state}
        if batch.state is not None:
            now = datetime.now(UTC).replace(tzinfo=None)  # as Optuna's own models store it
            new = {"state": batch.state, "datetime_complete": now}
        going_on = (TRIALS.c.trial_id == batch.trial) & TRIALS.c.state.not_in(FINISHED)
        with _create_scoped_session(self.scoped_session) as session:
            # First, and a change: from now on nobody else can end it, on SQLite either.
            changed: Any = session.execute(sqlalchemy.update(TRIALS).where(going_on).values(new))
            if not changed.rowcount:
                trial: Any = models.TrialModel.find_or_raise_by_id(batch.trial, session)
                self.check_trial_is_updatable(batch.trial, trial.state)
            for table, rows in batch.rows.items():
                if not rows:
                    continue
                name = KEYS[table]
                known = (table.c.trial_id == batch.trial) & table.c[name].in_(rows)
                session.execute(sqlalchemy.delete(table).where(known))
                added = [{"trial_id": batch.trial, name: key} | row for key, row in rows.items()]
                session.execute(sqlalchemy.insert(table), added)

    def end_trial(self, trial: int, state: TrialState, user_attrs: Mapping[str, Any]) -> None:
        """End the trial of this id, and say why.

        Raises UpdateFinishedTrialError where it has ended, which is then left as it is.
        """
        batch = Batch(self, trial, state)
        batch.rows[USER] = {key: _as_json(value) for key, value in user_attrs.items()}
        self._end_patiently(trial, state, lambda: self.write(batch), otherwise=None)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        batch = _batch_of(self, trial_id)
        if batch is None:
            super()._set_trial_param(
                trial_id, param_name, param_value_internal, distribution, previous_distribution
            )
        else:  # of a study whose space has been compared, as Optuna compares the distributions
            batch.rows[PARAMS][param_name] = {
                "param_value": param_value_internal,
                "distribution_json": distribution_to_json(distribution),
            }

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        batch = _batch_of(self, trial_id)
        if batch is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        else:
            stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
            value, kind = stored(intermediate_value)
            batch.rows[VALUES][step] = {
                "intermediate_value": value,
                "intermediate_value_type": kind,
            }

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        batch = _batch_of(self, trial_id)
        if batch is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            batch.rows[USER][key] = _as_json(value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        batch = _batch_of(self, trial_id)
        if batch is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            batch.rows[SYSTEM][key] = _as_json(value)


def _as_json(value: Any) -> Row:
    return {"value_json": json.dumps(value)}
