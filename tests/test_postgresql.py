"""A study in a real PostgreSQL: many processes, a server that dies, machines that fall silent."""

import collections
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from conftest import ROOT, runs_of, write_gland_folder
from mlflow import MlflowClient
from optuna.trial import TrialState
from servers import free_port, serving
from small_search import begin, objective, run
from test_transactions import check_written

from dl4ia.environment import this_process
from dl4ia.search import storage as storage_file
from dl4ia.search.storage import open_storage
from dl4ia.search.trials import finished_trials, is_interrupted
from dl4ia.search.turns import TurnLost, Turns

WORKER = Path(__file__).with_name("small_search.py")


def program(name: str) -> str | None:
    """Where PostgreSQL's `name` is; Debian keeps it off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else None)


pytest.importorskip("psycopg", reason="psycopg is not installed")
pytestmark = pytest.mark.skipif(program("initdb") is None, reason="PostgreSQL is not installed")


class Server:
    """A cluster of its own in a new folder; `address` is Optuna's for its database."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.address = f"postgresql+psycopg://dl4ia@127.0.0.1:{self.port}/postgres"
        # It refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = {"user": "postgres", "cwd": folder}
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        words = ["-D", str(folder / "data"), "-A", "trust", "-U", "dl4ia", "--no-sync"]
        words += ["--locale=C", "--encoding=UTF8"]  # whatever this process has
        self._run("initdb", *words)

    def _run(self, name: str, *words: str) -> None:
        path = program(name)
        assert path
        ended = subprocess.run([path, *words], capture_output=True, text=True, **self._user)
        assert ended.returncode == 0, ended.stderr + ended.stdout

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder} -c fsync=off"
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")

    def kill(self) -> None:
        """At once, as if it had crashed."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        made = Server(Path(folder))
        made.start()
        yield made
        made.kill()


@pytest.fixture
def address(server: Server, request: pytest.FixtureRequest) -> str:
    """Of an empty database."""
    import psycopg

    name = f"test_{abs(hash(request.node.name))}"
    with psycopg.connect(server.address.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return server.address.removesuffix("postgres") + name


def test_what_a_trial_is_given_in_one_transaction(address: str) -> None:
    check_written(begin(open_storage(address)))


def test_turns(address: str) -> None:
    mine, others = Turns(address, "a"), Turns(address, "a")
    with mine.take("keep") as first:
        assert first
        with others.take("keep", wait=False) as second:
            assert not second
        with others.take("claim", wait=False) as second:
            assert second
        with Turns(address, "b").take("keep", wait=False) as second:
            assert second
    with others.take("keep", wait=False) as second:
        assert second


def test_a_machine_that_is_gone_is_noticed(address: str) -> None:
    """Whose lock the server else keeps for two hours; what there is to see of it on one machine."""
    mine, names = Turns(address, "a"), ("idle", "interval", "count")
    with mine.take("keep"):
        ask = mine._held["keep"].execute
        of_server = [ask(sqlalchemy.text(f"SHOW tcp_keepalives_{name}")).scalar() for name in names]
        assert of_server == ["30", "10", "3"]
        assert ask(sqlalchemy.text("SHOW tcp_user_timeout")).scalar() in ("1min", "60000", "60s")
    with open_storage(f"{address}?keepalives_idle=7").engine.connect() as connection:
        known = connection.connection.driver_connection.info.get_parameters()
    assert [known[f"keepalives_{name}"] for name in names] == ["7", "10", "3"]
    assert known["tcp_user_timeout"] == "60000" and known["connect_timeout"] == "5"


def test_records_are_kept_while_a_claim_is_waited_for(address: str) -> None:
    """By another thread of the process, which has that turn."""
    mine, others = Turns(address, "a"), Turns(address, "a")
    waited: list[bool] = []

    def wait() -> None:
        with mine.take("claim") as taken:
            waited.append(taken)

    with mine.take("keep"):
        with others.take("claim"):
            waits = threading.Thread(target=wait)
            waits.start()
            while not _waiting(address):
                time.sleep(0.05)
            confirms = threading.Thread(target=mine.confirm, args=("keep",), daemon=True)
            confirms.start()
            confirms.join(30)
            assert not confirms.is_alive() and not waited
        waits.join()
    assert waited == [True]


def _waiting(address: str) -> int:
    """How many wait for a turn."""
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        query = sqlalchemy.text(
            "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
        return int(connection.execute(query).scalar_one())


def let_go(address: str) -> None:
    """End all connections that have a turn, as a firewall or a restart of the server does."""
    import psycopg

    with psycopg.connect(address.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND "
            "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )


def test_a_turn_that_the_server_let_go_of_is_taken_anew(address: str) -> None:
    mine, others = Turns(address, "a"), Turns(address, "a")
    with mine.take("keep"):
        mine.confirm("keep")
        let_go(address)
        mine.confirm("keep")
        with others.take("keep", wait=False) as theirs:
            assert not theirs
    with others.take("keep", wait=False) as theirs:
        assert theirs


def test_a_turn_that_another_has_meanwhile_is_lost(address: str) -> None:
    mine, others, third = (Turns(address, "a") for _ in range(3))
    with mine.take("keep"):
        let_go(address)
        with others.take("keep", wait=False) as theirs:
            assert theirs
            for _ in range(2):
                with pytest.raises(TurnLost):
                    mine.confirm("keep")
            others.confirm("keep")
        with pytest.raises(TurnLost):  # it is nobody's now, and was another's
            mine.confirm("keep")
    with third.take("keep", wait=False) as free:
        assert free


def test_a_claim_whose_turn_was_lost_is_given_up(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the next turn may have counted without it, or have failed it as nobody's."""
    study, ask = begin(open_storage(address)), optuna.Study.ask
    breaks = iter((0, 1, 2))  # of the first claims: it is left alone, failed by another one, kept

    def break_off(self: optuna.Study) -> optuna.Trial:
        trial = ask(self)
        number = next(breaks, 2)
        if number < 2:
            let_go(address)
        if number == 1:
            other = begin(open_storage(address))
            assert run(other, 2) == [2, 3]
        return trial

    monkeypatch.setattr(optuna.Study, "ask", break_off)
    assert run(study, 3) == [4]
    reasons = [each.user_attrs.get("interrupted") for each in study.trials]
    lost = ["its lock on the database was lost", "its process died as it began"]
    assert reasons == [*lost, None, None, None]
    check(address, 3)


