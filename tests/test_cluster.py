"""Workers as tasks of a real Ray cluster of several nodes, simulated on this machine."""

import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from commands import run_command
from conftest import ROOT, write_gland_folder
from servers import end_of

from dl4ia.errors import InputError
from dl4ia.search.trials import finished_trials, is_interrupted
from dl4ia.workers.cluster import RayWorkers, _work
from dl4ia.workers.processes import GPUS

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")

COMMAND = [sys.executable, str(ROOT / "studies" / "segmentation.py"), "--data", "Tiny Glands",
           "--epochs", "4", "--finalists", "0", "--seeds", "1", "--device", "cpu"]  # fmt: skip
NAME = "segmentation-tiny-glands"


def studied(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=NAME, storage=f"sqlite:///{folder}/mlruns/optuna.db")


def test_a_node_is_lost_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray's tasks run at niceness 15: beside two other tests they had no processor for minutes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    write_gland_folder(tmp_path / "Tiny Glands")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes(timeout=300)
        words = [*COMMAND, "--trials", "36", "--ray", cluster.address, "--workers", "3"]
        log = tmp_path / "log.txt"
        with log.open("wb") as opened:
            process = subprocess.Popen(words, cwd=tmp_path, stdout=opened, stderr=opened)
        ended = end_of(process, log, until=lambda: log.read_text().count(" epochs ") >= 6)
        assert ended is None, log.read_text()
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        assert end_of(process, log) == 0, log.read_text()
    finally:
        cluster.shutdown()
    study = studied(tmp_path)
    assert len(finished_trials(study)) == 36
    assert not [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
    retried = {trial.user_attrs.get("retry_of") for trial in study.trials}
    assert {trial.number for trial in study.trials if is_interrupted(trial)} <= retried
    workers = {trial.user_attrs["process"]["pid"] for trial in study.trials if trial.params}
    assert len(workers) >= 4  # three, and whoever came for those that were lost


def test_an_address_without_a_cluster_is_told(tmp_path: Path) -> None:
    write_gland_folder(tmp_path / "Tiny Glands")
    for address in ("127.0.0.1:1", "nowhere"):
        words = [*COMMAND, "--trials", "2", "--ray", address, "--workers", "2"]
        ended = run_command(words, tmp_path)
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"error: --ray {address}: cannot be reached (")


def test_what_ray_may_not_change() -> None:
    """How a polite kill ends this process. And what no machine has is not waited for."""
    before = signal.getsignal(signal.SIGTERM)
    with RayWorkers("local", 0, 0, cores=2) as workers:
        assert signal.getsignal(signal.SIGTERM) is before
        for count in (1, 10):  # as many threads as a training makes use of, where all can have them
            workers._count = count
            cores = sum(node["Resources"].get("CPU", 0) for node in workers._nodes())
            assert cores and workers._cores_a_worker() == max(1, min(2, cores // count))
    with (
        pytest.raises(InputError, match="--gpus-per-worker 99: this machine has .*at most"),
        RayWorkers("local", 1, 99),
    ):
        pass


def test_machines_that_cannot_share_a_file_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have a database of its own, and nobody would hear of its trials."""
    nodes = [{"NodeManagerAddress": f"10.0.0.{n}", "Resources": {"CPU": 1.0}} for n in (1, 2)]
    monkeypatch.setattr(RayWorkers, "_nodes", lambda self: nodes)
    words = "2 machines, which cannot share .* expected --storage postgresql"
    with (
        pytest.raises(InputError, match=words),
        RayWorkers("local", 0, 0, storage="sqlite:///mlruns/optuna.db"),
    ):
        pass
    with RayWorkers("local", 0, 0, storage="postgresql+psycopg://user@database/dl4ia"):
        pass


def test_gpus_that_no_machine_has_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cluster may grow: they are waited for, but not in silence."""
    workers = RayWorkers("10.0.0.1:6379", 0, 2)
    nodes = [{"NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    monkeypatch.setattr(RayWorkers, "_nodes", lambda self: nodes)
    workers._check_nodes()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no machine of the cluster has 2 GPUs now, the most is 1:")


def test_a_worker_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray leaves a task that asked for none the node's."""
    monkeypatch.setenv(GPUS, "0,1")
    command = [sys.executable, "-c", f"import os; print(os.environ[{GPUS!r}])"]
    assert _work(command, ".", hides_gpus=True) == (0, "\n")
    assert _work(command, ".", hides_gpus=False) == (0, "0,1\n")
