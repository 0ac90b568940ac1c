"""Jobs that several processes share, and trainings that several workers do ahead."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from commands import run_command
from conftest import ROOT, dl4ia, write_gland_folder
from job_takers import die, work
from optuna.trial import TrialState, create_trial

from dl4ia.errors import OutOfMemory
from dl4ia.report.progress import Progress
from dl4ia.selection.repeats import kept_repeats
from dl4ia.session import SearchTime
from dl4ia.workers import processes
from dl4ia.workers.jobs import Job, close_jobs, jobs_done, put_jobs, take_jobs
from dl4ia.workflow import ahead, trials
from dl4ia.workflow.trials import Trials

SPAWN = multiprocessing.get_context("spawn")
COMMAND = [sys.executable, str(ROOT / "studies" / "segmentation.py"), "--data", "Tiny Glands",
           "--trials", "10", "--epochs", "3", "--retraining-epochs", "4", "--finalists", "3",
           "--repeats", "3", "--seeds", "2", "--ablate", "--device", "cpu"]  # fmt: skip


ASKING = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"


def test_each_job_is_done_once(tmp_path: Path) -> None:
    put_jobs(tmp_path, [{"number": number} for number in range(60)])
    names = ("one.txt", "two.txt", "three.txt")
    processes = [SPAWN.Process(target=work, args=(tmp_path, name)) for name in names]
    for process in processes:
        process.start()
    while jobs_done(tmp_path) < 60:
        assert any(process.is_alive() for process in processes)
        time.sleep(0.01)
    put_jobs(tmp_path, [{"number": number} for number in range(60, 100)])
    close_jobs(tmp_path)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    did = [(tmp_path / name).read_text().split() for name in names if (tmp_path / name).exists()]
    assert sorted(int(number) for each in did for number in each) == list(range(100))
    assert jobs_done(tmp_path) == 100
    assert not list(take_jobs(tmp_path))


def test_a_job_whose_process_dies_is_done_by_another(tmp_path: Path) -> None:
    put_jobs(tmp_path, [{"number": number} for number in range(3)])
    close_jobs(tmp_path)
    process = SPAWN.Process(target=die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and jobs_done(tmp_path) == 1
    assert [job["number"] for job in take_jobs(tmp_path)] == [1, 2]


def test_workers_share_the_gpus_that_the_user_left_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "worker_command", lambda flags: [sys.executable, "-c", ASKING])
    seen = []
    for visible in ("2,GPU-5f1", None):
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        else:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        logs = tmp_path / str(visible)
        with processes.Workers(3, logs, gpus=2) as running:
            while running.mend(True):
                time.sleep(0.01)
        seen.append([(logs / f"worker_{number}.log").read_text().strip() for number in range(3)])
    assert seen == [["2", "GPU-5f1", "2"], ["0", "1", "0"]]


def test_a_workers_last_words_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those that another one left in the same file."""
    for said, script in (("it said nothing", ""), ("too much", "print('too much', flush=True);")):
        words = [sys.executable, "-c", f"import os; {script} os.kill(os.getpid(), 9)"]
        monkeypatch.setattr(processes, "worker_command", lambda flags, words=words: words)
        (tmp_path / "worker_0.log").write_text("Stopped. The same command goes on from here.\n")
        dying = processes.Workers(1, tmp_path, gpus=0)
        with dying, pytest.raises(processes.WorkersDied, match=rf"status -9 \({said}\)"):
            while dying.mend(False):
                time.sleep(0.01)


def test_a_worker_has_what_is_left_of_the_time(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    words = [*COMMAND, "--worker", "--until", str(time.time())]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.wait() == 0
    storage = f"sqlite:///{tmp_path}/mlruns/optuna.db"
    study = optuna.load_study(study_name="segmentation-tiny-glands", storage=storage)
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}


