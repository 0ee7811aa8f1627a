"""A table that others write, too: what they write is heard, and until it surely is, the database says it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.contract.tables.conftest import Program
from tests.harness import until
from tests.postgresql import PostgreSQL
from windlass.catalogue.existing import Existing
from windlass.catalogue.follower import Follower
from windlass.catalogue.product import Product, product
from windlass.catalogue.products import Products
from windlass.catalogue.record import Position, Record
from windlass.catalogue.service import Catalogue
from windlass.errors import CatalogueReadOnly, PositionUnknown, StartError, StoreUnavailable
from windlass.guard.bloom import BloomFilter
from windlass.guard.guard import Guard

run = asyncio.run


def build(ids: Iterable[str]) -> BloomFilter:
    bloom = BloomFilter(b"s" * 16, expected_items=10_000)
    bloom.update(ids)
    return bloom


class Server:
    """A server's part of it, read by hand and on a clock of its own."""

    def __init__(self, url: str) -> None:
        self.now = 0.0
        self.rebuilt = 0
        self.products = Products(url, synchronous="off")
        assert self.products.record is not None
        self.record: Record = self.products.record
        position = self.record.position()
        self.guard: Guard[Product] = Guard(build(self.products.ids()), self.products.get)
        self.follower = Follower(self.record, self.guard, self.rebuild, clock=lambda: self.now)
        self.guard.peers = self.follower
        self.follower._position = position

    def rebuild(self) -> Position:
        self.rebuilt += 1
        position = self.record.position()
        bloom = build(self.products.ids())
        for key in self.guard.swap(bloom):
            bloom.add(key)
        self.guard.forget()
        return position

    def get(self, key: str) -> tuple[bool, str]:
        """Whether it is there, and who said so."""
        answer = run(self.guard.get(key))
        return answer.value is not None, answer.source

    def read(self) -> None:
        self.follower.read()


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    made = Server(url)
    made.read()
    yield made
    made.products.close()


def insert(key: str) -> str:
    return f"INSERT INTO products VALUES ('{key}', 'n', '1')"


def test_a_key_of_another_program_is_found_once_it_is_heard(server: Server, program: Program) -> None:
    """Planted defect: what is heard is not put into the filter."""
    program(insert("a"))
    assert server.get("a") == (False, "bloom_filter")  # so much is promised: a second, and no more
    server.read()
    assert server.get("a") == (True, "database")
    assert server.get("a") == (True, "cache")


def test_past_the_lag_the_database_is_asked(server: Server, program: Program) -> None:
    """Planted defect: the lag is counted from the end of a read, or not at all."""
    program(insert("a"))
    server.now = 1.0
    assert server.follower.current()
    server.now = 1.001
    assert not server.follower.current()
    assert server.get("a") == (True, "database")
    assert server.get("b") == (False, "database")
    server.read()
    assert server.follower.lag() == 0
    assert server.get("b")[1] in ("bloom_filter", "negative_cache")


