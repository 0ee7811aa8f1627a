"""Databases of tables, as the judge has one: shared commits, and what is refused with a clear word."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, event, func, insert, select, text

from windlass.database import Database, sqlite_url
from windlass.errors import (
    Invalid,
    StartError,
    StoreClosed,
    StoreDamaged,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
)
from windlass.judge.service import DATABASE
from windlass.judge.tables import VERSION, answers, migrate, problems

T = TypeVar("T")


def opened_in(folder: Path, **options: Any) -> Database:
    return Database(sqlite_url(folder / DATABASE), migrate, owner="judge", **options)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = opened_in(tmp_path, synchronous="off")
    yield opened
    opened.close()


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


def add(number: int) -> Any:
    def step(connection: Connection) -> int:
        connection.execute(insert(problems).values(id=number, version=1, created_at=0))
        return number

    return step


def count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(problems)).scalar_one())


def test_what_is_written_is_read_and_survives(database: Database, tmp_path: Path) -> None:
    assert run(database.write(add(1))) == 1
    assert run(database.read(count)) == 1
    database.close()
    again = opened_in(tmp_path)
    assert run(again.read(count)) == 1
    again.close()


def test_steps_that_arrive_together_share_a_commit(database: Database) -> None:
    """Planted defect: a commit a step; a hundred submissions would wait for a hundred fsyncs."""
    commits = []
    event.listen(database._writer, "commit", lambda _: commits.append(1))
    held = threading.Event()

    async def scenario() -> None:
        first = asyncio.ensure_future(database.write(lambda _: held.wait(60)))
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(database.write(add(n))) for n in range(50)]
        await asyncio.sleep(0)
        held.set()
        assert await asyncio.gather(*others) == list(range(50))
        await first

    run(scenario())
    assert len(commits) <= 3
    assert run(database.read(count)) == 50


def test_a_step_that_fails_leaves_the_others_of_its_commit(database: Database) -> None:
    """Planted defect: no savepoint, so that what the refused step wrote is committed with the others."""
    held = threading.Event()

    def refused(connection: Connection) -> None:
        add(100)(connection)
        raise Invalid("no")

    async def scenario() -> list[Any]:
        first = asyncio.ensure_future(database.write(lambda _: held.wait(60)))
        await asyncio.sleep(0)
        steps: list[Any] = [add(1), refused, add(2), add(1), add(3)]  # the fourth breaks a constraint
        others = [asyncio.ensure_future(database.write(step)) for step in steps]
        await asyncio.sleep(0)
        held.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    one, two, three, four, five = run(scenario())
    assert (one, three, five) == (1, 2, 3)
    assert isinstance(two, Invalid)
    assert type(four).__name__ == "IntegrityError"
    assert run(database.read(count)) == 3


def test_a_read_cannot_write_and_does_not_wait_for_the_writer(database: Database) -> None:
    """Planted defect: reads through the writer's connection."""
    held = threading.Event()

    async def scenario() -> None:
        first = asyncio.ensure_future(database.write(lambda _: held.wait(60)))
        await asyncio.sleep(0)
        assert await database.read(count) == 0
        held.set()
        await first
        with pytest.raises(Exception, match="readonly"):
            await database.read(add(1))

    run(scenario())


def test_a_read_sees_what_is_committed_alone(database: Database) -> None:
    written, look = threading.Event(), threading.Event()

    def step(connection: Connection) -> None:
        add(1)(connection)
        written.set()
        look.wait(60)

    async def scenario() -> None:
        writing = asyncio.ensure_future(database.write(step))
        await asyncio.to_thread(written.wait, 60)
        assert await database.read(count) == 0
        look.set()
        await writing
        assert await database.read(count) == 1

    run(scenario())


