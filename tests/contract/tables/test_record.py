"""The record of keys: whoever writes, in whatever order transactions end, no key is missed."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.contract.tables.conftest import Program
from windlass.catalogue import record as record_module
from windlass.catalogue.product import Product, product
from windlass.catalogue.products import Products
from windlass.catalogue.record import Position, Record
from windlass.errors import PositionUnknown
from windlass.guard.stored import MAX_MARK

run = asyncio.run


def some(*ids: str) -> list[Product]:
    return [product(each, "n", 1) for each in ids]


@pytest.fixture
def products(url: str) -> Iterator[Products]:
    opened = Products(url, synchronous="off")
    yield opened
    opened.close()


@pytest.fixture
def record(products: Products) -> Record:
    assert products.record is not None
    return products.record


@pytest.fixture
def crowd(postgresql_url: str) -> Iterator[Products]:
    """PostgreSQL, where writers are many."""
    opened = Products(postgresql_url)
    yield opened
    opened.close()


def writes_of(products: Products) -> tuple[Record, Program]:
    assert products.record is not None
    return products.record, Program(products._database._writer.url.render_as_string(False))


def since(record: Record, position: Position) -> list[str]:
    return sorted(record.since(position)[0])


def add(connection: Connection, key: str) -> None:
    connection.exec_driver_sql(f"INSERT INTO products VALUES ('{key}', 'n', '1')")


# --- what is recorded -----------------------------------------------------------------------------


def test_whoever_writes_is_recorded(products: Products, record: Record, program: Program) -> None:
    """Planted defect: no trigger for UPDATE: the old key of a row that changed it is remembered for ever."""
    start = record.position()
    run(products.put(some("a", "b")))
    program("INSERT INTO products VALUES ('c:d', 'n', '1'), ('é', 'n', '1')")
    keys, now = record.since(start)
    assert sorted(keys) == ["a", "b", "c:d", "é"]
    program("UPDATE products SET name = 'other' WHERE product_id = 'a'")
    keys, now = record.since(now)
    assert list(keys) == ["a"]
    program("UPDATE products SET product_id = 'z' WHERE product_id = 'a'")
    keys, now = record.since(now)
    assert sorted(keys) == ["a", "z"]
    program("DELETE FROM products WHERE product_id IN ('z', 'b')")
    assert since(record, now) == ["b", "z"]
    assert set(since(record, start)) == {"a", "b", "c:d", "é", "z"}


def test_what_is_rolled_back_is_not(record: Record, program: Program) -> None:
    start = record.position()
    with program.engine.connect() as connection:
        add(connection, "never")
        connection.rollback()
    assert since(record, start) == []


def test_it_is_read_page_by_page(products: Products, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a page that begins with the last row of the one before, or a row behind it."""
    monkeypatch.setattr(record_module, "_PAGE", 7)
    start = record.position()
    wanted = [f"p{number:03d}" for number in range(50)]
    for begin in range(0, 50, 5):
        run(products.put(some(*wanted[begin : begin + 5])))
    assert since(record, start) == wanted


def test_a_position_has_room_in_a_filters_mark(record: Record) -> None:
    position = record.position()
    assert len(position.pack()) <= MAX_MARK
    assert Position.unpack(position.pack()) == position


def test_what_a_position_has_seen_does_not_come_again(products: Products, record: Record) -> None:
    """Planted defect: a position does not know its own transaction, whose thousand rows come each time."""
    run(products.put(some(*(f"p{number}" for number in range(1000)))))
    assert since(record, record.position()) == []


def test_it_survives_a_restart(products: Products, record: Record, program: Program, url: str) -> None:
    """Planted defect: `migrate` begins the record anew at each start."""
    start = record.position()
    products.close()
    program("INSERT INTO products VALUES ('meanwhile', 'n', '1')")
    again = Products(url)
    assert again.record is not None
    assert since(again.record, start) == ["meanwhile"]
    again.close()


def test_a_table_that_is_emptied_says_so(crowd: Products) -> None:
    """Planted defect: no trigger for TRUNCATE: what is remembered of its rows stays."""
    record, program = writes_of(crowd)
    start = record.position()
    program("TRUNCATE products")
    assert [entry.key for entry in record.entries(start)[0]] == [None]


