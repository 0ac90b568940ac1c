"""Whether Optuna's and MLflow's databases can be reached, before anything is written.

Both libraries would retry for minutes, leave half a database behind, or raise a page of traceback.
"""

import http.client
import os
import sqlite3
import urllib.request
from pathlib import Path

import sqlalchemy

from dl4ia.errors import InputError

CONNECTION_SECONDS = 5


def check_storage(url: str) -> None:
    """Raise InputError, in one line, where Optuna's database cannot be reached; writes nothing."""
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            _check_sqlite_path(url, parsed.database)
            return
        engine = sqlalchemy.create_engine(
            parsed, connect_args={"connect_timeout": CONNECTION_SECONDS}
        )
        engine.connect().close()
    except ImportError as error:
        raise InputError(
            f"--storage {url}: its driver is missing ({error.name}); pip install it"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"--storage {url}: cannot be reached ({reason}); expected a database address such as "
            "sqlite:///mlruns/optuna.db"
        ) from error


def _check_sqlite_path(url: str, database: str | None) -> None:
    if not database or database == ":memory:":
        raise InputError(f"--storage {url}: expected a file, such as sqlite:///mlruns/optuna.db")
    path = Path(database)
    if path.exists() and not _may_be_sqlite(path):
        raise InputError(f"--storage {url}: {path} is not an SQLite database; name another file")
    if not path.parent.is_dir():
        raise InputError(f"--storage {url}: no such folder {path.parent}; make it first")


def _may_be_sqlite(path: Path) -> bool:
    """Whether a path is a file that is empty or begins as SQLite's do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) in (b"", b"SQLite format 3\x00")


def check_tracking(uri: str) -> None:
    """Raise `InputError` if MLflow could not be written at `uri`. Creates and changes nothing."""
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith("sqlite:///") and uri not in ("sqlite:///", "sqlite:///:memory:"):
        _check_database(uri, Path(uri.removeprefix("sqlite:///")))
    else:
        raise InputError(
            f"MLflow address '{uri}': expected sqlite:///<path of a .db file> or http(s)://<server>"
            " (MLflow no longer writes plain folders); for example sqlite:///mlruns/mlflow.db"
        )


def _check_server(uri: str) -> None:
    problem = "it is not an MLflow server"
    try:
        with urllib.request.urlopen(
            uri.rstrip("/") + "/health", timeout=CONNECTION_SECONDS
        ) as answer:
            if answer.read(16).strip() == b"OK":
                return
    except (OSError, ValueError, http.client.HTTPException) as error:
        problem = f"it does not answer ({error})"
    raise InputError(
        f"MLflow address '{uri}': {problem}; expected /health to say OK within"
        f" {CONNECTION_SECONDS} s: start it with 'mlflow server', or use sqlite:///mlruns/mlflow.db"
    )


def _check_database(uri: str, path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} is not a folder that can be written to"
    elif path.is_dir() or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        problem = f"{path} is not a file that can be written to"
    elif path.exists() and not _holds_mlflow_or_nothing(path):
        problem = f"{path} is not a database of MLflow's"
    else:
        return
    raise InputError(
        f"MLflow address '{uri}': {problem}; expected a new or existing MLflow database in a"
        " writable folder: give another path, for example sqlite:///mlruns/mlflow.db"
    )


def _holds_mlflow_or_nothing(path: Path) -> bool:
    """Whether `path` is an SQLite file with MLflow's tables or none (Optuna's are others)."""
    # "immutable": SQLite then leaves no lock or log file beside the database.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()
    return not tables or "experiments" in tables
