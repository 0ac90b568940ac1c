"""Whether what a study writes to can be written to, before anything is.

Optuna and MLflow would retry for minutes, leave half a database behind, or raise a page of
traceback.
"""

import os
import re
import shlex
import sqlite3
import sys
from http import HTTPStatus
from pathlib import Path

import sqlalchemy

from dl4ia.errors import InputError, first_line

CONNECTION_SECONDS = 5  # to reach a server
ANSWER_SECONDS = 30  # and, once it is reached, until it answers
# Of PostgreSQL: after how many seconds of silence it is asked whether it is there, how often, and
# for how long. Linux has two hours, in which whoever waits for it waits, and goes on for fifteen
# minutes to send what nobody receives.
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
UNHEARD_MILLISECONDS = 60_000

PASSWORD = re.compile(r"([?&](?:ssl)?pass(?:word|wd)=)[^&#]*", re.IGNORECASE)  # in a query


def check_folder(folder: Path) -> None:
    """Raise InputError where --out is not, and cannot be made, a folder to write into."""
    problem = _unwritable(folder.absolute())
    if problem:
        raise InputError(f"--out {folder}: {problem}; name a folder that can be written to")


def database_in(out: Path, name: str, flag: str = "--out") -> str:
    """The address of an SQLite file in `out`; InputError where the address would mean another.

    flag: by which the user has named the folder.
    """
    _check_marks(f"{flag} {out}", str(out), "?%")
    return f"sqlite:///{out / name}"


def _check_marks(what: str, path: str, marks: str) -> None:
    found = next((mark for mark in marks if mark in path), None)
    if found:
        raise InputError(
            f"{what}: holds {found!r}, which in a database's address is no part of a name; name a "
            "folder without it"
        )


def check_storage(url: str) -> None:
    """Raise InputError, in one line, where Optuna's database cannot be reached; writes nothing."""
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            _check_marks(f"--storage {url}", url.partition("?")[0], "%")
            problem = _database_problem(parsed.database, "studies", "Optuna")
            if problem:
                raise InputError(
                    f"--storage {url}: {problem}; expected a file such as "
                    "sqlite:///mlruns/optuna.db"
                )
            return
        sqlalchemy.create_engine(parsed, connect_args=connect_arguments(url)).connect().close()
    except ImportError as error:
        raise InputError(
            f"--storage {hide_password(url)}: its driver is missing ({error.name}); pip install it"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, TypeError) as error:
        raise InputError(
            f"--storage {hide_password(url)}: cannot be reached ({first_line(error)}); expected a "
            "database address such as sqlite:///mlruns/optuna.db"
        ) from error


def check_tracking(uri: str) -> None:
    """Raise InputError, in one line, where MLflow cannot be written at `uri`; writes nothing."""
    if uri.startswith(("http://", "https://")):
        problem = _server_problem(uri)
        todo = "start it with 'mlflow server', or use sqlite:///mlruns/mlflow.db"
    elif uri.startswith("sqlite:///"):
        _check_marks(f"MLflow address '{uri}'", uri, "?%")
        problem = _database_problem(uri.removeprefix("sqlite:///"), "experiments", "MLflow")
        todo = "give another path, for example sqlite:///mlruns/mlflow.db"
    else:
        problem = "expected sqlite:///<path of a .db file> or http(s)://<server>"
        todo = "MLflow no longer writes plain folders: use sqlite:///mlruns/mlflow.db"
    if problem:
        raise InputError(f"MLflow address '{hide_password(uri)}': {problem}; {todo}")


def check_tracked(uri: str) -> None:
    """Raise InputError where MLflow has nothing to be read at `uri`; writes nothing."""
    check_tracking(uri)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError(
            f"MLflow address '{hide_password(uri)}': no such database; run a study first, for "
            "example 'python studies/segmentation.py', or give another --tracking-uri"
        )


