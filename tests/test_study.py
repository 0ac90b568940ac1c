import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from dl4ia.environment import this_process
from dl4ia.errors import InputError, TrialFailure
from dl4ia.search_space import Point, Space, choice, real, sample
from dl4ia.study import (
    Identity,
    check_identity,
    finished_trials,
    is_interrupted,
    open_storage,
    open_study,
    search,
)

SPACE: Space = {
    "kind": choice("a", "b", doc="a choice"),
    "rate": real(0.0, 1.0, doc="a number"),
}
REPORT: dict[str, Point] = {"first": {"kind": "a", "rate": 0.5}}
REFERENCE: dict[str, Point] = {"second": {"kind": "b", "rate": 0.25}}
SEARCHED = SimpleNamespace(
    SPACE=SPACE, REPORT_MODELS=REPORT, REFERENCE_MODELS=REFERENCE, REPORT_NOTE=""
)
IDENTITY = Identity("segmentation", "dice", "tiny", "d", {"image_shift": 0.0}, "s", "p", 9, 1, 0)

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def storage(tmp_path: Path) -> optuna.storages.RDBStorage:
    return open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")


def begin(storage: optuna.storages.RDBStorage, identity: Identity = IDENTITY) -> optuna.Study:
    check_identity(str(storage.url), "study", identity)
    return open_study(storage, "study", identity, SEARCHED)


def objective(trial: optuna.Trial) -> float:
    trial.set_user_attr("process", this_process())
    point = sample(SPACE, trial)
    return float(point["rate"])


def run(study: optuna.Study, trials: int, function: object = objective) -> list[int]:
    seen: list[int] = []
    search(study, function, trials, None, lambda trial: seen.append(trial.number))  # type: ignore[arg-type]
    return seen


def test_named_points_come_first_and_the_count_goes_on(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    assert run(study, 3) == [0, 1, 2]
    first, second, third = study.trials
    assert first.params == REPORT["first"] and first.user_attrs["report_model"] == "first"
    assert second.params == REFERENCE["second"] and "report_model" not in second.user_attrs
    assert "point" not in third.user_attrs
    assert run(begin(storage), 5) == [3, 4]
    assert run(begin(storage), 5) == []


def test_a_resumed_study_does_not_repeat_its_random_stream(
    storage: optuna.storages.RDBStorage,
) -> None:
    for trials in range(3, 11):  # one trial a start: the worst case
        run(begin(storage), trials)
    rates = [trial.params["rate"] for trial in begin(storage).trials[2:]]
    assert len(set(rates)) == len(rates) == 8


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"data_fingerprint": "other"}, "data_fingerprint is 'd' there and 'other' here"),
        ({"split_fingerprint": "other"}, "split_fingerprint"),
        ({"space_fingerprint": "other"}, "space_fingerprint"),
        ({"metric": "iou"}, "metric"),
        ({"epochs": 10, "folds": 5}, "epochs is 9 there and 10 here; folds is 1 there and 5 here"),
        ({"preparation": {"image_shift": 0.5}}, "preparation"),
        ({"split_by": "patient"}, "split_by is 'image' there and 'patient' here"),
    ],
)
def test_another_study_of_that_name_is_refused(
    storage: optuna.storages.RDBStorage, changed: dict[str, object], named: str
) -> None:
    run(begin(storage), 1)
    with pytest.raises(InputError, match="'study' is another one") as refused:
        begin(storage, replace(IDENTITY, **changed))  # type: ignore[arg-type]
    assert named in str(refused.value)
    assert len(begin(storage).trials) == 2


def test_a_study_from_before_there_was_split_by_goes_on(
    storage: optuna.storages.RDBStorage,
) -> None:
    study = begin(storage)
    recorded = study.user_attrs["identity"]
    del recorded["split_by"]
    study.set_user_attr("identity", recorded)
    run(study, 1)
    assert len(begin(storage).trials) == 2
    with pytest.raises(InputError, match="another one: split_by is 'image' there and 'patient' h"):
        begin(storage, replace(IDENTITY, split_by="patient"))


def test_a_point_outside_the_space_is_refused(storage: optuna.storages.RDBStorage) -> None:
    with pytest.raises(ValueError, match=r"bad: rate=2\.0 is outside"):
        bad = SimpleNamespace(
            **vars(SEARCHED) | {"REPORT_MODELS": {"bad": {"kind": "a", "rate": 2.0}}}
        )
        open_study(storage, "study", IDENTITY, bad)


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
    assert study.trials[0].state == TrialState.FAIL
    assert is_interrupted(study.trials[0])
    assert run(study, 2) == [1, 2]
    points = [trial.params for trial in finished_trials(study)]
    assert points == [REFERENCE["second"], REPORT["first"]]
    assert study.trials[2].user_attrs["report_model"] == "first"


def test_a_study_that_another_process_runs_is_refused(
    storage: optuna.storages.RDBStorage,
) -> None:
    trial = begin(storage).ask()
    parent = psutil.Process(os.getppid())
    owner = this_process() | {"pid": parent.pid, "started": parent.create_time()}
    trial.set_user_attr("process", owner)
    with pytest.raises(InputError, match=f"is being run by process {parent.pid}"):
        begin(storage)
    assert study_of(storage).trials[0].state == TrialState.RUNNING


def test_ctrl_c_while_optuna_tells_is_still_ctrl_c(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*words: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optuna.study._optimize._tell_with_warning", stop)
    with pytest.raises(KeyboardInterrupt):
        run(begin(storage), 1)


def study_of(storage: optuna.storages.RDBStorage) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=storage)
