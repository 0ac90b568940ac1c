"""A study that is killed again and again, at random moments, and started again: nothing is lost.

How often: DL4IA_KILLS in the environment, else 30.
"""

import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
from commands import Command
from conftest import ROOT, runs_of, write_gland_folder
from mlflow import MlflowClient
from optuna.trial import TrialState
from servers import end_of, ended, look

from dl4ia.search.liveness import MOST_ATTEMPTS
from dl4ia.search.trials import finished_trials, history_of, is_interrupted
from dl4ia.selection.repeats import kept_repeats

TRIALS, EPOCHS = 50, 6
KILLS = int(os.environ.get("DL4IA_KILLS", "30"))
NAME = "segmentation-tiny-glands"
COMMAND = [sys.executable, str(ROOT / "studies" / "segmentation.py"), "--data", "Tiny Glands",
           "--trials", str(TRIALS), "--epochs", str(EPOCHS), "--retraining-epochs", "60",
           "--finalists", "2", "--repeats", "2", "--seeds", "2"]  # fmt: skip
STAGES = ("Finalists:", "Validating trial", "Retraining trial", "Training for the winner's score")


def start(folder: Path, *flags: str) -> Command:
    return Command([*COMMAND, *flags], folder, folder / "log.txt", folder / "log.txt")


def start_from_nothing(folder: Path, *flags: str) -> "subprocess.Popen[bytes]":
    """With its imports, in which most kills would fall otherwise."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen([*COMMAND, *flags], cwd=folder, stdout=log, stderr=log)


def progress(folder: Path) -> tuple[int, ...]:
    """What has been done."""
    finished = look(folder, "SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')")
    known = look(folder, "SELECT COUNT(*) FROM study_user_attributes")
    return finished, known, len(list(folder.rglob("seed_*")))


def stage(folder: Path) -> str:
    """What was begun last, as the output has it."""
    text = (folder / "log.txt").read_text(errors="replace")
    return max((text.rfind(words), words) for words in ("", *STAGES))[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost(tmp_path: Path, workers: int) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    moments = random.Random(workers)
    flags = ("--workers", str(workers))
    killed: collections.Counter[str] = collections.Counter()
    kills = KILLS if workers == 1 else KILLS // 5
    longest, before = 3.0, progress(tmp_path)
    while killed.total() < kills:
        from_nothing = killed.total() % 5 == 0
        begin = start_from_nothing if from_nothing else start
        process: subprocess.Popen[bytes] | Command = begin(tmp_path, *flags)
        try:
            process.wait(moments.uniform(0.2, 8.0 if from_nothing else longest))
        except subprocess.TimeoutExpired:
            # So that the kills are spread over the whole study, on fast machines and on slow ones.
            now = progress(tmp_path)
            if not from_nothing:
                longest *= 0.8 if now > before else 1.2
            before = now
            try:
                victims = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:  # it has just ended by itself; the next one says how
                continue
            killed[stage(tmp_path)] += 1
            process.kill()
            process.wait()
            assert ended(victims), "workers that outlive their study"
            continue
        assert process.returncode == 0, (tmp_path / "log.txt").read_text()[-3000:]
        break  # nothing is left to kill
    process = start(tmp_path, *flags)
    assert end_of(process, tmp_path / "log.txt") == 0, (tmp_path / "log.txt").read_text()[-3000:]
    print(f"killed {dict(killed)}")
    study = check(tmp_path)
    assert killed.total() >= min(3, kills), "the study ended before it was killed much"
    if kills == KILLS:
        assert any(is_interrupted(trial) for trial in study.get_trials(deepcopy=False))


def check(folder: Path) -> optuna.Study:
    """What must hold of a finished study, whatever it has been through."""
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{folder}/mlruns/optuna.db")
    trials = study.get_trials(deepcopy=False)
    finished = finished_trials(study)
    assert len(finished) == TRIALS
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    given_up = [trial for trial in finished if "interrupted" in trial.user_attrs]
    assert all(trial.user_attrs["attempts"] == MOST_ATTEMPTS for trial in given_up)
    retried = collections.Counter(trial.user_attrs.get("retry_of") for trial in trials)
    for trial in trials:
        if is_interrupted(trial):
            assert retried[trial.number] == 1
            assert {"interrupted", "stopped"} & trial.user_attrs.keys()
    points = [tuple(sorted(trial.params.items())) for trial in finished if trial not in given_up]
    assert len(set(points)) == len(points), "a point was trained twice"

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    for kind in ("study", "trial", "repeat", "winner"):
        runs = runs_of(client, "segmentation", kind)
        assert not [run for run in runs if run.info.status == "RUNNING"], kind
        if kind == "trial":
            written = collections.Counter(int(run.data.tags["dl4ia.trial"]) for run in runs)
            assert written == collections.Counter(
                trial.number for trial in trials if trial.state.is_finished()
            )
            for run in runs:
                history = history_of(trials[int(run.data.tags["dl4ia.trial"])])
                if history:
                    values = client.get_metric_history(run.info.run_id, "val_dice")
                    assert [each.value for each in values] == history["val_dice"]
        elif kind == "repeat":
            assert len(runs) == len(kept_repeats(study))
        else:
            assert len(runs) == 1, kind
    assert len(study.user_attrs["test_openings"]) == 1
    versions = client.search_model_versions(f"name = '{NAME}'")
    assert (
        len(versions) == 1
        and versions[0].run_id == runs_of(client, "segmentation", "winner")[0].info.run_id
    )
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("*.checkpoint"))
    return study


def running(folder: Path) -> int:
    """How many trials are being trained."""
    return look(folder, "SELECT COUNT(*) FROM trials WHERE state = 'RUNNING'")


def test_ctrl_c_ends_all_processes_soon(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    process = start(tmp_path, "--workers", "3", "--epochs", "2000", "--study-name", "long")
    try:
        end = time.monotonic() + 120
        while running(tmp_path) < 3:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 3
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - before < 10
        assert ended(children, 1.0)
    finally:
        process.kill()
    assert running(tmp_path) == 0
    study = optuna.load_study(study_name="long", storage=f"sqlite:///{tmp_path}/mlruns/optuna.db")
    stopped = [each for each in study.trials if each.state.is_finished()]
    assert len(stopped) == 3 and all(each.user_attrs.get("stopped") for each in stopped)


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    process = start(tmp_path, "--workers", "2", "--finalists", "0", "--trials", "40")
    parent, victim = psutil.Process(process.pid), None
    while victim is None:
        assert process.poll() is None
        time.sleep(0.2)
        old = [each for each in parent.children() if time.time() - each.create_time() > 6]
        victim = old[0] if old else None
    victim.kill()
    assert end_of(process, tmp_path / "log.txt") == 0, (tmp_path / "log.txt").read_text()[-3000:]
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{tmp_path}/mlruns/optuna.db")
    assert len(finished_trials(study)) == 40
    known = [each.user_attrs.get("process") for each in study.trials if each.state.is_finished()]
    assert len({process["pid"] for process in known if process}) >= 2
