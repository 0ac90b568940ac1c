"""Optuna's storage as a study uses it: quick on SQLite, patient with a server that is away."""

import atexit
import sqlite3
import warnings
import weakref
from contextlib import suppress
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from dl4ia.addresses import connect_arguments, hide_password
from dl4ia.errors import InputError, first_line
from dl4ia.search.patience import patiently
from dl4ia.search.transactions import BatchingStorage

# Seconds; a process on another machine, or in another container, that was silent so long is dead.
HEARTBEAT, GRACE = 30, 300
LOCAL_HEARTBEAT, LOCAL_GRACE = 15, 120  # with SQLite, which is never away
SQLITE_WAIT = 60  # seconds for the processes that write before


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage; on SQLite without waiting for the disk at every write.

    Whoever is to be told at once that a server is not there asks `dl4ia.addresses` first.

    With a write-ahead log and `synchronous=NORMAL` a power cut may lose the last moments, a killed
    process nothing (sqlite.org/wal.html).
    """
    local = url.startswith("sqlite")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return patiently(
                lambda: BatchingStorage(
                    url,
                    engine_kwargs=_engine_arguments(url),
                    heartbeat_interval=LOCAL_HEARTBEAT if local else HEARTBEAT,
                    grace_period=LOCAL_GRACE if local else GRACE,
                )
            )
    except (
        sqlalchemy.exc.SQLAlchemyError,
        RuntimeError,
        ImportError,
        StorageInternalError,
    ) as error:
        raise InputError(
            f"--storage {hide_password(url)}: cannot be used ({first_line(error)}); name another "
            "database"
        ) from error


class Connection(sqlite3.Connection):
    """One that can be referred to weakly."""


_open: "weakref.WeakSet[Connection]" = weakref.WeakSet()


@atexit.register
def _close() -> None:
    """As a process ends: with the last connection the write-ahead log goes into the database."""
    for connection in list(_open):
        with suppress(sqlite3.Error):
            connection.close()


def _engine_arguments(url: str) -> dict[str, Any]:
    if not url.startswith("sqlite"):
        return {"connect_args": connect_arguments(url), "pool_pre_ping": True}

    def connect() -> Connection:
        database = str(sqlalchemy.make_url(url).database)
        connection = sqlite3.connect(
            database, timeout=SQLITE_WAIT, check_same_thread=False, factory=Connection
        )
        _open.add(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return {"creator": connect}
