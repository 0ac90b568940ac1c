"""MLflow's server stops in the middle of a study, and comes back, or not."""

import collections
import signal
import sys
import time
from pathlib import Path

import optuna
import pytest
from commands import Command
from conftest import ROOT, runs_of, write_gland_folder
from mlflow import MlflowClient
from servers import end_of, free_port, look, serving

from dl4ia.addresses import check_tracking
from dl4ia.errors import InputError

SERVER = ["mlflow", "server", "--backend-store-uri", "sqlite:///server.db"]


def start(folder: Path, port: int, trials: int) -> Command:
    script = str(ROOT / "studies" / "segmentation.py")
    words = [sys.executable, script, "--data", "Tiny Glands", "--epochs", "8", "--trials",
             str(trials), "--finalists", "1", "--repeats", "2", "--seeds", "1",
             "--tracking-uri", f"http://127.0.0.1:{port}", "--workers", "1"]  # fmt: skip
    return Command(words, folder, folder / "log.txt", folder / "log.txt")


def finished(folder: Path) -> int:
    """How many trials have finished."""
    states = "('COMPLETE', 'PRUNED', 'FAIL')"
    return look(folder, f"SELECT COUNT(*) FROM trials WHERE state IN {states}")


def test_a_server_that_knows_this_address_by_another_name(tmp_path: Path) -> None:
    """It says that it is well, and refuses all else."""
    refusal = pytest.raises(InputError, match=r"\(403: Invalid Host.*see its --allowed-hosts")
    server = [*SERVER, "--allowed-hosts", "tracking:*"]
    with serving(tmp_path, server, "/health") as address, refusal:
        check_tracking(address)


@pytest.mark.parametrize("comes_back", [True, False])
def test_trials_go_on_and_are_written_later(tmp_path: Path, comes_back: bool) -> None:
    trials = 20
    write_gland_folder(tmp_path / "Tiny Glands")
    port = free_port()
    with serving(tmp_path, SERVER, "/health", port, end=signal.SIGKILL):
        process = start(tmp_path, port, trials)
        while finished(tmp_path) < 3:
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)
    before = finished(tmp_path)
    while finished(tmp_path) < min(before + 5, trials):
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.2)
    if comes_back:
        process.send_signal(signal.SIGSTOP)  # or trials might run out before the server is there
    else:
        assert end_of(process, tmp_path / "log.txt") == 2
        text = (tmp_path / "log.txt").read_text()
        assert "MLflow fails (" in text and "trials go on" in text
        last = text.strip().splitlines()[-1]
        assert last.startswith(f"error: MLflow at http://127.0.0.1:{port} failed (")
        assert "is intact" in last and "Traceback" not in text
        assert finished(tmp_path) == trials
    with serving(tmp_path, SERVER, "/health", port) as address:
        if comes_back:
            process.send_signal(signal.SIGCONT)
        else:
            process = start(tmp_path, port, trials)
        assert end_of(process, tmp_path / "log.txt") == 0, (tmp_path / "log.txt").read_text()
        client = MlflowClient(address)
        runs = runs_of(client, "segmentation", "trial")
        numbers = collections.Counter(int(run.data.tags["dl4ia.trial"]) for run in runs)
        assert numbers == collections.Counter(range(trials))
        assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
        assert len(runs_of(client, "segmentation", "winner")) == 1
        (study,) = runs_of(client, "segmentation", "study")
        assert study.info.status == "FINISHED"
    storage = f"sqlite:///{tmp_path}/mlruns/optuna.db"
    study_record = optuna.load_study(study_name="segmentation-tiny-glands", storage=storage)
    assert len(study_record.user_attrs["test_openings"]) == 1