def test_a_full_disk_is_said_and_heals(database: Database) -> None:
    """Planted defect: taking it for a fault of ours, a 500."""

    def limit(pages: int) -> Any:
        return lambda connection: connection.execute(text(f"PRAGMA max_page_count = {pages}")).scalar()

    def much(connection: Connection) -> None:
        connection.execute(
            insert(answers),
            [
                {"key": b"%d" % n * 9, "fingerprint": b"x" * 900, "submission": 1, "until": 1}
                for n in range(999)
            ],
        )

    run(database.write(limit(1)))  # as many as it has
    with pytest.raises(StoreFull):
        run(database.write(much))
    run(database.write(limit(2**30)))
    run(database.write(much))


def test_a_lock_of_somebody_else_is_waited_for_once(database: Database, tmp_path: Path) -> None:
    """Planted defect: where a commit cannot begin, each of its steps is tried alone, and waits again."""
    heard: list[str] = []
    event.listen(database._writer, "before_cursor_execute", lambda *told: heard.append(told[2]))
    running, held = threading.Event(), threading.Event()
    lock = sqlite3.connect(tmp_path / DATABASE, isolation_level=None, check_same_thread=False)

    def hold(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        running.set()
        held.wait(60)

    async def scenario() -> list[Any]:
        first = asyncio.ensure_future(database.write(hold))
        await asyncio.to_thread(running.wait, 60)
        database._writing.submit(lock.execute, "BEGIN EXCLUSIVE")
        others = [asyncio.ensure_future(database.write(add(n))) for n in range(10)]
        await asyncio.sleep(0)
        held.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    with contextlib.closing(lock):
        answers = run(scenario())
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert heard.count("BEGIN IMMEDIATE") == 2
    assert run(database.read(count)) == 0
    assert run(database.write(add(1))) == 1


@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_is_gone_takes_no_writes(database: Database, tmp_path: Path, other: bool) -> None:
    """Planted defect: what is answered for goes into a file without a name, and is lost with the process."""
    file, away = tmp_path / DATABASE, tmp_path / "away"
    run(database.write(add(1)))
    file.rename(away)
    if other:
        file.write_bytes(b"")
    for step in (database.write(add(2)), database.read(count)):
        with pytest.raises(StoreUnavailable, match="Put it back"):
            run(step)
    away.rename(file)
    run(database.write(add(3)))
    assert run(database.read(count)) == 2


def test_a_closed_one_refuses(database: Database) -> None:
    database.close()
    with pytest.raises(StoreClosed):
        run(database.write(add(1)))
    with pytest.raises(StoreClosed):
        run(database.read(count))


def test_one_of_a_newer_version_is_refused_unchanged(database: Database, tmp_path: Path) -> None:
    """Planted defect: opening it all the same."""
    run(
        database.write(lambda c: c.execute(text(f"UPDATE judge_schema SET version = {VERSION + 1}")).rowcount)
    )
    database.close()
    for _ in range(2):
        with pytest.raises(StoreTooNew, match=f"version {VERSION + 1}"):
            opened_in(tmp_path)


def test_one_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(StoreDamaged, match=r"judge\.db"):
        opened_in(tmp_path)


def test_one_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be opened"):
        opened_in(tmp_path / "nowhere")


def test_answers_wait_for_the_disk(tmp_path: Path) -> None:
    """Planted defect: SQLite's own default in WAL mode builds, NORMAL, which a power cut undoes."""
    opened = opened_in(tmp_path)
    pragma = run(
        opened.write(
            lambda c: [c.execute(text(f"PRAGMA {p}")).scalar() for p in ("synchronous", "journal_mode")]
        )
    )
    assert pragma == [2, "wal"]
    opened.close()


def test_nothing_in_the_tables_is_sqlites_alone(tmp_path: Path) -> None:
    """Planted defect: a column type or default that PostgreSQL does not know."""
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    from windlass.judge.tables import metadata

    for table in metadata.sorted_tables:
        made = str(CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        assert "BLOB" not in made
        assert "AUTOINCREMENT" not in made
    with sqlite3.connect(tmp_path / "x.db") as other:
        assert other.execute("SELECT 1").fetchone() == (1,)
    other.close()
