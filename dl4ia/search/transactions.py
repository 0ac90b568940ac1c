"""What a trial is given at one moment is written in one transaction.

Optuna writes each hyperparameter, value and attribute by itself, in a transaction of several
queries: some sixty a trial, milliseconds each, which a trial of a second or two on a GPU waits for.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session

from dl4ia.search.patience import PatientStorage, patiently

Row = dict[str, Any]


@dataclass
class Batch:
    """What the trial of this id is given: rows of each of Optuna's tables."""

    storage: "BatchingStorage"
    trial: int
    # By what tells one row of the trial from another: of two the later one holds.
    params: dict[str, Row] = field(default_factory=dict)
    values: dict[int, Row] = field(default_factory=dict)
    user_attrs: dict[str, Row] = field(default_factory=dict)
    system_attrs: dict[str, Row] = field(default_factory=dict)


_open: ContextVar[Batch | None] = ContextVar("batch", default=None)  # of this thread


@contextmanager
def in_one_transaction(trial: optuna.Trial) -> Iterator[None]:
    """What hyperparameters, values and attributes `trial` is given meanwhile is written at the end.

    By this thread; nothing of them where an error ends it. Until then they are in `trial` alone. In
    other storages than `open_storage` opens each is written at once. One in another is part of it.
    """
    storage = getattr(trial.storage, "_backend", trial.storage)  # Optuna wraps it in a cache
    if not isinstance(storage, BatchingStorage) or _batch_of(storage, trial._trial_id):
        yield
        return
    batch = Batch(storage, trial._trial_id)
    try:
        _open.set(batch)
        yield
    finally:
        _open.set(None)
    if batch.params or batch.values or batch.user_attrs or batch.system_attrs:
        patiently(lambda: storage.write(batch))


def _batch_of(storage: Any, trial: int) -> Batch | None:
    batch = _open.get()
    is_it = batch is not None and batch.storage is storage and batch.trial == trial
    return batch if is_it else None


class BatchingStorage(PatientStorage):
    """A database in which a trial can be given several things `in_one_transaction`."""

    def write(self, batch: Batch) -> None:
        """Raises UpdateFinishedTrialError, as Optuna does, where the trial has ended."""
        tables: tuple[tuple[Any, str, Mapping[Any, Row]], ...] = (
            (models.TrialParamModel, "param_name", batch.params),
            (models.TrialIntermediateValueModel, "step", batch.values),
            (models.TrialUserAttributeModel, "key", batch.user_attrs),
            (models.TrialSystemAttributeModel, "key", batch.system_attrs),
        )
        with _create_scoped_session(self.scoped_session) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(batch.trial, session, True)
            self.check_trial_is_updatable(batch.trial, trial.state)
            for model, name, rows in tables:
                if rows:
                    table = model.__table__
                    known = (table.c.trial_id == batch.trial) & table.c[name].in_(rows)
                    session.execute(sqlalchemy.delete(table).where(known))
                    new = [{"trial_id": batch.trial, name: key} | row for key, row in rows.items()]
                    session.execute(sqlalchemy.insert(table), new)

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
            batch.params[param_name] = {
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
            batch.values[step] = {"intermediate_value": value, "intermediate_value_type": kind}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        batch = _batch_of(self, trial_id)
        if batch is None:
            super().set_trial_user_attr(trial_id, key, value)
        else:
            batch.user_attrs[key] = {"value_json": json.dumps(value)}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        batch = _batch_of(self, trial_id)
        if batch is None:
            super().set_trial_system_attr(trial_id, key, value)
        else:
            batch.system_attrs[key] = {"value_json": json.dumps(value)}
