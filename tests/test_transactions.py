"""What a trial is given in one transaction: as Optuna would have written it, one by one."""

import math
import sqlite3
import threading
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from small_search import SPACE, begin, storage

from dl4ia.search.transactions import Batch, BatchingStorage, in_one_transaction, storage_of
from dl4ia.search.trials import hidden, hide
from dl4ia.search_space import sample

__all__ = ["storage"]  # a fixture


def give(trial: optuna.Trial) -> None:
    """One of everything, and some of it twice."""
    sample(SPACE, trial)
    trial.set_user_attr("seed", 1)
    hide(trial, "environment", {"commit": "abc", "long": "x" * 5000})
    for epoch, value in enumerate([0.5, math.inf, -math.inf, math.nan], start=1):
        trial.report(value, epoch)
    trial.set_user_attr("seed", 2)


def seen(study: optuna.Study, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    """By everybody."""
    other = optuna.load_study(study_name=study.study_name, storage=str(storage_of(study).url))
    return other.trials[trial.number]


def test_it_is_written_as_optuna_writes_it(storage: optuna.storages.RDBStorage) -> None:
    check_written(begin(storage))


def check_written(study: optuna.Study) -> None:
    """In one transaction, and by Optuna."""
    _, _, one_by_one, together = [study.ask() for _ in range(4)]  # the first two are named points
    together.set_user_attr("seed", 0)
    give(one_by_one)
    with in_one_transaction(together):
        give(together)
        during = seen(study, together)
        assert together.params and together.user_attrs["seed"] == 2
    assert not during.params and not during.intermediate_values and during.user_attrs["seed"] == 0
    first, second = (seen(study, trial) for trial in (one_by_one, together))
    assert list(second.params) == list(first.params) == list(SPACE)
    assert second.params == together.params and second.distributions == first.distributions
    assert str(second.intermediate_values) == str(first.intermediate_values)  # NaN is not NaN
    assert second.user_attrs == first.user_attrs == {"seed": 2}
    assert hidden(second, "environment") == hidden(first, "environment")
    assert study.tell(together, 0.5).params == together.params


def test_it_is_one_transaction(storage: optuna.storages.RDBStorage) -> None:
    study = begin(storage)
    commits: list[object] = []
    sqlalchemy.event.listen(storage.engine, "commit", commits.append)
    written = []
    for together in (False, True):
        trial = study.ask()
        before = len(commits)
        if together:
            with in_one_transaction(trial):
                with in_one_transaction(trial):
                    give(trial)
                assert len(commits) == before, "the inner one is part of the outer one"
        else:
            give(trial)
        written.append(len(commits) - before)
    assert written[0] >= 9 and written[1] == 1


def unheard(monkeypatch: pytest.MonkeyPatch, times: int) -> list[Batch]:
    """So many times the database goes away after it has written; what it is asked to write."""
    attempts, write = [], BatchingStorage.write

    def go_away(self: BatchingStorage, batch: Batch) -> None:
        attempts.append(batch)
        write(self, batch)
        if len(attempts) <= times:
            locked = sqlite3.OperationalError("database is locked")
            raise sqlalchemy.exc.OperationalError("INSERT", {}, locked)

    monkeypatch.setattr(BatchingStorage, "write", go_away)
    monkeypatch.setattr("dl4ia.search.patience.PAUSE", 0.01)
    return attempts


def test_a_database_that_went_away_as_it_was_written_is_asked_again(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it had written all but could not say so."""
    study, attempts = begin(storage), unheard(monkeypatch, 2)
    trial = study.ask()
    with in_one_transaction(trial):
        give(trial)
    assert len(attempts) == 3
    known = seen(study, trial)
    assert known.params == trial.params and known.user_attrs["seed"] == 2
    assert list(known.intermediate_values) == [1, 2, 3, 4]


def test_an_end_that_could_not_be_heard_is_one(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was told, and was away before it could say so."""
    study, attempts = begin(storage), unheard(monkeypatch, 2)
    trial = study.ask()
    storage_of(study).end_trial(trial._trial_id, TrialState.FAIL, {"interrupted": "was silent"})
    assert len(attempts) == 2
    assert seen(study, trial).user_attrs["interrupted"] == "was silent"


def test_an_error_leaves_nothing(storage: optuna.storages.RDBStorage) -> None:
    study = begin(storage)
    trial = study.ask()
    with pytest.raises(ZeroDivisionError), in_one_transaction(trial):
        give(trial)
        raise ZeroDivisionError
    assert not seen(study, trial).params and "seed" not in seen(study, trial).user_attrs
    trial.set_user_attr("seed", 3)
    assert seen(study, trial).user_attrs["seed"] == 3, "the next one is written at once"


def test_others_are_not_part_of_it(storage: optuna.storages.RDBStorage) -> None:
    """Neither another trial nor another thread."""
    study = begin(storage)
    trial, other = study.ask(), study.ask()
    with in_one_transaction(trial):
        trial.set_user_attr("seed", 1)
        other.set_user_attr("seed", 2)
        thread = threading.Thread(target=trial.set_user_attr, args=("note", "from a thread"))
        thread.start()
        thread.join()
        assert "seed" in seen(study, other).user_attrs
        assert seen(study, trial).user_attrs.keys() >= {"note"}
        assert "seed" not in seen(study, trial).user_attrs
    assert seen(study, trial).user_attrs["seed"] == 1


def test_one_of_another_trial_leaves_it_open(storage: optuna.storages.RDBStorage) -> None:
    study = begin(storage)
    trial, other = study.ask(), study.ask()
    with in_one_transaction(trial):
        trial.set_user_attr("seed", 1)
        with in_one_transaction(other):
            other.set_user_attr("seed", 7)
        trial.set_user_attr("seed", 2)
        assert "seed" not in seen(study, trial).user_attrs
    assert seen(study, trial).user_attrs["seed"] == 2
    assert seen(study, other).user_attrs["seed"] == 7


def test_a_trial_that_was_given_up_takes_nothing(storage: optuna.storages.RDBStorage) -> None:
    study = begin(storage)
    trial = study.ask()
    with pytest.raises(UpdateFinishedTrialError), in_one_transaction(trial):
        give(trial)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert not seen(study, trial).params


def test_other_storages_write_at_once(tmp_path: Path) -> None:
    plain = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'plain.db'}")
    for kept in (None, plain):
        study = optuna.create_study(storage=kept)
        trial = study.ask()
        with in_one_transaction(trial):
            give(trial)
            assert list(study.trials[0].params) == list(SPACE)
