"""Who is taken for dead; and that a trial which has ended is not given up as well."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb.models import TrialHeartbeatModel
from optuna.trial import TrialState
from small_search import begin, objective, run, storage

from dl4ia.command_line import process
from dl4ia.search import loop
from dl4ia.search.liveness import MOST_ATTEMPTS, Silences, give_up
from dl4ia.search.storage import LOCAL_GRACE
from dl4ia.search.transactions import BatchingStorage, storage_of
from dl4ia.search.trials import counts

__all__ = ["storage"]  # a fixture


def test_a_word_in_between_ends_a_silence(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent at two looks an hour apart, as after two outages, is not silent for an hour."""
    study = begin(storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    silences, passed = Silences(study), 0.0
    clock = time.monotonic
    monkeypatch.setattr("dl4ia.search.liveness.time.monotonic", lambda: clock() + passed)

    def last_word(seconds: float) -> None:
        """So long ago it was heard of; the database's clock has whole seconds, in UTC."""
        word = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
        with storage.engine.begin() as connection:
            connection.execute(sqlalchemy.update(TrialHeartbeatModel).values(heartbeat=word))

    last_word(LOCAL_GRACE - 60)
    assert silences.look() == set()
    for seconds in (LOCAL_GRACE + 60, LOCAL_GRACE + 120):  # two words, and an hour between
        last_word(seconds)
        assert silences.look() == set()
        passed += 3600
    assert silences.look() == {trial._trial_id}, "no word since"


def test_a_trial_that_ended_as_it_was_given_up_is_left_as_it_is(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    trial = study.ask()
    trial.set_user_attr("attempts", MOST_ATTEMPTS)
    as_it_was = study.trials[0]
    study.tell(trial, objective(trial))
    with pytest.raises(UpdateFinishedTrialError):
        give_up(study, as_it_was, "was silent")
    ended = study.trials[0]
    assert ended.state == TrialState.COMPLETE and counts(ended)
    assert not {"interrupted", "failure"} & ended.user_attrs.keys()


@pytest.fixture(params=["America/New_York", "Asia/Tokyo"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Optuna's database has its times in UTC, and gives them in the machine's time."""
    with monkeypatch.context() as moved:
        moved.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def test_a_trial_is_ended_with_its_reason(
    storage: optuna.storages.RDBStorage, elsewhere: None
) -> None:
    study = begin(storage)
    trial = study.ask()
    storage_of(study).end_trial(trial._trial_id, TrialState.FAIL, {"stopped": "by the user"})
    ended = study.trials[0]
    assert ended.state == TrialState.FAIL and ended.user_attrs["stopped"] == "by the user"
    assert ended.datetime_start and ended.datetime_complete
    assert timedelta(0) <= ended.datetime_complete - ended.datetime_start < timedelta(minutes=1)
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("more", 1)


def test_ctrl_c_while_it_is_told_is_no_attempt(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, tell = begin(storage), optuna.Study.tell

    def stop(*_: object, **__: object) -> None:
        monkeypatch.setattr(optuna.Study, "tell", tell)
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "tell", stop)
    with pytest.raises(KeyboardInterrupt):
        run(study, 1)
    assert study.trials[0].user_attrs["stopped"] == "by the user"
    run(study, 2)
    assert study.trials[2].user_attrs["attempts"] == 1


@pytest.fixture
def heeding_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As every command does."""
    monkeypatch.setattr(process, "_stopping", False)
    before = signal.signal(signal.SIGINT, process._stop)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_ctrl_c_while_it_is_claimed_is_no_attempt(
    again: bool,
    storage: optuna.storages.RDBStorage,
    heeding_ctrl_c: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until `ask` returns nobody but Optuna knows of the trial."""
    study, ask, heard = begin(storage), optuna.Study.ask, BatchingStorage.record_heartbeat

    def struck(study: optuna.Study) -> optuna.Trial:
        monkeypatch.setattr(optuna.Study, "ask", ask)
        trial = study.ask()
        press_ctrl_c()
        return trial

    def struck_again(storage: BatchingStorage, trial: int) -> None:
        if again:
            press_ctrl_c()
        heard(storage, trial)

    monkeypatch.setattr(optuna.Study, "ask", struck)
    monkeypatch.setattr(BatchingStorage, "record_heartbeat", struck_again)
    with pytest.raises(KeyboardInterrupt):
        run(study, 1)
    monkeypatch.setattr(BatchingStorage, "record_heartbeat", heard)
    monkeypatch.setattr(process, "_stopping", False)  # the next command
    assert study.trials[0].user_attrs["stopped"] == "by the user"
    run(study, 2)
    assert study.trials[2].user_attrs["attempts"] == 1


def test_after_ctrl_c_no_trial_is_begun(
    storage: optuna.storages.RDBStorage, heeding_ctrl_c: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it has to wait until the others are counted."""
    study, look = begin(storage), loop.fail_dead

    def struck(*words: Any) -> bool:
        press_ctrl_c()
        return look(*words)

    monkeypatch.setattr(loop, "fail_dead", struck)
    with pytest.raises(KeyboardInterrupt):
        run(study, 1)
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}