def test_replicated_writes_are_recorded(crowd: Products) -> None:
    """Planted defect: a trigger that is not ENABLE ALWAYS does not see what logical replication brings."""
    record, program = writes_of(crowd)
    start = record.position()
    with program.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        add(connection, "replicated")
    assert since(record, start) == ["replicated"]


# --- the order of commits -------------------------------------------------------------------------


def test_the_one_that_began_first_may_commit_last(crowd: Products) -> None:
    """Planted defect: a position is a row's number, and what has a lower one has been seen."""
    record, program = writes_of(crowd)
    start = record.position()
    with program.engine.connect() as early:
        add(early, "early")
        program("INSERT INTO products VALUES ('late', 'n', 1)")
        keys, between = record.since(start)
        assert list(keys) == ["late"]
        early.commit()
    assert since(record, between) == ["early"]
    assert since(record, start) == ["early", "late"]


def test_an_old_snapshot_moves_no_position_back(crowd: Products) -> None:
    """Planted defect: the newest row is the position whatever its writer saw; all comes again each time."""
    record, program = writes_of(crowd)
    with program.engine.connect().execution_options(isolation_level="REPEATABLE READ") as old:
        old.exec_driver_sql("SELECT 1")
        for number in range(5):
            program(f"INSERT INTO products VALUES ('p{number}', 'n', 1)")
        position = record.position()
        add(old, "old")
        old.commit()
    keys, now = record.since(position)
    assert list(keys) == ["old"]
    assert set(since(record, now)) <= {"old"}


@pytest.mark.parametrize("seed", range(3))
def test_no_key_is_missed_however_transactions_interleave(crowd: Products, seed: int) -> None:
    """Planted defects: position by number; `running` forgotten; a trim that leaves half of what is needed."""
    record, program = writes_of(crowd)
    random_ = random.Random(seed)
    positions = [record.position()]
    heard: list[set[str]] = [set()]
    committed: set[str] = set()
    known_at = [set(committed)]
    open_: list[tuple[Connection, list[str]]] = []
    for number in range(120):
        act = random_.random()
        if act < 0.35 and len(open_) < 6:
            open_.append((program.engine.connect(), []))
        elif act < 0.7 and open_:
            connection, keys = random_.choice(open_)
            add(connection, f"k{number}")
            keys.append(f"k{number}")
        elif act < 0.85 and open_:
            connection, keys = open_.pop(random_.randrange(len(open_)))
            if random_.random() < 0.8:
                connection.commit()
                committed.update(keys)
            connection.close()
        else:
            which = random_.randrange(len(positions))
            try:
                found, now = record.since(positions[which])
                known = known_at[which] | heard[which] | set(found)
            except PositionUnknown:
                continue
            assert known >= committed, f"missed {committed - known}"
            positions.append(now)
            known_at.append(set(committed))
            heard.append(set())
            if random_.random() < 0.2:
                record.trim(now, keep=random_.choice([0, 5]))
    for connection, _ in open_:
        connection.close()


# --- positions that are not of this history -------------------------------------------------------


@pytest.mark.parametrize("packed", [b"", b"{}", b"[1]", b'["1", "x"]', b'[1, "x"]', b"\xff", b"[" * 5000])
def test_what_is_no_position_is_refused(packed: bytes) -> None:
    with pytest.raises(PositionUnknown):
        Position.unpack(packed)


def test_one_of_another_database_is_unknown(record: Record) -> None:
    """Planted defect: a position by number alone."""
    with pytest.raises(PositionUnknown):
        record.since(Position(1, "0" * 32))
    with pytest.raises(PositionUnknown):
        record.trim(Position(1, "0" * 32))


def test_a_record_that_was_not_kept_begins_anew(products: Products, record: Record, program: Program) -> None:
    """Planted defect: a trigger that was away is made again over the old record, which lacks a key."""
    start = record.position()
    if program.engine.dialect.name == "postgresql":
        program("ALTER TABLE products DISABLE TRIGGER windlass_record")
    else:
        program("DROP TRIGGER windlass_record_insert_products")
    with pytest.raises(PositionUnknown):
        record.position()
    with pytest.raises(PositionUnknown):
        record.since(start)
    program("INSERT INTO products VALUES ('unseen', 'n', '1')")
    again = Products(products._database._writer.url.render_as_string(False))
    assert again.record is not None
    with pytest.raises(PositionUnknown):
        again.record.since(start)
    assert since(again.record, again.record.position()) == []
    again.close()