@pytest.mark.parametrize("first", ["", "pathlib.Path(sys.argv[-1], '0.done').touch();"])
def test_workers_that_die_leave_their_jobs_to_the_study(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the output is no terminal too; one job done is no endless progress."""
    script = f"import os, pathlib, sys; {first} os.kill(os.getpid(), 9)"
    monkeypatch.setattr(processes, "worker_command", lambda flags: [sys.executable, "-c", script])
    session = SimpleNamespace(
        name="a study",
        arguments=SimpleNamespace(workers=2, ray=None, out=tmp_path, objectives=()),
        objective=SimpleNamespace(device=torch.device("cpu")),
        task=SimpleNamespace(cores_a_worker=1),
    )
    with ahead.Ahead(session) as several:  # type: ignore[arg-type]
        several.train([{"kind": "repeat"}] * 3)
    said = capsys.readouterr().out
    assert "3 trainings, 2 at once" in said
    assert "workers died in a row" in said and "one by one" in said


def test_workers_stay_for_more_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But where half of them would do, and have twice the cores each."""
    opened: list[int] = []
    closed: list[bool] = []

    class Doing(nullcontext[None]):
        def __init__(self, count: int, flags: list[str]) -> None:
            super().__init__()
            opened.append(count)
            self.folder = Path(flags[-1])

        def mend(self, trained: bool) -> bool:
            for file in self.folder.glob("*.json"):
                file.with_suffix(".done").touch()
            return True

        def at_work(self) -> bool:
            return not (self.folder / "closed").exists()

        def __exit__(self, *failure: object) -> None:
            closed.append((self.folder / "closed").exists())

    monkeypatch.setattr(ahead, "local_workers", lambda session, count, flags: Doing(count, flags))
    monkeypatch.setattr(ahead, "OFTEN", 0)
    arguments = SimpleNamespace(workers=4, ray=None, out=tmp_path, objectives=())
    device = SimpleNamespace(device=torch.device("cpu"))
    session: Any = SimpleNamespace(arguments=arguments, objective=device)
    with ahead.Ahead(session) as several:
        for count in (4, 9, 1, 3, 2):
            several.train([{"kind": "repeat"}] * count)
            assert closed == [True] * (len(opened) - 1)
    assert opened == [4, 2] and closed == [True, True]
    session.arguments.workers = None
    free = iter([2])  # workers that there is memory for: asked for only while none are open
    monkeypatch.setattr(ahead, "default_count", lambda device, gpus: next(free))
    monkeypatch.setattr(ahead, "_is_worth_it", lambda session, jobs, count: jobs > 3)
    with ahead.Ahead(session) as several:
        for count in (5, 3, 2):
            several.train([{"kind": "repeat"}] * count)
    assert opened == [4, 2, 2]


def test_where_a_training_fails_the_workers_leave_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it may have failed for want of."""
    put_jobs(tmp_path, [{"kind": "repeat"}])
    close_jobs(tmp_path)

    def fail(job: Job) -> None:
        raise OutOfMemory("epoch 1: out of memory")

    ahead.work_ahead(tmp_path, {"repeat": fail})
    assert jobs_done(tmp_path) == 1 and (tmp_path / ahead.FAILED).exists()


def test_workers_that_die_in_every_trial_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial whose process died for the last time has failed, and is no sign of progress."""
    study = optuna.create_study(direction="maximize")
    attributes = iter(
        [
            {"interrupted": "process 1 died"},
            {"interrupted": "process 2 died", "failure": "process 2 died, the last of 3 attempts"},
            {"failure": "epoch 1: train_loss is nan"},
        ]
    )
    progress: list[bool] = []

    class Dying(nullcontext[None]):
        def mend(self, trained: bool) -> bool:
            progress.append(trained)
            for attributes_of_one in attributes:
                study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attributes_of_one))
                return True
            return False

    monkeypatch.setattr(trials, "OFTEN", 0)
    monkeypatch.setattr(trials, "worker_count", lambda session: 2)
    monkeypatch.setattr(trials, "open_workers", lambda *_: Dying())
    monkeypatch.setattr(Progress, "show", lambda self, trial: self._seen.add(trial.number))
    arguments = SimpleNamespace(trials=9, ray=None, workers=2)
    session = SimpleNamespace(study=study, arguments=arguments, search_time=SearchTime(None, None))
    with Trials(session) as missing:  # type: ignore[arg-type]
        missing.run()
    assert progress == [False, False, False, True]


@pytest.mark.parametrize(
    ("wanted", "asked", "expected"), [(50, None, 8), (12, None, 2), (9, None, 1), (50, 16, 16)]
)
def test_workers_that_nobody_asked_for_leave_the_sampler_something(
    monkeypatch: pytest.MonkeyPatch, wanted: int, asked: int | None, expected: int
) -> None:
    opened: list[int] = []
    monkeypatch.setattr(trials, "worker_count", lambda session: 16)
    monkeypatch.setattr(
        trials, "open_workers", lambda session, count, _: opened.append(count) or nullcontext()
    )
    study = optuna.create_study(direction="maximize")
    arguments = SimpleNamespace(trials=wanted, ray=None, workers=asked)
    session = SimpleNamespace(study=study, arguments=arguments, search_time=SearchTime(None, None))
    with Trials(session):  # type: ignore[arg-type]
        pass
    assert opened == ([expected] if expected > 1 else [])  # one is this process itself


def test_a_worker_a_core_as_far_as_the_memory_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "core_count", lambda: 6)
    for free, left, expected in ((64, 99, 6), (7, 99, 2), (1, 99, 1), (64, 7, 2), (64, 1, 1)):
        memory = SimpleNamespace(available=free << 30)
        monkeypatch.setattr(processes.psutil, "virtual_memory", lambda memory=memory: memory)
        monkeypatch.setattr(processes, "memory_left", lambda left=left: float(left << 30))
        assert processes.default_count("cpu", 0) == expected
        assert processes.default_count("cuda", 3) == min(3, expected)


