"""A database of tables: SQLAlchemy on a few threads, and group commit.

Steps that write are functions of a connection. One thread runs them; those that arrive while a commit is
on its way share the next one, each behind a savepoint of its own, so that many small writes cost one fsync.
A step has to bear being run again: where the database refuses a commit that several share, each gets one of
its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

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

_READERS = 4
_MOST = 100
"""Steps that share a commit at most."""


class _Call(Generic[R]):
    """One step on its way, and what came of it."""

    def __init__(self, step: Step[R]) -> None:
        self._step = step
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
        self, url: str, migrate: Callable[[Connection], None], *, owner: str, synchronous: str = "full"
    ) -> None:
        """Open `url` and have `migrate` make or update its tables. Raises StartError; blocks.

        `owner` is the part that it is called by when something is wrong with it. `synchronous` is SQLite's.
        """
        self._name = f"{owner}'s database"
        try:
            self._writer, self._reader = _engines(url, synchronous)
        except (SQLAlchemyError, ImportError, ValueError) as error:  # no URL, or of no driver that is here
            raise self._cannot_open(url, error) from error
        self._writing = ThreadPoolExecutor(1, f"windlass-{owner}-writer")
        self._reading = ThreadPoolExecutor(_READERS, f"windlass-{owner}-reader")
        self._calls: deque[_Call[Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        try:
            with self._writer.begin() as connection:
                migrate(connection)
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
        return await asyncio.get_running_loop().run_in_executor(self._reading, self.look, step)

    def look(self, step: Step[R]) -> R:
        """`read` for those who may block."""
        try:
            with self._reader.begin() as connection:
                return step(connection)
        except SQLAlchemyError as error:
            raise self._told(error) from error

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

    def _commit(self, calls: list[_Call[Any]]) -> None:
        try:
            with self._writer.begin() as connection:
                for call in calls:
                    call.attempt(connection)
        except Exception as error:  # noqa: BLE001 - it is for whoever waits, never the writer's end
            if len(calls) > 1:
                for call in calls:
                    self._commit([call])
            else:
                calls[0].future.set_exception(self._told(error))
            return
        for call in calls:
            call.settle()

    def _told(self, error: Exception) -> Exception:
        """What whoever asked is told of an error: whether the database cannot, or we have asked nonsense."""
        if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
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


def _engines(url: str, synchronous: str) -> tuple[Engine, Engine]:
    """An engine to write with and one to read with; one and the same where the database lets both be."""
    where = make_url(url)
    if where.drivername in ("postgres", "postgresql"):
        where = where.set(drivername="postgresql+psycopg")
    if not where.drivername.startswith("sqlite"):
        # One that hangs is one that is away.
        patience = {"connect_timeout": 5} if where.drivername == "postgresql+psycopg" else {}
        engine = create_engine(where, pool_size=_READERS + 1, pool_pre_ping=True, connect_args=patience)
        return engine, engine
    writer = create_engine(url, pool_size=1, max_overflow=0)
    reader = create_engine(url, pool_size=_READERS, max_overflow=0)
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        _prepare(engine, begin, synchronous, read_only=engine is reader)
    return writer, reader


def _prepare(engine: Engine, begin: str, synchronous: str, *, read_only: bool) -> None:
    """Have SQLite begin transactions when we say so, and wait for the disk."""

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # Python's own begins too late for a read to be part of it
        pragmas = ["busy_timeout = 5000", "journal_mode = WAL", f"synchronous = {synchronous}"]
        if read_only:
            pragmas.append("query_only = ON")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
