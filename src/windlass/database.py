"""A database of tables: SQLAlchemy on a few threads, and group commit.

Steps that write are functions of a connection. One thread runs them; those that arrive while a commit is
on its way share the next one, each behind a savepoint of its own, so that many small writes cost one fsync.
A step has to bear being run again: where the database refuses a commit that several share, each gets one of
its own; and one that ran into another server's (both add the same row, or each waits for the other) is run
again, and sees what that one did.

A database beyond the network may fall silent in the middle of a query. It has `patience` seconds for each
answer; then the connection is given up, whoever waits is told that the database is away, and the next one
connects anew. A file of SQLite that somebody takes away goes on to work for those who have it open, and all
that they write is lost; so it is looked for before each step.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

from windlass.errors import (
    StartError,
    StoreClosed,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
    WindlassError,
)

R = TypeVar("R")

Step = Callable[[Connection], R]

PATIENCE = 10.0
"""Seconds."""
_READERS = 4
CONNECTIONS = _READERS + 1
"""To PostgreSQL, at most, of each of these. All servers together may have its `max_connections`, 100."""
_AGAIN = 3
"""Times that a step is run again when it ran into another server's."""
_MOST = 100
"""Steps that share a commit at most."""
_COLLISIONS = {"23505", "40001", "40P01"}
"""SQLSTATEs of who ran into somebody: a row of that key is there now, a serialization failure, a deadlock."""
_AWAY = {"25006", "42501", "42P01", "42703"}
"""SQLSTATEs that say that what was there at the start is not: leave to write, a table, a column."""


class _Call(Generic[R]):
    """One step on its way, and what came of it."""

    def __init__(self, step: Step[R]) -> None:
        self._step = step
        self.began = time.monotonic()
        self.future: Future[R] = Future()
        self._result: R | None = None
        self._error: WindlassError | None = None

    def attempt(self, connection: Connection) -> None:
        """Run the step behind a savepoint. A WindlassError is its result; anything else ends the batch."""
        self._error = None
        savepoint = connection.begin_nested()
        try:
            self._result = self._step(connection)
        except WindlassError as error:
            savepoint.rollback()
            self._error = error
        else:
            savepoint.commit()
        # After any other error there may be no savepoint any more: SQLite undoes all when the disk is full.

    def settle(self) -> None:
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)  # type: ignore[arg-type]  # None only where R is


