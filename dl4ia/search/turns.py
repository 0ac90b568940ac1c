"""One at a time: turns that all processes take which work on one study, on however many machines.

Beside an SQLite database they are locked files, on PostgreSQL its advisory locks. The system lets
go of both when their holder dies, so nothing stays locked; PostgreSQL within a minute when it is
the holder's machine, or its network, that dies.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError

from dl4ia.addresses import KEEPALIVES, UNHEARD_MILLISECONDS, connect_arguments
from dl4ia.errors import InputError
from dl4ia.search.patience import patiently

KEEP = "keep"  # the purpose of whoever keeps a study's records
# The server too has to ask whether somebody is still there, whose lock else stays for hours, and to
# give up where its answer is not received.
OF_SERVER = KEEPALIVES | {"user_timeout": UNHEARD_MILLISECONDS}
ASK = ", ".join(f"set_config('tcp_{name}', '{value}', false)" for name, value in OF_SERVER.items())
WAIT_FOR_LOCK = sqlalchemy.text(f"SELECT {ASK}, pg_advisory_lock(:key)")
TRY_LOCK = sqlalchemy.text(f"SELECT {ASK}, pg_try_advisory_lock(:key)")
UNLOCK = sqlalchemy.text("SELECT pg_advisory_unlock(:key)")


class TurnLost(Exception):
    """Another process has the turn that this one had taken."""


class Turns:
    """The turns of one study in the database at `url`."""

    def __init__(self, url: str, study: str) -> None:
        """Raises InputError where the database knows no turns."""
        parsed = sqlalchemy.make_url(url)
        self._study, self._backend = study, parsed.get_backend_name()
        if self._backend == "sqlite":
            self._file = Path(str(parsed.database)).resolve()
        elif self._backend == "postgresql":
            # No pool: a closed connection lets go of its locks.
            self._engine = sqlalchemy.create_engine(
                parsed,
                isolation_level="AUTOCOMMIT",
                poolclass=sqlalchemy.NullPool,
                connect_args=connect_arguments(url),
            )
            self._held: dict[str, sqlalchemy.Connection] = {}  # of a purpose: has its lock
            # A connection serves one thread at a time; a turn is taken by one.
            self._guard = threading.Lock()
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

    def confirm(self, purpose: str, anew: bool = True) -> None:
        """Raise TurnLost where the turn that this process has taken is another one's by now.

        A server that was started again, or that a connection was lost to, has let go of it. anew:
        it may be taken again, unless somebody else has it; else it is lost.
        """
        if self._backend == "sqlite":
            return
        with self._guard:
            connection = self._held.get(purpose)
            if connection is not None:
                try:
                    connection.execute(sqlalchemy.text("SELECT 1"))
                except sqlalchemy.exc.DBAPIError:
                    del self._held[purpose]
                    connection.close()
                    if anew:
                        self._ask(purpose, wait=False)
            if purpose not in self._held:
                raise TurnLost

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
        mine = self._ask(purpose, wait)  # unguarded: meanwhile another turn can be confirmed
        try:
            yield mine
        finally:
            with self._guard:
                connection = self._held.pop(purpose, None)
            if connection is not None:
                # At once: of a connection that is closed the server hears a little later.
                with suppress(sqlalchemy.exc.DBAPIError):  # or else the server is away
                    connection.execute(UNLOCK, {"key": self._key(purpose)})
                connection.close()

    def _ask(self, purpose: str, wait: bool) -> bool:
        """Whether the server gives this process the turn; the connection that has it is held."""
        lock = WAIT_FOR_LOCK if wait else TRY_LOCK

        def ask() -> bool:
            connection = self._engine.connect()
            try:
                mine = connection.execute(lock, {"key": self._key(purpose)}).one()[-1]
            except BaseException:
                connection.close()
                raise
            if wait or mine:
                self._held[purpose] = connection
                return True
            connection.close()
            return False

        try:
            return patiently(ask)
        except sqlalchemy.exc.SQLAlchemyError as error:  # as Optuna's own storage says it
            raise StorageInternalError("no turn is to be had") from error

    def _key(self, purpose: str) -> int:
        digest = hashlib.sha256(f"dl4ia {self._study} {purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)