@pytest.mark.parametrize(
    ("asked", "quota", "expected"),
    [
        (None, 8, 4),
        ("16", 8, 4),
        ("3", 8, 3),
        ("0", 8, 4),
        ("4,2", 8, 4),
        (None, 2, 1),
        ("3", 4, 2),
    ],
)
def test_a_worker_has_no_more_threads_than_its_share(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, quota: int, expected: int
) -> None:
    """Whatever the user has set for the process that starts it: all are on the worker's cores."""
    if asked is None:
        monkeypatch.delenv(processes.THREADS, raising=False)
    else:
        monkeypatch.setenv(processes.THREADS, asked)
    monkeypatch.setattr(processes, "usable_cores", lambda: list(range(8)))
    monkeypatch.setattr(processes, "core_count", lambda: quota)
    assert processes._threads(4) == expected


def test_where_the_seconds_count_nobody_disturbs_the_only_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ahead, "default_count", lambda device, gpus: 8)
    device = SimpleNamespace(device=torch.device("cpu"))
    for objectives, asked, expected in (
        ((), None, 8),
        (("dice", "weights"), None, 8),
        (("dice", "seconds"), None, 1),
        (("dice", "seconds"), 3, 3),
    ):
        arguments = SimpleNamespace(workers=asked, objectives=objectives)
        session: Any = SimpleNamespace(arguments=arguments, objective=device)
        assert ahead.worker_count(session) == expected


def test_workers_that_have_nothing_left_to_do_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those that a cluster has not begun yet when the last trial ends."""
    study = optuna.create_study(direction="maximize")
    shown: list[int] = []

    class Waiting(nullcontext[None]):
        def mend(self, trained: bool) -> bool:
            study.add_trial(create_trial(value=0.5))
            return True

    monkeypatch.setattr(trials, "OFTEN", 0)
    monkeypatch.setattr(trials, "worker_count", lambda session: 2)
    monkeypatch.setattr(trials, "open_workers", lambda *_: Waiting())

    def show(progress: Progress, trial: optuna.trial.FrozenTrial) -> None:
        progress._seen.add(trial.number)
        shown.append(trial.number)

    monkeypatch.setattr(Progress, "show", show)
    arguments = SimpleNamespace(trials=3, ray=None, workers=2)
    session = SimpleNamespace(study=study, arguments=arguments, search_time=SearchTime(None, None))
    with Trials(session) as missing:  # type: ignore[arg-type]
        missing.run()
    assert shown == [0, 1, 2]


def test_what_follows_the_search_is_the_same_with_more_workers(tmp_path: Path) -> None:
    """The named models in their order, and so the same finalists, repeats, winner and weights."""
    studies, weights, outputs = [], [], []
    for count in ("1", "2"):
        folder = tmp_path / count
        write_gland_folder(folder / "Tiny Glands")
        ended = run_command(
            [*COMMAND, "--workers", count],
            folder,
            os.environ | {"OMP_NUM_THREADS": "1"},  # two threads would round sums otherwise
        )
        assert ended.returncode == 0, ended.stderr
        outputs.append(ended.stdout)
        storage = f"sqlite:///{folder}/mlruns/optuna.db"
        studies.append(optuna.load_study(study_name="segmentation-tiny-glands", storage=storage))
        weights.append(torch.load(next(folder.rglob("seed_1.pt")), weights_only=True)["weights"])
    results = dl4ia(tmp_path / "2", "results", "segmentation-tiny-glands")
    assert results.returncode == 0, results.stderr
    page = (
        tmp_path / "2" / "mlruns" / "results" / "segmentation-tiny-glands" / "README.md"
    ).read_text()
    assert (
        "What each choice buys" in page
        and "ensemble of the 2 seeds" in page
        and "Measured optimism" in page
    )
    assert "at once" not in outputs[0] and "trainings, 2 at once" in outputs[1]
    one, two = (
        {key: kept["history"]["val_dice"] for key, kept in kept_repeats(study).items()}
        for study in studies
    )
    assert one == two and len(one) >= 9
    for name in ("selection", "ablation"):
        assert studies[0].user_attrs[name] == studies[1].user_attrs[name]
    scores = [study.user_attrs["winner"]["metrics"] for study in studies]
    assert scores[0]["test_dice"] == scores[1]["test_dice"]
    validations = [study.user_attrs["validation"]["history"]["val_dice"] for study in studies]
    assert validations[0] == validations[1] and len(validations[0]) == 4
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