class Database:
    """The tables of one part of an installation. Every method may raise StoreUnavailable."""

    def __init__(
        self,
        url: str,
        migrate: Callable[[Connection], object],
        *,
        owner: str,
        synchronous: str = "full",
        patience: float = PATIENCE,
        read_only: bool = False,
        schema: str | None = None,
    ) -> None:
        """Open `url` and have `migrate` make or update its tables. Raises StartError; blocks.

        `owner` is the part that it is called by when something is wrong with it. `synchronous` is SQLite's,
        `patience` is for all others. With `read_only` nothing in it can be changed, nor is it made. `schema`
        is where PostgreSQL has the tables whose metadata names none.
        """
        self._name = f"{owner}'s database"
        self._patience = float("inf") if url.startswith("sqlite") else patience
        try:
            self._writer, self._reader = _engines(url, synchronous, patience, schema, read_only=read_only)
        except (SQLAlchemyError, ImportError, ValueError) as error:  # no URL, or of no driver that is here
            raise self._cannot_open(url, error) from error
        self._writing = ThreadPoolExecutor(1, f"windlass-{owner}-writer")
        self._reading = ThreadPoolExecutor(_READERS, f"windlass-{owner}-reader")
        self._calls: deque[_Call[Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._file: tuple[str, tuple[int, int]] | None = None
        try:
            with self._writer.begin() as connection:
                migrate(connection)
            if self.dialect == "sqlite" and Path(path := self._writer.url.database or "").is_file():
                self._file = path, _identity(path)
        except SQLAlchemyError as error:
            self.close()
            raise self._cannot_open(url, error) from error
        except BaseException:
            self.close()
            raise

    @property
    def dialect(self) -> str:
        """The database's name in SQLAlchemy: sqlite, postgresql, …"""
        return self._reader.dialect.name

    async def write(self, step: Step[R]) -> R:
        """Run a step that writes; it is on disk when this returns. What the step raises, nothing came of."""
        return await asyncio.wrap_future(self._begin(step))

    def change(self, step: Step[R]) -> R:
        """`write` for those who may block."""
        return self._begin(step).result()

    async def read(self, step: Step[R]) -> R:
        """Run a step that only reads, beside the writer."""
        if self._closed:
            raise StoreClosed
        began = time.monotonic()

        def look() -> R:
            self._be_patient(began)
            return self.look(step)

        return await asyncio.get_running_loop().run_in_executor(self._reading, look)

    def look(self, step: Step[R]) -> R:
        """`read` for those who may block."""
        self._be_there()
        try:
            with self._reader.begin() as connection:
                return step(connection)
        except SQLAlchemyError as error:
            raise self._told(error) from error

    def beside(self, step: Step[R]) -> R:
        """Run a step that writes in a transaction of its own, beside the writer, for those who may block.

        For what is long, in databases that let several write: SQLite does not.
        """
        if self._closed:
            raise StoreClosed
        for left in range(_AGAIN, -1, -1):
            try:
                with self._writer.begin() as connection:
                    return step(connection)
            except SQLAlchemyError as error:
                if not (left and _collided(error)):
                    raise self._told(error) from error
        raise AssertionError

    def close(self) -> None:
        """Finish what is under way, then refuse everything. Blocks."""
        with self._lock:
            self._closed = True
        self._writing.shutdown()
        self._reading.shutdown()
        if self._reader is not self._writer:
            self._reader.dispose()  # before the writer, whose connection is the one that tidies SQLite's log
        self._writer.dispose()

    def _begin(self, step: Step[R]) -> Future[R]:
        call = _Call(step)
        with self._lock:
            if self._closed:
                raise StoreClosed
            self._calls.append(call)
            self._writing.submit(self._drain)
        return call.future

    def _drain(self) -> None:
        with self._lock:
            taken = [self._calls.popleft() for _ in range(min(len(self._calls), _MOST))]
        calls = [call for call in taken if call.future.set_running_or_notify_cancel()]
        if calls:
            self._commit(calls)

    def _be_patient(self, began: float) -> None:
        """Refuse what has waited so long for its turn that whoever asked should know."""
        if time.monotonic() - began > self._patience:
            raise StoreUnavailable(f"The {self._name} does not keep up, or is away.", retry_after=1)

    def _be_there(self) -> None:
        """Refuse what would go into a file that nobody finds again."""
        if self._file is None:
            return
        path, identity = self._file
        try:
            if _identity(path) == identity:
                return
        except OSError:
            pass
        raise StoreUnavailable(
            f"The {self._name} is gone, or is another: {path}. Put it back, or start Windlass anew.",
            retry_after=10,
        )

    def _commit(self, calls: list[_Call[Any]], again: int = _AGAIN) -> None:
        for_all = ended = False
        """Whether what goes wrong would go wrong for each alone: a lock is waited for once."""
        try:
            for call in calls:
                self._be_patient(call.began)
            for_all = True
            self._be_there()
            with self._writer.begin() as connection:
                for_all = False
                for call in calls:
                    call.attempt(connection)
                ended = True
        except Exception as error:  # noqa: BLE001 - it is for whoever waits, never the writer's end
            # A connection that broke in the commit tells nobody whether it was one: nothing is done twice.
            for_all |= ended and isinstance(error, DBAPIError) and error.connection_invalidated
            if len(calls) > 1 and not for_all:
                for call in calls:
                    self._commit([call])
            elif again and not for_all and _collided(error):
                self._commit(calls, again - 1)
            else:
                for call in calls:
                    call.future.set_exception(self._told(error))
            return
        for call in calls:
            call.settle()

    def _told(self, error: Exception) -> Exception:
        """What whoever asked is told of an error: whether the database cannot, or we have asked nonsense."""
        if isinstance(error, NoConnection):
            return StoreUnavailable(f"The {self._name} does not keep up, or is away.", retry_after=1)
        if not isinstance(error, DatabaseError):
            return error
        gone = getattr(error.orig, "sqlstate", None) in _AWAY
        if not (gone or isinstance(error, OperationalError) or type(error) is DatabaseError):
            return error
        reason = str(error.orig)
        if "disk is full" in reason or "No space left" in reason:
            return StoreFull(f"The disk of the {self._name} is full.", retry_after=10)
        return StoreUnavailable(f"The {self._name} cannot do this now: {reason}.", retry_after=1)

    def _cannot_open(self, url: str, error: Exception) -> StartError:
        name = url.rpartition("@")[2]  # without a password
        reason = str(getattr(error, "orig", None) or error)
        if "malformed" in reason or "not a database" in reason:
            return StoreDamaged(
                f"The {self._name} {name} is damaged: {reason}. Nothing was changed. Put back a back-up."
            )
        return StartError(f"The {self._name} {name} cannot be opened: {reason}.")


def sqlite_url(path: Path) -> str:
    """The database in a file."""
    return f"sqlite:///{path}"


def is_postgresql(url: str) -> bool:
    """Whether a URL, which may be nonsense, is one of PostgreSQL."""
    return url.partition(":")[0].partition("+")[0] in ("postgres", "postgresql")


def _collided(error: Exception) -> bool:
    """Whether a step ran into another server's, which is done now: it may go well when it is run again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _COLLISIONS


def _identity(path: str) -> tuple[int, int]:
    """What a file is, whatever it is called."""
    found = os.stat(path)  # noqa: PTH116 - before each step: a Path takes twice as long
    return found.st_dev, found.st_ino


def _engines(
    url: str, synchronous: str, patience: float, schema: str | None, *, read_only: bool
) -> tuple[Engine, Engine]:
    """An engine to write with and one to read with; one and the same where the database lets both be."""
    where = make_url(url)
    if where.drivername in ("postgres", "postgresql"):
        where = where.set(drivername="postgresql+psycopg")
    if not where.drivername.startswith("sqlite"):
        engine = create_engine(
            where, pool_size=CONNECTIONS, max_overflow=0, pool_pre_ping=True, pool_timeout=patience
        )
        if where.drivername == "postgresql+psycopg":
            _be_patient(engine, patience, read_only=read_only)
        if schema is not None:
            engine = engine.execution_options(schema_translate_map={None: schema})
        return engine, engine
    if read_only:
        path = f"file:{quote(where.database or '')}?mode=ro"

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, uri=True, check_same_thread=False)

        reader = create_engine(url, pool_size=_READERS + 1, creator=connect)
        _prepare(reader, "BEGIN", ["busy_timeout = 5000", "query_only = ON"])
        return reader, reader
    writer = create_engine(url, pool_size=1, max_overflow=0)
    reader = create_engine(url, pool_size=_READERS, max_overflow=0)
    pragmas = ["busy_timeout = 5000", "journal_mode = WAL", f"synchronous = {synchronous}"]
    _prepare(writer, "BEGIN IMMEDIATE", pragmas)
    _prepare(reader, "BEGIN", [*pragmas, "query_only = ON"])
    return writer, reader


def _be_patient(engine: Engine, patience: float, *, read_only: bool) -> None:
    """Have PostgreSQL end what takes too long, and end a connection ourselves that does not answer at all.

    The latter is for a server process that is stopped, or a network that swallows packets: TCP's own
    keep-alives do not see the first, as the kernel answers them.
    """
    import psycopg  # here, as a start with SQLite does without

    class Patient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, R], *arguments: Any, **options: Any) -> R:
            return super().wait(self._limited(gen), *arguments, **options)

        def _limited(self, gen: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
            """`gen`, which is told every tenth of a second that nothing has come."""
            deadline = time.monotonic() + 1.2 * patience  # first the server's own, which says why
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready:
                        deadline = time.monotonic() + 1.2 * patience
                    elif time.monotonic() > deadline:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"no answer for {1.2 * patience:g} s")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    limits = {
        "statement_timeout": patience,
        "lock_timeout": patience / 2,
        "idle_in_transaction_session_timeout": 6 * patience,  # when it is we who are stopped
    }
    settings = [f"SET {name} = {max(1, round(1000 * seconds))}" for name, seconds in limits.items()]
    if read_only:
        settings.append("SET default_transaction_read_only = on")

    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, arguments: Any, options: dict[str, Any]) -> Any:
        options.setdefault("connect_timeout", max(2, round(patience / 2)))
        connection = Patient.connect(*arguments, **options)
        connection.execute("; ".join(settings))  # by hand, as poolers take none at the start
        connection.commit()
        return connection


def _prepare(engine: Engine, begin: str, pragmas: list[str]) -> None:
    """Have SQLite begin transactions when we say so, and wait for the disk."""

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # Python's own begins too late for a read to be part of it
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