def test_a_read_is_as_old_as_its_beginning(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: the time after the read counts: what was committed in the middle of it is denied."""
    entries = server.record.entries

    def slow(position: Position) -> object:
        found = entries(position)
        server.now += 5
        return found

    monkeypatch.setattr(server.record, "entries", slow)
    server.read()
    assert server.follower.lag() == 5
    assert not server.follower.current()


@pytest.mark.parametrize("what", ["DELETE FROM products", "UPDATE products SET name = 'new'"])
def test_what_is_remembered_of_a_written_key_is_dropped(server: Server, program: Program, what: str) -> None:
    """Planted defect: only the filter hears: a deleted product is answered from the cache for ever."""
    program(insert("a"))
    server.read()
    server.get("a")
    program(what)
    server.read()
    found = run(server.guard.get("a"))
    assert found.source == "database"
    assert found.value is None or found.value.name == "new"


def test_a_key_that_goes_and_comes_back(server: Server, program: Program) -> None:
    """Planted defect: what is known to be absent outlives the insert of another program."""
    program(insert("a"))
    server.read()
    program("DELETE FROM products")
    server.read()
    assert server.get("a") == (False, "database")
    assert server.get("a") == (False, "negative_cache")
    program(insert("a"))
    server.read()
    assert server.get("a")[0]
    program("DELETE FROM products")
    program(insert("a"))
    server.read()
    assert server.get("a")[0]


def test_what_is_heard_once_is_not_dropped_again(postgresql_url: str) -> None:
    """Planted defect: rows that come twice are heard twice: a cache that is emptied five times a second."""
    server, program = Server(postgresql_url), Program(postgresql_url)
    # Its snapshot shows less than is known, so its row comes again and again.
    with program.engine.connect().execution_options(isolation_level="REPEATABLE READ") as old:
        old.exec_driver_sql("SELECT 1")
        program(insert("a"))
        old.exec_driver_sql(insert("b"))
        old.commit()
    server.read()
    assert server.get("a")[1] == server.get("b")[1] == "database"
    server.read()
    assert server.get("a")[1] == server.get("b")[1] == "cache"
    server.products.close()


def test_an_emptied_table_is_forgotten(postgresql_url: str) -> None:
    server, program = Server(postgresql_url), Program(postgresql_url)
    program(insert("a"))
    server.read()
    server.get("a")
    program("TRUNCATE products")
    server.read()
    assert server.get("a") == (False, "database")
    server.products.close()


def test_two_servers_hear_each_other(server: Server, url: str) -> None:
    """Planted defect: one's own writes move the position past those of others."""
    other = Server(url)

    async def write(to: Server, key: str) -> None:
        await to.guard.write([key], lambda: to.products.insert(product(key, "n", 1)), adding=True)

    run(write(server, "a"))
    run(write(other, "b"))
    run(write(server, "c"))
    for each in (server, other):
        each.read()
        assert [each.get(key)[0] for key in "abc"] == [True] * 3
    other.products.close()


# --- gaps -----------------------------------------------------------------------------------------


def test_after_a_gap_all_of_it_is_heard(
    server: Server, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: the position moves although the read failed in the middle."""
    for number in range(3):
        program(insert(f"k{number}"))
    entries = server.record.entries

    def broken(position: Position) -> tuple[Iterator[object], Position]:
        found, now = entries(position)

        def some() -> Iterator[object]:
            yield next(iter(found))
            raise StoreUnavailable("gone")

        return some(), now

    monkeypatch.setattr(server.record, "entries", broken)
    with pytest.raises(StoreUnavailable):
        server.read()
    monkeypatch.undo()
    server.now = 60
    assert not server.follower.current()
    server.read()
    assert server.follower.current()
    assert all(server.get(f"k{number}")[0] for number in range(3))


def test_a_position_that_is_unknown_is_a_rebuild(server: Server, program: Program) -> None:
    """Planted defect: it follows on from where the record is now: what was missed stays denied."""
    program("DELETE FROM windlass_keys")
    program(insert("a"))
    with pytest.raises(PositionUnknown):
        server.read()
    server.read()
    assert server.rebuilt == 1
    assert server.get("a")[0]
    program(insert("b"))
    server.read()
    assert (server.rebuilt, server.get("b")[0]) == (1, True)


def test_nothing_is_answered_from_memory_during_a_rebuild(
    server: Server, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: it stays current: the new filter lacks what was written after its ids were read."""
    program("DELETE FROM windlass_keys")
    program(insert("a"))
    with pytest.raises(PositionUnknown):
        server.read()
    seen = []
    rebuild = server.rebuild

    def watched() -> Position:
        position = rebuild()
        program(insert("late"))
        seen.append(server.get("late"))
        return position

    monkeypatch.setattr(server.follower, "_rebuild", watched)
    server.read()
    assert seen == [(True, "database")]
    assert server.get("late")[0]


def test_a_rebuild_that_fails_is_tried_again(
    server: Server, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("DELETE FROM windlass_keys")
    program(insert("a"))
    rebuild: Callable[[], Position] = server.follower._rebuild

    def fails() -> Position:
        raise StoreUnavailable("gone")

    with pytest.raises(PositionUnknown):
        server.read()
    monkeypatch.setattr(server.follower, "_rebuild", fails)
    with pytest.raises(StoreUnavailable):
        server.read()
    assert not server.follower.current()
    monkeypatch.setattr(server.follower, "_rebuild", rebuild)
    server.read()
    assert server.follower.current()
    assert server.get("a")[0]


def test_a_trigger_that_is_gone_is_said_once(server: Server, program: Program) -> None:
    """Planted defect: a line five times a second, for as long as it is gone."""
    if program.engine.dialect.name == "postgresql":
        program("DROP TRIGGER windlass_record ON products")
    else:
        program("DROP TRIGGER windlass_record_update_products")
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(PositionUnknown) as refused:
                server.read()
            server.follower._fails(refused.value)
    assert [line["event"] for line in lines] == ["follower_rebuilds"]
    assert server.get("absent") == (False, "database")


# --- the thread -----------------------------------------------------------------------------------


@pytest.fixture
def catalogue(url: str, tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue.open(tmp_path, b"s" * 16, url=url, max_lag_seconds=60, synchronous="off")
    yield opened
    opened.close()
    assert "windlass-follower" not in [thread.name for thread in threading.enumerate()]


def test_a_catalogue_hears_of_others(catalogue: Catalogue, program: Program) -> None:
    """Planted defect: the thread is not started, or ends with the first error."""
    assert catalogue.follower is not None
    until(catalogue.follower.current, 30)
    program(insert("a"))
    until(lambda: run(catalogue.get("a")).value is not None, 30)
    program("DELETE FROM windlass_keys")
    program(insert("b"))
    until(lambda: run(catalogue.get("b")).value is not None, 30)
    program("DELETE FROM products")
    until(lambda: run(catalogue.get("a")).value is None, 30)
    run(catalogue.insert(product("own", "n", 1)))
    assert run(catalogue.get("own")).value is not None


def test_a_database_that_is_away_for_a_while(tmp_path: Path) -> None:
    """Planted defect: the thread gives up."""
    postgresql = PostgreSQL()
    try:
        url = postgresql.database()
        catalogue = Catalogue.open(tmp_path, b"s" * 16, url=url, max_lag_seconds=5)
        follower = catalogue.follower
        assert follower is not None
        until(follower.current, 30)
        postgresql.stop()
        until(lambda: not follower.current(), 30)
        with pytest.raises(StoreUnavailable):
            run(catalogue.get("absent"))
        postgresql.start()
        Program(url)(insert("a"))
        until(follower.current, 60)
        until(lambda: run(catalogue.get("a")).value is not None, 30)
        catalogue.close()
    finally:
        postgresql.close()


def test_without_a_record_there_is_nothing_to_follow(url: str, tmp_path: Path, program: Program) -> None:
    """Planted defect: it starts all the same, and denies what others write."""
    program("CREATE TABLE goods (id TEXT PRIMARY KEY, title TEXT, cost NUMERIC)")
    goods = Existing("goods", key="id", name="title", price="cost")
    with pytest.raises(StartError, match="products trigger"):
        Catalogue.open(tmp_path, b"s" * 16, url=url, table=goods, read_only=True, max_lag_seconds=1)


def test_a_reader_of_a_table_follows_the_trigger_that_its_owner_made(
    url: str, tmp_path: Path, program: Program
) -> None:
    program("CREATE TABLE goods (id TEXT PRIMARY KEY, title TEXT, cost NUMERIC)")
    goods = Existing("goods", key="id", name="title", price="cost", trigger=True)
    Products(url, table=goods).close()
    opened = Catalogue.open(tmp_path, b"s" * 16, url=url, table=goods, read_only=True, max_lag_seconds=60)
    program("INSERT INTO goods VALUES ('a', 'rope', 2)")
    until(lambda: run(opened.get("a")).value == product("a", "rope", 2), 30)
    with pytest.raises(CatalogueReadOnly):
        run(opened.insert(product("b", "n", 1)))
    assert "b" not in opened.guard.filter
    opened.close()