def check(address: str, trials: int) -> None:
    study = begin(open_storage(address))
    assert len(finished_trials(study)) == trials
    assert not [each for each in study.trials if each.state == TrialState.RUNNING]
    retried = {each.user_attrs.get("retry_of") for each in study.trials}
    # One that was cut off before it drew its point has none to run again.
    assert {each.number for each in study.trials if is_interrupted(each)} <= retried
    rates = [each.params["rate"] for each in finished_trials(study)]
    assert len(set(rates)) == len(rates)


def start(address: str, trials: int, deadly: float) -> "subprocess.Popen[bytes]":
    words = [sys.executable, str(WORKER), address, str(trials), str(deadly)]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_many_processes_run_exactly_as_many_trials(address: str) -> None:
    begin(open_storage(address))
    running = [start(address, 80, 0.02) for _ in range(4)]
    statuses = []
    while running:
        statuses.append(running.pop(0).wait())
        if statuses[-1] == -signal.SIGKILL:
            running.append(start(address, 80, 0.02))
    assert set(statuses) <= {0, -signal.SIGKILL}
    check(address, 80)


def test_a_server_that_is_killed_and_started_again(address: str, server: Server) -> None:
    begin(open_storage(address))
    running = [start(address, 120, 0.0) for _ in range(3)]
    for target in (20, 60):
        study = begin(open_storage(address))
        while len(finished_trials(study)) < target:
            assert not any(process.poll() for process in running)
            time.sleep(0.1)
        server.kill()
        time.sleep(2)
        server.start()
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    check(address, 120)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test need not wait for five minutes."""
    monkeypatch.setattr(storage_file, "HEARTBEAT", 1)
    monkeypatch.setattr(storage_file, "GRACE", 3)


def test_a_machine_that_falls_silent(address: str, impatient: None) -> None:
    study = begin(open_storage(address))
    trial = study.ask()
    trial.set_user_attr("process", this_process() | {"host": "elsewhere"})
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert run(begin(open_storage(address)), 3) == [1, 2, 3]
    assert study.trials[0].user_attrs["interrupted"].endswith("on elsewhere was silent for 3 s")
    # Claimed as soon as the silence was long enough, which depends on how fast the others were.
    retries = {each.number: each.user_attrs.get("retry_of") for each in study.trials}
    assert sorted(retries.values(), key=str) == [0, None, None, None] and retries[0] is None


def test_a_long_epoch_is_no_silence(address: str, impatient: None) -> None:
    """Another machine looks at a trial that says nothing for twice the grace period."""
    study = begin(open_storage(address))
    looked = []

    def long_epoch(trial: optuna.Trial) -> float:
        time.sleep(6)
        other = begin(open_storage(address))
        looked.append(other._storage._get_stale_trial_ids(study._study_id))  # type: ignore[attr-defined]
        return objective(trial)

    assert run(study, 1, long_epoch) == [0]
    assert looked == [[]]


def test_a_stopped_process_of_this_machine_is_not_dead(address: str, impatient: None) -> None:
    """Nor if it has said nothing for so long that one elsewhere would be."""
    words = [sys.executable, str(WORKER), address, "1", "0.0", "100"]
    begin(open_storage(address))
    process = subprocess.Popen(words)
    study = begin(open_storage(address))
    while not study.trials[0].params:  # while it has its turn to claim, nobody could go on
        assert not study.trials[0].state.is_finished()
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    time.sleep(5)

    def continue_it(trial: optuna.Trial) -> float:
        if trial.number == 1:
            time.sleep(3)  # until at the next claim the silence is long enough
        else:
            process.send_signal(signal.SIGCONT)
        return objective(trial)

    assert run(begin(open_storage(address)), 3, continue_it) == [1, 2]
    assert process.wait(timeout=60) == 0
    assert [each.state for each in study.trials] == [TrialState.COMPLETE] * 3


def test_the_same_command_twice_is_one_study(address: str, tmp_path: Path) -> None:
    """As on two machines: a folder each, a database and an MLflow server for both."""
    server = ["mlflow", "server", "--backend-store-uri", "sqlite:///server.db"]
    script = str(ROOT / "studies" / "segmentation.py")
    with serving(tmp_path, server, "/health") as tracking:
        words = [sys.executable, script, "--data", "Tiny Glands", "--trials", "24", "--epochs",
                 "4", "--finalists", "1", "--repeats", "2", "--seeds", "1", "--storage", address,
                 "--tracking-uri", tracking, "--workers", "1"]  # fmt: skip
        machines = [tmp_path / name for name in ("one", "two")]
        for folder in machines:
            write_gland_folder(folder / "Tiny Glands")
        logs = [folder / "log.txt" for folder in machines]
        running = []
        for folder, log in zip(machines, logs, strict=True):
            with log.open("wb") as opened:
                running.append(subprocess.Popen(words, cwd=folder, stdout=opened, stderr=opened))
        assert [process.wait(timeout=300) for process in running] == [0, 0], "".join(
            log.read_text() for log in logs
        )
        study = optuna.load_study(study_name="segmentation-tiny-glands", storage=address)
        assert len(finished_trials(study)) == 24
        ran = collections.Counter(each.user_attrs["process"]["pid"] for each in study.trials)
        assert len(ran) == 2 and min(ran.values()) >= 3
        client = MlflowClient(tracking)
        trials = runs_of(client, "segmentation", "trial")
        numbers = collections.Counter(int(each.data.tags["dl4ia.trial"]) for each in trials)
        assert numbers == collections.Counter(range(24))
        assert len(runs_of(client, "segmentation", "winner")) == 1
        assert len(study.user_attrs["test_openings"]) == 1
    texts = [log.read_text() for log in logs]
    assert sum("Another process keeps this study's records" in text for text in texts) == 1
    assert sum("Test (retrained on all" in text for text in texts) >= 1
