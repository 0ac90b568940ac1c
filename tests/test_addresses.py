import os
import socket
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import optuna
import pytest

from dl4ia import addresses
from dl4ia.addresses import (
    check_has_study,
    check_storage,
    check_tracked,
    check_tracking,
    database_in,
    hide_password,
    this_command,
)
from dl4ia.errors import InputError


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be reached"),
        ("postgresql://host:port/optuna", "cannot be reached"),
        ("sqlite:///{}/text.db/optuna.db", "to be a folder that can be written to"),
        ("sqlite:///{}/text.db", "to be a database of Optuna's, and it is not"),
        ("sqlite:///{}/mlflow.db", "to be a database of Optuna's, and it is not"),
        ("sqlite:///:memory:", "expected a file"),
        ("sqlite:///{}/a%20b.db", "holds '%', which in a database's address"),
    ],
)
def test_bad_storages_are_named_and_nothing_is_written(tmp_path: Path, url: str, said: str) -> None:
    (tmp_path / "text.db").write_text("no database, but a text of more than sixteen bytes")
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
    before = sorted(tmp_path.rglob("*"))
    url = url.format(tmp_path)
    with pytest.raises(InputError, match=said) as refused:
        check_storage(url)
    assert url in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_usable_addresses_pass_and_write_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty.db").touch()
    check_tracking(f"sqlite:///{tmp_path}/empty.db")
    check_tracking(f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


def test_a_database_lies_where_its_address_says() -> None:
    assert database_in(Path("my runs"), "optuna.db") == "sqlite:///my runs/optuna.db"
    for name in ("what?", "my%20runs"):
        with pytest.raises(InputError, match=r"--out .*: holds '[?%]'"):
            database_in(Path(name), "optuna.db")
    with pytest.raises(InputError, match=r"holds '\?'"):
        check_tracking("sqlite:///what?/mlflow.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="not a folder that can be written to"):
        check_tracking(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "mlflow.db",
        "{folder}/mlruns",
        "file://{folder}/mlruns",
        "ftp://server/mlflow",
        "http://",
        "http://127.0.0.1:no/",
        "sqlite:///:memory:",
        "sqlite:///{folder}",
        "sqlite:///{folder}/notes.txt",
        "sqlite:///{folder}/notes.txt/mlflow.db",
        "sqlite:///{folder}/optuna.db",
    ],
)
def test_bad_addresses_are_named_and_write_nothing(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("Not a database, however long it may be. " * 100)
    other = sqlite3.connect(tmp_path / "optuna.db")
    other.execute("CREATE TABLE studies (study_id INTEGER)")
    other.close()
    uri = address.format(folder=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    with pytest.raises(InputError) as refusal:
        check_tracking(uri)
    message = str(refusal.value)
    assert f"'{uri}'" in message and "expected" in message and "\n" not in message
    assert before == {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}


@pytest.mark.parametrize("silent", [False, True], ids=["closed port", "accepts but never answers"])
def test_a_server_that_does_not_answer_fails_soon(
    silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not silent:
            server.close()
        begun = time.monotonic()
        with pytest.raises(InputError, match=f"'http://127.0.0.1:{port}': it does not answer"):
            check_tracking(f"http://127.0.0.1:{port}")
        assert time.monotonic() - begun < 10


def test_a_password_is_not_shown() -> None:
    with pytest.raises(InputError, match="user:") as refused:
        check_tracking("http://user:secret@127.0.0.1:9")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "postgresql://host/db?user=me&password=secret",
        "postgresql://me:secret@host/db?sslpassword=secret&application_name=x",
    ],
)
def test_no_form_of_a_password_is_shown(url: str) -> None:
    assert "secret" not in hide_password(url) and "host/db" in hide_password(url)


def test_a_server_that_is_slow_to_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's is that has just started, on a machine that does other things."""
    monkeypatch.setattr(addresses, "CONNECTION_SECONDS", 0.5)

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(1.5)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"OK" if self.path == "/health" else b"{}")

    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        check_tracking(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_a_server_of_something_else_is_not_told_of_mlflows_flags() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # it answers 501
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(
            InputError, match="it does not answer .HTTP error 501.*expected /health"
        ):
            check_tracking(f"http://127.0.0.1:{server.server_port}")
        thread.join()


def test_what_is_read_must_be_there(tmp_path: Path) -> None:
    """A missing file, an empty one and a database without a study stay as they are."""
    (tmp_path / "empty.db").touch()
    url = f"sqlite:///{tmp_path}/none.db"
    optuna.storages.RDBStorage(url)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("missing", "empty", "none"):
        with pytest.raises(InputError, match=f"{name}.db: no study there yet"):
            check_has_study(f"sqlite:///{tmp_path}/{name}.db")
    with pytest.raises(InputError, match="no such database; run a study first"):
        check_tracked(f"sqlite:///{tmp_path}/missing.db")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    optuna.create_study(storage=url, study_name="first")
    check_has_study(url)


def test_a_command_that_is_shown_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://me:secret@host/dl4ia?application_name=x"
    words = ["segmentation.py", "--storage", url, f"--tracking-uri={url}", "--data", "a b@c"]
    monkeypatch.setattr("sys.argv", words)
    shown = this_command()
    hidden = url.replace("secret", "***")
    assert shown == (
        f"python segmentation.py --storage '{hidden}' '--tracking-uri={hidden}' --data 'a b@c'"
    )
