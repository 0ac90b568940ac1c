"""One at a time: turns that all processes take which work on one study, on however many machines.

Beside an SQLite database they are locked files, on PostgreSQL its advisory locks. The system lets
go of both when their holder dies, so nothing stays locked.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy
from filelock import FileLock, Timeout

from dl4ia.errors import InputError
from dl4ia.storage import patiently

KEEP = "keep"  # the purpose of whoever keeps a study's records


class Turns:
    """The turns of one study in the database at `url`."""

    def __init__(self, url: str, study: str) -> None:
        """Raises InputError where the database knows no turns."""
        parsed = sqlalchemy.make_url(url)
        self._study, self._backend = study, parsed.get_backend_name()
        if self._backend == "sqlite":
            self._file = Path(str(parsed.database)).absolute()
        elif self._backend == "postgresql":
            # No pool: a closed connection lets go of its locks.
            self._engine = sqlalchemy.create_engine(
                parsed, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
            )
        else:
            raise InputError(
                f"--storage: a database of {self._backend}; expected sqlite:/// or postgresql://"
            )

    @contextmanager
    def take(self, purpose: str, wait: bool = True) -> Iterator[bool]:
        """Whether it is this process's turn, for as long as the block lasts.

        wait: for whoever has it; without waiting it may be False.
        """
        taken = self._lock_file if self._backend == "sqlite" else self._lock_on_server
        with taken(purpose, wait) as mine:
            yield mine

    @contextmanager
    def _lock_file(self, purpose: str, wait: bool) -> Iterator[bool]:
        file = self._file.with_name(f".{self._file.name}.{self._study}.{purpose}.lock")
        lock = FileLock(file, timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def _lock_on_server(self, purpose: str, wait: bool) -> Iterator[bool]:
        digest = hashlib.sha256(f"dl4ia {self._study} {purpose}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        function = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
        lock = sqlalchemy.text(f"SELECT {function}(:key)")
        unlock = sqlalchemy.text("SELECT pg_advisory_unlock(:key)")

        def ask() -> tuple[sqlalchemy.Connection, bool]:
            connection = self._engine.connect()
            try:
                answer = connection.execute(lock, {"key": key}).scalar()
            except BaseException:
                connection.close()
                raise
            return connection, wait or bool(answer)

        connection, mine = patiently(ask)
        try:
            yield mine
        finally:
            if mine:  # at once: of a connection that is closed the server hears a little later
                with suppress(sqlalchemy.exc.DBAPIError):  # or else the server is away
                    connection.execute(unlock, {"key": key})
            connection.close()