def check_has_study(url: str) -> None:
    """Raise InputError where Optuna's database is missing or without a study; writes nothing."""
    check_storage(url)
    if not exists(url) or not _count_studies(url):
        raise InputError(
            f"{hide_password(url)}: no study there yet; run one first, for example 'python "
            "studies/segmentation.py', or give another --out or --storage"
        )


def exists(url: str) -> bool:
    """Whether a database file is there already; True of a database on a server."""
    parsed = sqlalchemy.make_url(url)
    return parsed.get_backend_name() != "sqlite" or Path(str(parsed.database)).exists()


def connect_arguments(url: str) -> dict[str, int]:
    """For a connection to a server: how soon it is noticed that it is not there, or no more."""
    parsed = sqlalchemy.make_url(url)
    arguments = {"connect_timeout": CONNECTION_SECONDS}
    if parsed.get_backend_name() == "postgresql":
        arguments |= KEEPALIVES | {"tcp_user_timeout": UNHEARD_MILLISECONDS}
    return {name: value for name, value in arguments.items() if name not in parsed.query}


def this_command() -> str:
    """As it may be given again, its passwords hidden."""
    words = []
    for word in sys.argv:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(flag + equals + (hide_password(value) if "://" in value else value))
    return " ".join(["python", *map(shlex.quote, words)])


def hide_password(url: str) -> str:
    """The address as it may be shown."""
    url = PASSWORD.sub(r"\1***", url)
    if "@" not in url:
        return url
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return url.split("@")[-1]


def _count_studies(url: str) -> int:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            return int(
                connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM studies")).scalar_one()
            )
    except sqlalchemy.exc.SQLAlchemyError:  # no such table: nothing was ever written
        return 0
    finally:
        engine.dispose()


def _server_problem(uri: str) -> str | None:
    """Why MLflow's server is of no use; one that has just started, or is busy, is waited for."""
    import requests  # as MLflow's client does; here, since it takes a while to be imported

    root, patience = uri.rstrip("/"), (CONNECTION_SECONDS, ANSWER_SECONDS)
    expected = f"expected /health to say OK within {ANSWER_SECONDS} s"
    question = f"{root}/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        health = requests.get(f"{root}/health", timeout=patience)
        if health.status_code != HTTPStatus.OK:
            return f"it does not answer (HTTP error {health.status_code}); {expected}"
        if health.content.strip() != b"OK":
            return f"it is not an MLflow server; {expected}"
        answer = requests.get(question, timeout=patience)
    except requests.RequestException as error:
        return f"it does not answer ({_reason(error)}); {expected}"
    # A name and a password MLflow's client knows.
    if answer.ok or answer.status_code == HTTPStatus.UNAUTHORIZED:
        return None
    said = " ".join(answer.text[:200].split())
    return f"it refuses what it is asked ({answer.status_code}: {said}); see its --allowed-hosts"


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom, without the layers that say it again."""
    while error.__context__ is not None:
        error = error.__context__
    return first_line(error)


def _database_problem(database: str | None, table: str, owner: str) -> str | None:
    """What keeps an SQLite file from being made or used as `owner`'s, which has `table`."""
    if not database or database == ":memory:":
        return "expected a file"
    path = Path(database).absolute()
    problem = _unwritable(path.parent)
    if problem:
        return problem
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        return f"expected {path} to be a file that can be written to"
    if path.exists() and not _holds_table_or_nothing(path, table):
        return f"expected {path} to be a database of {owner}'s, and it is not"
    return None


def _unwritable(folder: Path) -> str | None:
    """Why `folder` cannot be made or written into."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return f"expected {folder} to be a folder that can be written to"
    return None


def _holds_table_or_nothing(path: Path, table: str) -> bool:
    """Whether `path` is an SQLite file with that table, or with none at all."""
    # To write, since what a killed process has left unfinished is first rolled back; and never
    # "immutable": what is still in the write-ahead log counts.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=60)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()
    return not tables or table in tables