def test_an_older_back_up_does_not_know_what_came_after_it(tmp_path: Path) -> None:
    """Planted defect: a nonce that is a function of the number."""
    file = tmp_path / "shop.db"
    url = f"sqlite:///{file}"

    def after(*ids: str) -> Position:
        opened = Products(url)
        run(opened.put(some(*ids)))
        assert opened.record is not None
        position = opened.record.position()
        opened.close()
        return position

    before = after("a")
    shutil.copy(file, tmp_path / "copy")
    lost = after("b")
    shutil.copy(tmp_path / "copy", file)
    after("c", "d")
    opened = Products(url)
    assert opened.record is not None
    assert since(opened.record, before) == ["c", "d"]
    with pytest.raises(PositionUnknown):
        opened.record.since(lost)
    opened.close()


def test_a_record_of_another_cluster_is_not_believed(crowd: Products) -> None:
    """As pg_restore brings it. Planted defect: its numbers are compared with those of this cluster."""
    record, program = writes_of(crowd)
    run(crowd.put(some("a")))
    position = record.position()
    program("UPDATE windlass_keys SET cluster = 1, xid = '999999999', seen = '999999999:999999999:'")
    with pytest.raises(PositionUnknown):
        record.since(position)
    with pytest.raises(PositionUnknown):
        record.position()
    again = Products(program.engine.url.render_as_string(False))
    assert again.record is not None
    now = again.record.position()
    program("INSERT INTO products VALUES ('b', 'n', 1)")
    assert since(again.record, now) == ["b"]
    again.close()


# --- trimming -------------------------------------------------------------------------------------


def test_a_trim_keeps_the_position_and_ends_older_ones(
    products: Products, record: Record, program: Program
) -> None:
    """Planted defect: the position's own row is trimmed, too."""
    old = record.position()
    run(products.put(some("a", "b")))
    position = record.position()
    run(products.put(some("c")))
    record.trim(position, keep=0)
    assert since(record, position) == ["c"]
    with pytest.raises(PositionUnknown):
        record.since(old)
    record.trim(record.position(), keep=0)
    assert program("SELECT count(*) FROM windlass_keys") == [(1,)]


def test_a_trim_leaves_the_newest_rows(products: Products, record: Record, program: Program) -> None:
    """Planted defect: `keep` is not looked at: a follower a fifth of a second behind has to rebuild."""
    for number in range(20):
        run(products.put(some(f"p{number:02d}")))
    position = record.position()
    record.trim(position, keep=10)
    assert program("SELECT count(*) FROM windlass_keys") == [(10,)]
    assert since(record, position) == []


def test_a_trim_leaves_no_position_that_would_miss_a_row(crowd: Products) -> None:
    """Planted defects: what stays behind is still a position, which lacks `first`; `second` is trimmed."""
    record, program = writes_of(crowd)
    with program.engine.connect() as first, program.engine.connect() as second:
        add(first, "first")
        add(second, "second")
        program("INSERT INTO products VALUES ('a', 'n', 1)")
        without_both = record.position()
        first.commit()
        program("INSERT INTO products VALUES ('b', 'n', 1)")
        without_second = record.position()
        second.commit()
    record.trim(without_second, keep=0)
    assert since(record, without_second) == ["second"]
    with pytest.raises(PositionUnknown):
        record.since(without_both)


def test_a_trim_in_the_middle_of_a_reading_is_noticed(
    products: Products, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: an empty page is taken for the end."""
    monkeypatch.setattr(record_module, "_PAGE", 2)
    start = record.position()
    for each in "abcdef":
        run(products.put(some(each)))
    keys = iter(record.since(start)[0])
    next(keys)
    record.trim(record.position(), keep=0)
    with pytest.raises(PositionUnknown):
        list(keys)
