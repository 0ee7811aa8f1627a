"""PostgreSQL that falls silent: whoever asked is told in time, and the next one is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from tests.contract.tables.conftest import Program
from tests.harness import until
from tests.postgresql import PostgreSQL
from windlass.database import Database
from windlass.errors import StoreUnavailable

run = asyncio.run
PATIENCE = 1.0


def one(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 1")).scalar_one())


def served(database: Database) -> bool:
    """Whether both a read and a write succeed; on a busy machine they may take longer than we wait."""
    try:
        return run(database.read(one)) == run(database.write(one)) == 1
    except StoreUnavailable:
        return False


@pytest.fixture
def url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url, lambda _: None, owner="test", patience=PATIENCE)
    yield opened
    opened.close()


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes under SIGSTOP, which go on in the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def stopping(stopped: list[int]) -> Any:
    """A step whose server process is stopped in the middle of it."""

    def step(connection: Connection) -> int:
        pid = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        stopped.append(pid)
        os.kill(pid, signal.SIGSTOP)
        return one(connection)

    return step


@pytest.mark.timeout(60)
def test_a_server_process_that_is_stopped_is_away(database: Database, stopped: list[int]) -> None:
    """Planted defect: waiting for ever: TCP's keep-alives are answered by the kernel."""
    with pytest.raises(StoreUnavailable) as told:
        run(database.read(stopping(stopped)))
    assert told.value.retry_after
    until(lambda: served(database), 30)
    with pytest.raises(StoreUnavailable):
        run(database.write(stopping(stopped)))
    until(lambda: served(database), 30)


@pytest.mark.timeout(60)
def test_connections_that_died_at_rest_are_replaced(database: Database, stopped: list[int]) -> None:
    """Planted defect: a ping without an end."""
    for pid in database.look(
        lambda c: list(
            c.execute(text("SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()")).scalars()
        )
    ):
        stopped.append(pid)
        os.kill(pid, signal.SIGSTOP)
    until(lambda: served(database), 30)


@pytest.mark.timeout(60)
def test_a_server_that_is_stopped_as_a_whole(stopped: list[int]) -> None:
    """It returns by itself.

    Planted defects: no connect_timeout: the kernel accepts for who is stopped. Whoever is in the queue has
    all his patience again when it is his turn.
    """
    server = PostgreSQL()
    try:
        database = Database(server.database(), lambda _: None, owner="test", patience=PATIENCE)
        until(lambda: served(database), 30)
        pids = server.pids()
        stopped.extend(pids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

        async def many() -> list[Any]:
            asked = [database.read(one) for _ in range(80)] + [database.write(one) for _ in range(80)]
            return await asyncio.gather(*asked, return_exceptions=True)

        assert {type(each) for each in run(many())} == {StoreUnavailable}
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        until(lambda: served(database), 30)
        database.close()
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        server.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["lock", "query"])
def test_what_takes_too_long_is_ended_by_the_server(database: Database, url: str, kind: str) -> None:
    """Planted defect: no lock_timeout and no statement_timeout: one who holds a row holds all writers."""
    program = Program(url)
    program("CREATE TABLE t (a INTEGER)")
    program("INSERT INTO t VALUES (1)")
    with program.engine.connect() as holder:
        holder.exec_driver_sql("SELECT * FROM t FOR UPDATE")
        sql = "UPDATE t SET a = 2" if kind == "lock" else "SELECT pg_sleep(1000)"
        with pytest.raises(
            StoreUnavailable, match=f"due to {'lock' if kind == 'lock' else 'statement'} timeout"
        ):
            run(database.write(lambda connection: connection.execute(text(sql)) and None))
        holder.rollback()
    until(lambda: served(database), 30)


def test_a_database_that_was_switched_to_reading_is_away(database: Database, url: str) -> None:
    """As after a failover. Planted defect: psycopg's InternalError is a 500."""
    program = Program(url)
    program("CREATE TABLE t (a INTEGER)")

    def write(connection: Connection) -> None:
        connection.execute(text("SET LOCAL transaction_read_only = on"))
        connection.execute(text("INSERT INTO t VALUES (1)"))

    with pytest.raises(StoreUnavailable, match="read-only"):
        run(database.write(write))
