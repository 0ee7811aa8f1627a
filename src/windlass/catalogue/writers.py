"""Who writes a catalogue's database: one Windlass alone, or several that tell each other. Never both.

A Windlass that takes itself for the only writer denies what another has added. So whoever is alone holds a
lock that no other may hold beside it, and those who tell each other hold it together: for SQLite on a file
beside the database, for PostgreSQL in a session of its own (an advisory lock; both end with their holder).
Other databases have no such lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog
from sqlalchemy import make_url

from windlass.errors import StartError
from windlass.guard.guard import Alone

if TYPE_CHECKING:
    import psycopg

log = structlog.get_logger("windlass.catalogue")

PATIENCE = 10.0
"""Seconds that a start waits for another to be gone."""
_PAUSE = 0.05
CHECK = 1.0
"""Seconds between two looks at whether the lock is still there."""


class Lock(Protocol):
    """A lock on a database, shared or not."""

    def held(self) -> bool | None:
        """Take it where it is not held (blocks). False: somebody else has it; None: nobody can tell now."""

    def close(self) -> None:
        """Let it go, if it is held."""


def take(lock: Lock) -> Lock:
    """Take a lock. Raises StartError where another writes who would not hear of us; blocks.

    One that has just ended may seem to hold it still: PostgreSQL ends its session some time later.
    """
    until = time.monotonic() + PATIENCE
    while lock.held() is False:
        if time.monotonic() < until:
            time.sleep(_PAUSE)
            continue
        lock.close()
        raise StartError(
            "Another Windlass writes the products in this database, and would not hear of what this one"
            " adds. Give all of them the same --redis, or stop the other one."
        )
    return lock


class Sole(Alone):
    """This process alone writes, as long as the lock is its own."""

    def __init__(self, lock: Lock, regained: Callable[[], None]) -> None:
        """`regained` is called when the lock was another's for a while and is ours again: who knows what was
        written meanwhile. It may raise. Raises StartError where another writes."""
        self._lock = take(lock)
        self._regained = regained
        self._ours = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="windlass-catalogue-lock", daemon=True)
        self._thread.start()

    def current(self) -> bool:
        return self._ours

    def check(self) -> None:
        """Look whether the lock is still ours. A database that is away lets nobody else write either."""
        held = self._lock.held()
        if held is False and self._ours:
            self._ours = False
            log.error(
                "catalogue_written_by_another",
                message="Another Windlass writes the products: every look-up asks the database now.",
            )
        elif held and not self._ours:
            self._regained()
            self._ours = True
            log.info(
                "catalogue_alone_again",
                message="This Windlass is the only one again that writes the products.",
            )

    def close(self) -> None:
        """Let the database go. Blocks."""
        self._over.set()
        self._thread.join(5 * CHECK)  # a database that hangs may hold it; it ends with the process
        self._lock.close()

    def _watch(self) -> None:
        while not self._over.wait(CHECK):
            try:
                self.check()
            except Exception as error:  # noqa: BLE001 - the next look may do better
                log.warning(
                    "catalogue_lock_unknown", message=f"The lock of the products cannot be looked at: {error}"
                )


def lock_of(url: str, table: str, *, shared: bool) -> Lock:
    """The lock of whoever writes `table` at `url`; `shared` with others who hold it so. Raises StartError."""
    where = make_url(url)
    if where.drivername.startswith("postgres"):
        plain = where.set(drivername="postgresql").render_as_string(hide_password=False)
        return _Session(plain, table, shared)
    if where.drivername.startswith("sqlite") and where.database:
        return _File(Path(where.database), shared)
    return _Nothing()


class _Nothing:
    def held(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _File:
    """A lock of the kernel on a file beside the database."""

    def __init__(self, database: Path, shared: bool) -> None:
        self._how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        path = database.with_name(f"{database.name}.writers")
        try:
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"{path} cannot be opened: {error.strerror}.") from error

    def held(self) -> bool | None:
        if self._file is None:
            return None
        try:
            fcntl.flock(self._file, self._how)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None  # its number may be another file's by now


class _Session:
    """An advisory lock of PostgreSQL, held as long as its session lives."""

    def __init__(self, url: str, table: str, shared: bool) -> None:
        import psycopg  # half of a start with SQLite, which does without

        self._psycopg = psycopg
        self._url = url
        self._number = int.from_bytes(sha256(f"windlass {table}".encode()).digest()[:8], "big", signed=True)
        self._take = f"SELECT pg_try_advisory_lock{'_shared' if shared else ''}(%s)"
        self._connection: psycopg.Connection | None = None

    def held(self) -> bool | None:
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1")
                return True
            connection = self._psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, keepalives_idle=5, tcp_user_timeout=5000
            )
            with contextlib.ExitStack() as until_taken:
                until_taken.callback(connection.close)
                found = connection.execute(self._take, (self._number,)).fetchone()
                if found is not None and found[0]:
                    until_taken.pop_all()
                    self._connection = connection
        except self._psycopg.Error:
            self.close()
            return None
        return self._connection is not None

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(self._psycopg.Error):
                self._connection.close()
            self._connection = None
