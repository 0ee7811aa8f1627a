"""Who writes a catalogue's database: one Windlass alone, or several that tell each other. Never both.

A Windlass that takes itself for the only writer denies what another has added. So whoever is alone holds a
lock that no other may hold beside it, and those who tell each other hold it together: for SQLite on a file
beside the database, for PostgreSQL in a session of its own (an advisory lock; both end with their holder).
Other databases have no such lock. Whoever looks whether nobody else holds it takes it alone for a moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString, Protocol

import structlog
from sqlalchemy import make_url

from windlass.errors import StartError, StoreUnavailable
from windlass.guard.guard import Alone, Peers

if TYPE_CHECKING:
    import psycopg

log = structlog.get_logger("windlass.catalogue")

CHECK = 1.0
"""Seconds between two looks at whether the lock is still there."""
PATIENCE = 10.0
"""Seconds that a start waits for one who only looks whether he is alone, or who is gone and whose session
PostgreSQL ends some time later."""
_UNHEARD = (
    "Another Windlass writes the products in this database, and would not hear of what this one adds. Give"
    " all of them the same --redis, or stop the other one."
)


class Lock(Protocol):
    """A lock on a database, shared or not. Every method blocks; any thread."""

    taken: int
    """How many times it was taken: between two of them it may have been another's."""

    def held(self) -> bool | None:
        """Take it where it is not held. False: somebody else has it; None: nobody can tell now."""

    def alone(self, then: Callable[[], None] = lambda: None) -> bool:
        """Whether nobody else has it, shared or not. `then` runs and the lock is taken before anybody can."""

    def close(self) -> None:
        """Let it go."""


def take(lock: Lock | None) -> None:
    """Take a lock. Raises StartError where another writes who would not hear of us."""
    deadline = time.monotonic() + PATIENCE
    while lock is not None and lock.held() is False:
        if time.monotonic() > deadline:
            lock.close()
            raise StartError(_UNHEARD)
        time.sleep(0.02)


class Held:
    """The guard's peers, as long as a lock is held: this process writes alone, or with those who share it."""

    def __init__(self, lock: Lock, regained: Callable[[], None], peers: Peers | None = None) -> None:
        """`regained` is called when the lock may have been another's for a while and is ours again: who knows
        what was written meanwhile. It may raise. Raises StartError where another writes."""
        take(lock)
        self._lock, self._taken = lock, lock.taken
        self._regained = regained
        self._peers = peers or Alone()
        self.held = True
        """False while another writes, or what he wrote is unknown."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="windlass-catalogue-lock", daemon=True)
        self._thread.start()

    def current(self) -> bool:
        return self.held and self._peers.current()

    async def begin(self, keys: Collection[str]) -> object:
        if not self.held:
            raise StoreUnavailable(_UNHEARD, retry_after=1)
        return await self._peers.begin(keys)

    async def done(self, begun: object) -> None:
        await self._peers.done(begun)

    async def end(self, begun: object, *, sure: bool) -> None:
        await self._peers.end(begun, sure=sure)

    def check(self) -> None:
        """Look whether the lock is still ours. A database that is away lets nobody else write either."""
        held = self._lock.held()
        if held is False and self.held:
            self.held = False
            log.error(
                "catalogue_written_by_another",
                message="Another Windlass writes the products: every look-up asks the database now.",
            )
        elif held and not (self.held and self._lock.taken == self._taken):
            taken, self.held = self._lock.taken, False
            self._regained()
            self._taken, self.held = taken, True
            log.info("catalogue_lock_regained", message="The lock on the products is this Windlass's again.")

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


def lock_of(url: str, table: str, *, shared: bool) -> Lock | None:
    """The lock of whoever writes `table` at `url`; `shared` with others who hold it so. Raises StartError.

    None where that database has none.
    """
    where = make_url(url)
    if where.drivername.startswith("postgres"):
        plain = where.set(drivername="postgresql").render_as_string(hide_password=False)
        return _Session(plain, table, shared)
    if where.drivername.startswith("sqlite") and where.database:
        return _File(Path(where.database), shared)
    return None


class _File:
    """A lock of the kernel on a file beside the database."""

    def __init__(self, database: Path, shared: bool) -> None:
        self.taken = 0
        self._how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._has = False
        self._mutex = threading.Lock()
        path = database.with_name(f"{database.name}.writers")
        try:
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"{path} cannot be opened: {error.strerror}.") from error

    def held(self) -> bool:
        with self._mutex:
            return self._take()

    def alone(self, then: Callable[[], None] = lambda: None) -> bool:
        with self._mutex:
            alone = self._lock(fcntl.LOCK_EX)
            try:
                if alone:
                    then()
            finally:
                self._take()  # another lock lets go of the one before, even where it is not given
            return alone

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self) -> bool:
        had, self._has = self._has, self._lock(self._how)
        self.taken += self._has and not had
        return self._has

    def _lock(self, how: int) -> bool:
        if self._file is None:
            return False
        try:
            fcntl.flock(self._file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class _Session:
    """An advisory lock of PostgreSQL, held as long as its session lives."""

    def __init__(self, url: str, table: str, shared: bool) -> None:
        import psycopg  # half of a start with SQLite, which does without

        self._psycopg = psycopg
        self.taken = 0
        self._url = url
        self._number = int.from_bytes(sha256(f"windlass {table}".encode()).digest()[:8], "big", signed=True)
        self._how = "_shared" if shared else ""
        self._has = False
        self._mutex = threading.Lock()
        self._connection: psycopg.Connection | None = None

    def held(self) -> bool | None:
        with self._mutex:
            try:
                return self._take(self._connected())
            except self._psycopg.Error:
                self.close()
                return None

    def alone(self, then: Callable[[], None] = lambda: None) -> bool:
        with self._mutex:
            try:
                connection = self._connected()
                if not self._ask(connection, "pg_try_advisory_lock"):
                    return False
                try:
                    then()
                    self._take(connection)
                finally:
                    self._ask(connection, "pg_advisory_unlock")
            except self._psycopg.Error:
                self.close()
                return False
            return True

    def close(self) -> None:
        self._has = False
        if self._connection is not None:
            with contextlib.suppress(self._psycopg.Error):
                self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            self._connection = self._psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, keepalives_idle=5, tcp_user_timeout=5000
            )
        return self._connection

    def _take(self, connection: psycopg.Connection) -> bool:
        if self._has:
            connection.execute("SELECT 1")
        elif self._ask(connection, f"pg_try_advisory_lock{self._how}"):
            self._has = True
            self.taken += 1
        return self._has

    def _ask(self, connection: psycopg.Connection, function: LiteralString) -> bool:
        found = connection.execute(f"SELECT {function}(%s)", (self._number,)).fetchone()
        return found is not None and bool(found[0])
