"""Trials are claimed, run and told, in one process and in many; what is killed runs again."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from small_search import REFERENCE, REPORT, begin, objective, run, storage

from dl4ia.environment import this_process
from dl4ia.errors import InputError, OutOfMemory, TrialFailure
from dl4ia.search.liveness import MOST_ATTEMPTS
from dl4ia.search.loop import MOST_SKIPPED, WAIT
from dl4ia.search.sampler import Sampler
from dl4ia.search.storage import open_storage
from dl4ia.search.study import RANDOM_TRIALS
from dl4ia.search.trials import ended_trials, finished_trials, is_interrupted, is_skipped

__all__ = ["storage"]  # a fixture
SHORT_TRIALS = int(os.environ.get("DL4IA_SHORT_TRIALS", "200"))
WORKER = Path(__file__).with_name("small_search.py")


def of_the_parent() -> dict[str, str | float]:
    """As `this_process` is, of another one that is alive."""
    parent = psutil.Process(os.getppid())
    began = parent.create_time() - psutil.boot_time()
    return this_process() | {"pid": parent.pid, "began": began}


def test_failures_count_and_interruptions_run_again(storage: optuna.storages.RDBStorage) -> None:
    study = begin(storage)

    def fail(trial: optuna.Trial) -> float:
        objective(trial)
        trial.set_user_attr("failure", "epoch 1: out of memory")
        raise TrialFailure("epoch 1: out of memory")

    assert run(study, 1, fail) == [0]
    assert [trial.number for trial in finished_trials(study)] == [0]

    def stop(trial: optuna.Trial) -> float:
        objective(trial)
        trial.set_user_attr("seed", 7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, 2, stop)
    assert is_interrupted(study.trials[1])
    assert len(finished_trials(study)) == 1

    study = begin(storage)
    assert run(study, 2) == [2]
    again = study.trials[2]
    assert again.params == REFERENCE["second"]
    assert (again.user_attrs["retry_of"], again.user_attrs["seed"]) == (1, 7)
    assert [trial.number for trial in begin(storage).trials] == [0, 1, 2]  # once, not on each start


def test_a_point_without_memory_is_tried_again_but_not_for_ever(
    storage: optuna.storages.RDBStorage,
) -> None:
    """It may have been others that had it."""
    study = begin(storage)

    def train(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number == 0 or trial.params == REFERENCE["second"]:
            raise OutOfMemory("epoch 1: out of memory")
        return value

    shown = run(study, 4, train)
    first = study.trials[0]
    assert is_interrupted(first) and first.user_attrs["interrupted"] == "epoch 1: out of memory"
    (again,) = (each for each in study.trials if each.user_attrs.get("retry_of") == 0)
    assert again.params == first.params and again.value is not None
    *others, last = (each for each in study.trials if each.params == REFERENCE["second"])
    assert len(others) == MOST_ATTEMPTS - 1 and all(map(is_interrupted, others))
    assert last.user_attrs["failure"] == "epoch 1: out of memory, the last of 3 attempts"
    assert len(finished_trials(study)) == 4 and last in finished_trials(study)
    assert sorted(shown) == [trial.number for trial in study.trials]


def test_who_had_no_memory_waits_until_a_neighbour_has_given_some_back(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    neighbour, ended = study.ask(), threading.Event()
    neighbour.set_user_attr("process", of_the_parent())

    def end_it() -> None:
        """A while after the trial beside it has failed."""
        while len(study.trials) < 2 or study.trials[1].state != TrialState.FAIL:
            time.sleep(0.05)
        time.sleep(3 * WAIT)
        ended.set()
        study.tell(neighbour.number, 0.5)

    thread = threading.Thread(target=end_it, daemon=True)
    thread.start()

    def train(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise OutOfMemory("epoch 1: out of memory")
        assert ended.is_set()
        return objective(trial)

    assert run(begin(storage), 2, train) == [1, 2]
    thread.join()
    assert study.trials[2].user_attrs["retry_of"] == 1


@pytest.mark.parametrize("where", ["on another machine", "here, stopped"])
def test_who_had_no_memory_does_not_wait_for_those_that_do_not_have_it(
    storage: optuna.storages.RDBStorage, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or may never end."""
    study = begin(storage)
    if where == "on another machine":
        owner = this_process() | {"boot": "another"}
    else:
        owner = of_the_parent()
        monkeypatch.setattr("dl4ia.search.room.MOST_WAIT", 3 * WAIT)
    study.ask().set_user_attr("process", owner)

    def train(trial: optuna.Trial) -> float:
        if trial.number == 2:
            study.tell(0, 0.5)
        if trial.number == 1:
            raise OutOfMemory("epoch 1: out of memory")
        return objective(trial)

    assert run(begin(storage), 2, train) == [1, 2]


