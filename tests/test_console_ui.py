"""`dl4ia ui`, really started, asked over HTTP and stopped."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from conftest import dl4ia
from servers import ended

COMMAND = [sys.executable, "-m", "dl4ia.console.main", "ui"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_answer_until_they_are_stopped(gland_study: Path, number: signal.Signals) -> None:
    # A proxy that is not there: pages on this machine are not asked of it.
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9"}
    process = subprocess.Popen(
        COMMAND,
        cwd=gland_study,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    dashboard, mlflow, advice = (process.stdout.readline() for _ in range(3))
    assert advice == "Ctrl-C stops both.\n"
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        assert len(children) >= 2
        address = dashboard.removeprefix("Optuna: ").strip().removesuffix("/dashboard")
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}/api/studies") as answer:
            assert b"segmentation-tiny-glands" in answer.read()
        address = mlflow.removeprefix("MLflow: ").strip()
        assert address.startswith("http://127.0.0.1:")
        query = urllib.request.Request(
            f"{address}/api/2.0/mlflow/experiments/search",
            data=b'{"max_results": 10}',
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(query) as answer:
            assert b'"segmentation"' in answer.read()
        listening = {
            each.laddr.ip
            for child in children
            for each in child.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors.strip() == "Stopped."
    assert ended(children)


def test_stopped_while_it_starts(gland_study: Path) -> None:
    process = subprocess.Popen(COMMAND, cwd=gland_study, stdout=subprocess.PIPE, text=True)
    parent = psutil.Process(process.pid)
    while not (children := parent.children(recursive=True)):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and output == ""
    assert ended(children)


def test_a_tool_that_ends_by_itself_is_said_and_the_other_stopped(
    gland_study: Path, tmp_path: Path
) -> None:
    """With a database that is MLflow's, but of no version that it knows."""
    shutil.copytree(gland_study / "mlruns", tmp_path / "mlruns")
    with sqlite3.connect(tmp_path / "mlruns" / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'unknown'")
    connection.close()
    ended = dl4ia(tmp_path, "ui")
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and line.startswith("error: mlflow ui has ended (")
    assert not [
        each
        for each in psutil.process_iter(["cwd"])
        if each.info["cwd"] == str(tmp_path) and each.is_running()
    ]
