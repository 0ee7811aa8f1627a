"""Databases of tables, as the judge has one: shared commits, and what is refused with a clear word."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count as count_up
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from tests.postgresql import PostgreSQL
from windlass.database import CONNECTIONS, Database, sqlite_url
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
from windlass.judge.tables import answers, migrate, problems

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


# --- several servers of one PostgreSQL --------------------------------------------------------------

SEATS = Table("seats", MetaData(), Column("number", Integer, primary_key=True), Column("who", Text))


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@pytest.fixture
def two(url: str) -> Iterator[tuple[Database, Database]]:
    """Two servers' own."""
    first = Database(url, SEATS.metadata.create_all, owner="test")
    second = Database(url, lambda _: None, owner="test")
    yield first, second
    first.close()
    second.close()


def take_next(who: str, met: threading.Barrier) -> Any:
    """Take the next seat; the first try of each meets the other's before anything is written."""
    tries = count_up(1)

    def step(connection: Connection) -> int:
        number = connection.execute(select(func.coalesce(func.max(SEATS.c.number), 0))).scalar_one() + 1
        if next(tries) == 1:
            met.wait(60)
        connection.execute(insert(SEATS).values(number=number, who=who))
        return int(number)

    return step


@pytest.mark.parametrize("verb", ["write", "beside"])
def test_two_servers_that_add_the_same_row_both_go_well(two: tuple[Database, Database], verb: str) -> None:
    """Planted defect: the second is told of a constraint of which nobody had spoken, a 500."""
    met = threading.Barrier(2)

    async def scenario() -> list[int]:
        steps = zip(two, (take_next(who, met) for who in "ab"), strict=True)
        if verb == "write":
            return [*await asyncio.gather(*(each.write(step) for each, step in steps))]
        return [*await asyncio.gather(*(asyncio.to_thread(each.beside, step) for each, step in steps))]

    assert sorted(run(scenario())) == [1, 2]


def test_two_servers_that_wait_for_each_other_both_go_well(two: tuple[Database, Database]) -> None:
    """PostgreSQL ends one of them. Planted defect: a 503 for whoever that is."""
    two[0].change(lambda c: c.execute(insert(SEATS), [{"number": 1}, {"number": 2}]).rowcount)
    met, tries = threading.Barrier(2), [count_up(1), count_up(1)]

    def take_both(who: int, order: list[int]) -> Any:
        def step(connection: Connection) -> None:
            first = next(tries[who]) == 1
            for number in order:
                connection.execute(update(SEATS).where(SEATS.c.number == number).values(who=str(who)))
                if first and number == order[0]:
                    met.wait(60)

        return step

    async def scenario() -> None:
        await asyncio.gather(two[0].write(take_both(0, [1, 2])), two[1].write(take_both(1, [2, 1])))

    run(scenario())
    assert len(set(two[0].look(lambda c: c.execute(select(SEATS.c.who)).scalars().all()))) == 1


def test_what_collides_for_ever_is_told(two: tuple[Database, Database]) -> None:
    tries = count_up(1)

    def step(connection: Connection) -> None:
        next(tries)
        connection.execute(insert(SEATS), [{"number": 1}, {"number": 1}])

    with pytest.raises(IntegrityError):
        run(two[0].write(step))
    assert next(tries) == 5


@pytest.mark.parametrize("many", [1, 5])
def test_a_commit_that_nobody_was_told_of_is_not_done_twice(
    two: tuple[Database, Database], many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks when the commit is done, and its answer does not come. Planted defect: each of
    several steps is run again, and a submission is there twice."""
    database, other = two
    do_commit, commits = database._writer.dialect.do_commit, count_up(1)
    running, held = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        running.set()
        held.wait(60)

    def sit_down(connection: Connection) -> None:
        number = connection.execute(select(func.count()).select_from(SEATS)).scalar_one()
        connection.execute(insert(SEATS).values(number=number))

    def cut_off(connection: Any) -> None:
        do_commit(connection)
        if next(commits) == 2:
            connection.dbapi_connection.close()
            raise psycopg.OperationalError("cut off")

    async def scenario() -> list[Any]:
        first = asyncio.ensure_future(database.write(hold))
        await asyncio.to_thread(running.wait, 60)
        others = [asyncio.ensure_future(database.write(sit_down)) for _ in range(many)]
        await asyncio.sleep(0)
        monkeypatch.setattr(database._writer.dialect, "do_commit", cut_off)
        held.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    assert [type(answer) for answer in run(scenario())] == [StoreUnavailable] * many
    assert other.look(lambda c: c.execute(select(func.count()).select_from(SEATS)).scalar()) == many
    run(database.write(sit_down))


def test_one_has_no_more_connections_than_it_says(url: str) -> None:
    """However many ask at once. Planted defect: SQLAlchemy's overflow, ten more."""
    database = Database(url, lambda _: None, owner="test")
    mine = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    free = threading.Barrier(CONNECTIONS)

    def step(connection: Connection) -> int:
        free.wait(60)  # all of them are in use at the same time
        return int(connection.execute(mine).scalar_one())

    with ThreadPoolExecutor(4 * CONNECTIONS) as threads:
        counts = [*threads.map(lambda _: database.look(step), range(4 * CONNECTIONS))]
    assert max(counts) == CONNECTIONS
    database.close()


# --- its end ----------------------------------------------------------------------------------------


def test_a_closed_one_refuses(database: Database) -> None:
    database.close()
    with pytest.raises(StoreClosed):
        run(database.write(add(1)))
    with pytest.raises(StoreClosed):
        run(database.read(count))


def test_one_of_a_newer_version_is_refused_unchanged(database: Database, tmp_path: Path) -> None:
    """Planted defect: opening it all the same."""
    newer = text("UPDATE windlass_judge_version SET version_num = '9999'")
    run(database.write(lambda c: c.execute(newer).rowcount))
    database.close()
    for _ in range(2):
        with pytest.raises(StoreTooNew, match="version 9999"):
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