def test_points_of_too_many_weights_are_skipped_and_do_not_count(
    storage: optuna.storages.RDBStorage,
) -> None:
    """As many trials as were asked for are trained besides."""
    study = begin(storage)

    def weigh(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.params["kind"] == "a":
            trial.set_user_attr("skipped", "5 weights, over 4")
            raise optuna.TrialPruned("skipped")
        return value

    shown = run(study, 6, weigh)
    trained = [trial.number for trial in finished_trials(study)]
    assert len(trained) == 6 and shown == trained == [each.number for each in ended_trials(study)]
    skipped = [trial for trial in study.trials if is_skipped(trial)]
    assert skipped[0].user_attrs["report_model"] == "first"
    assert len(skipped) + 6 == len(study.trials)
    assert {trial.params["kind"] for trial in finished_trials(study)} == {"b"}


def test_as_many_random_trials_are_trained_whatever_is_skipped(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler would take the skipped ones for trials, and model from none that was trained."""
    study = begin(storage)
    modelled: list[int] = []
    as_it_is = Sampler._sample

    def note(self: Sampler, study: optuna.Study, trial: FrozenTrial, *others: Any) -> Any:
        modelled.append(trial.number)
        return as_it_is(self, study, trial, *others)

    monkeypatch.setattr(Sampler, "_sample", note)

    def weigh(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.params["rate"] < 0.7 and "point" not in trial.user_attrs:
            trial.set_user_attr("skipped", "5 weights, over 4")
            raise optuna.TrialPruned("skipped")
        return value

    run(study, 2 + RANDOM_TRIALS + 1, weigh)
    trained = [trial.number for trial in finished_trials(study)]
    assert min(modelled) == trained[-2] + 1  # all before it were random, or named
    assert min(modelled) > 2 + RANDOM_TRIALS  # some were skipped


@pytest.mark.parametrize(("directions", "most"), [(1, 25), (2, 100)])
def test_a_tenth_of_what_was_trained_is_good_whatever_is_skipped(
    directions: int, most: int
) -> None:
    study = optuna.create_study(directions=["maximize"] * directions)
    sampler = study.sampler = Sampler(0, 1)
    for number in range(30):
        skipped = {"skipped": "5 weights, over 4"} if number % 3 else {}
        study.add_trial(
            create_trial(state=TrialState.PRUNED, user_attrs=skipped)
            if skipped
            else create_trial(values=[0.0] * directions)
        )
    study.ask()
    assert sampler._gamma is not None
    assert sampler._gamma(30) == 1  # of ten that were trained
    assert sampler._gamma(20 + 1000) == most


def test_a_limit_that_nothing_keeps_is_a_mistake(storage: optuna.storages.RDBStorage) -> None:
    study = begin(storage)

    def skip(trial: optuna.Trial) -> float:
        trial.set_user_attr("skipped", "5 weights, over 4")
        raise optuna.TrialPruned("skipped")

    with pytest.raises(InputError, match=r"--most-weights: the last 500 points .* 5 weights, over"):
        run(study, 1, skip)
    assert len(study.trials) == MOST_SKIPPED == 500 and not finished_trials(study)


def test_a_killed_trial_is_failed_and_its_point_run_again(
    tmp_path: Path, storage: optuna.storages.RDBStorage
) -> None:
    begin(storage)
    code = (
        "import os, optuna, sys\n"
        "from dl4ia.environment import this_process\n"
        "study = optuna.load_study(study_name='study', storage=sys.argv[1])\n"
        "trial = study.ask()\n"
        "trial.set_user_attr('process', this_process())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    assert subprocess.run([sys.executable, "-c", code, url]).returncode == -9
    study = begin(storage)
    assert run(study, 2) == [1, 2]
    assert study.trials[0].state == TrialState.FAIL
    assert is_interrupted(study.trials[0])
    assert re.fullmatch(r"process \d+ on \S+ died", study.trials[0].user_attrs["interrupted"])
    points = [trial.params for trial in finished_trials(study)]
    assert points == [REFERENCE["second"], REPORT["first"]]
    assert study.trials[2].user_attrs["report_model"] == "first"


def test_a_trial_that_another_process_runs_is_left_to_it_and_counts(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    trial = study.ask()
    trial.set_user_attr("process", of_the_parent())
    seen: list[int] = []

    def finish_the_other(mine: optuna.Trial) -> float:
        seen.append(mine.number)
        if len(seen) == 2:  # of three the last that may begin
            study.tell(trial.number, 0.5)
        return objective(mine)

    assert run(begin(storage), 3, finish_the_other) == seen == [1, 2]
    assert [each.state for each in study.trials] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize("place", ["host", "boot", "namespace"])
def test_what_another_container_has_begun_is_run_again_once_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As after `docker rm -f` and `docker run`, or on a machine that was started again."""
    monkeypatch.setattr("dl4ia.search.storage.LOCAL_HEARTBEAT", 1)
    monkeypatch.setattr("dl4ia.search.storage.LOCAL_GRACE", 3)
    url = f"sqlite:///{tmp_path / 'optuna.db'}"

    def stop(trial: optuna.Trial) -> float:
        trial.set_user_attr("process", this_process() | {place: "another"})
        raise SystemExit  # as a process that is killed: nothing is told

    with pytest.raises(SystemExit):
        run(begin(open_storage(url)), 1, stop)
    study = begin(open_storage(url))
    assert run(study, 2) == [1, 2]
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["interrupted"].endswith("was silent for 3 s")
    assert study.trials[2].user_attrs["retry_of"] == 0


def test_who_could_not_be_heard_while_the_database_was_away_is_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is back, and another claims before the one elsewhere has said a word."""
    monkeypatch.setattr("dl4ia.search.storage.LOCAL_HEARTBEAT", 1)
    monkeypatch.setattr("dl4ia.search.storage.LOCAL_GRACE", 3)
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    study = begin(storage)
    trial = study.ask()
    trial.set_user_attr("process", this_process() | {"host": "elsewhere"})
    storage.record_heartbeat(trial._trial_id)
    time.sleep(5)  # nobody is heard so long
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]

    def elsewhere() -> None:
        for _ in range(8):
            time.sleep(0.5)
            storage.record_heartbeat(trial._trial_id)
        study.tell(trial, objective(trial))

    other = threading.Thread(target=elsewhere)
    other.start()
    assert run(begin(storage), 3) == [1, 2]
    other.join()
    assert [each.state for each in study.trials] == [TrialState.COMPLETE] * 3
    assert "interrupted" not in study.trials[0].user_attrs


def test_a_point_that_kills_its_process_is_given_up(storage: optuna.storages.RDBStorage) -> None:
    words = [sys.executable, str(WORKER), str(storage.url), "2", "1.0"]
    begin(storage)
    kills = 0
    while subprocess.run(words).returncode == -9:
        kills += 1
    study = begin(storage)
    assert kills == 2 * MOST_ATTEMPTS
    for point in (REPORT["first"], REFERENCE["second"]):
        *earlier, last = [each for each in study.trials if each.params == point]
        assert len(earlier) == 2 and all(map(is_interrupted, earlier))
        assert last.user_attrs["failure"].endswith("died, the last of 3 attempts")
    assert run(study, 3) == [6]


def test_ctrl_c_is_no_attempt(storage: optuna.storages.RDBStorage) -> None:
    def stop(trial: optuna.Trial) -> float:
        objective(trial)
        raise KeyboardInterrupt

    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            run(begin(storage), 1, stop)
    study = begin(storage)
    run(study, 1)
    (finished,) = finished_trials(study)
    assert finished.params == REPORT["first"] and finished.state == TrialState.COMPLETE


def test_a_trial_that_a_database_cut_off_is_run_again(storage: optuna.storages.RDBStorage) -> None:
    """It has not failed: nobody knows what it would have come to."""
    study = begin(storage)

    def lose(trial: optuna.Trial) -> float:
        objective(trial)
        trial.set_user_attr("seed", 7)
        raise StorageInternalError("the server is away")

    with pytest.raises(StorageInternalError):
        run(study, 1, lose)
    assert study.trials[0].state == TrialState.RUNNING
    study = begin(storage)
    assert run(study, 2) == [1, 2]
    first, _, again = study.trials
    assert is_interrupted(first) and "failure" not in first.user_attrs
    assert (again.user_attrs["retry_of"], again.user_attrs["seed"]) == (0, 7)
    assert again.state == TrialState.COMPLETE and again.params == first.params


def test_what_others_have_given_up_is_not_told(storage: optuna.storages.RDBStorage) -> None:
    """As after a pause in which another machine heard nothing of this one."""
    study = begin(storage)

    def given_up(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number == 0:
            trial.set_user_attr("interrupted", "was silent")
            study.tell(trial.number, state=TrialState.FAIL)
            trial.report(value, 1)  # refused
        return value

    assert run(study, 2, given_up) == [1, 2]
    assert study.trials[2].user_attrs["retry_of"] == 0


def test_ctrl_c_ends_the_search_though_another_has_given_the_trial_up(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)

    def stop(trial: optuna.Trial) -> float:
        trial.set_user_attr("interrupted", "was silent")
        study.tell(trial.number, state=TrialState.FAIL)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, 2, stop)
    assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]


def workers(url: str, count: int, trials: int, deadly: float) -> list[int]:
    """The exit status of as many processes, each replaced until it ends well."""
    words = [sys.executable, str(WORKER), url, str(trials), str(deadly)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(words, env=environment) for _ in range(count)]
    ended = []
    while running:
        process = running.pop(0)
        status = process.wait()
        ended.append(status)
        if status == -9:
            running.append(subprocess.Popen(words, env=environment))
    return ended


@pytest.mark.parametrize(("count", "trials", "deadly"), [(8, SHORT_TRIALS, 0.0), (4, 60, 0.05)])
def test_many_processes_run_exactly_as_many_trials(
    storage: optuna.storages.RDBStorage, count: int, trials: int, deadly: float
) -> None:
    begin(storage)
    start = time.monotonic()
    ended = workers(str(storage.url), count, trials, deadly)
    print(f"{time.monotonic() - start:.0f} s, {ended}")
    assert set(ended) <= {0, -9} and ended.count(0) == count
    assert deadly == 0 or ended.count(-9) >= 2
    study = begin(storage)
    assert len(finished_trials(study)) == trials
    assert not [each for each in study.trials if each.state == TrialState.RUNNING]
    retried = {each.user_attrs.get("retry_of") for each in study.trials}
    assert {each.number for each in study.trials if is_interrupted(each)} <= retried
    rates = [each.params["rate"] for each in finished_trials(study)]
    assert len(set(rates)) == len(rates), "a point was run twice"
