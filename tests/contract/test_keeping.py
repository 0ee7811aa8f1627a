"""A filter that is read again at the start: with all that there is, or not at all."""

from __future__ import annotations

import errno
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.contract.keeping import ITEMS, KEY, SECRET, House, lost, missing, numbered, run, some
from tests.harness import until
from tests.postgresql import PostgreSQL
from tests.redis_server import RedisServer
from windlass.catalogue.keeping import Keeper
from windlass.catalogue.products import Products
from windlass.catalogue.service import DATABASE, Catalogue
from windlass.database import sqlite_url
from windlass.errors import StoreUnavailable
from windlass.guard.bloom import BloomFilter
from windlass.guard.stored import SECTOR

Events = list[Any]


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    redis_server.empty()
    return redis_server


@pytest.fixture(params=["sqlite-disk", "postgresql-redis"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "sqlite-disk":
        made = House(sqlite_url(tmp_path / DATABASE), tmp_path, None)
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        made = House(server.database(), tmp_path, request.getfixturevalue("redis"))
    yield made
    made.close()


@pytest.fixture
def in_redis(tmp_path: Path, redis: RedisServer) -> Iterator[House]:
    made = House(sqlite_url(tmp_path / DATABASE), tmp_path, redis)
    yield made
    made.close()


@pytest.fixture
def events() -> Iterator[Events]:
    with capture_logs() as heard:
        yield heard


def told(events: Events, event: str) -> list[str]:
    """What the log says of an event."""
    return [str(each.get("message")) for each in events if each["event"] == event]


def write(products: Products, ids: Iterable[str]) -> None:
    """Past every filter."""
    run(products.put(some(ids)))


# --- what was saved is used -----------------------------------------------------------------------


def test_a_start_reads_the_filter_and_no_ids(house: House, events: Events) -> None:
    """Planted defect: a build at each start."""
    products = house.products()
    write(products, numbered(500))
    first = house.keeper(products)
    first.save()
    assert told(events, "filter_built")
    events.clear()
    products.ids = products.count = None  # type: ignore[assignment, method-assign]
    again = house.keeper(products)
    assert missing(again, numbered(500)) == []
    assert len(missing(again, numbered(1000, "absent"))) > 900
    assert again.stats().items == first.stats().items
    assert [each["event"] for each in events] == ["filter_loaded"]


def test_a_start_adds_what_came_after_the_save(house: House, events: Events) -> None:
    """Planted defects: no look at the record; a mark that says "now" as it is read."""
    products = house.products()
    write(products, numbered(100))
    house.keeper(products).save()
    write(products, numbered(100, "late"))
    products.ids = None  # type: ignore[assignment, method-assign]
    again = house.keeper(products)
    assert missing(again, numbered(100) + numbered(100, "late")) == []
    assert events[-1]["caught_up"] == 100
    again.save()
    events.clear()
    house.keeper(products)
    assert events[-1]["caught_up"] == 0


def test_changes_are_saved_and_no_more(house: House) -> None:
    """Planted defects: a whole save each time; a save where nothing has changed."""
    products, storage = house.products(), house.storage()
    keeper = house.keeper(products, storage)
    keeper.save()
    storage.replace = None  # type: ignore[assignment, method-assign]
    patched: list[int] = []
    patch = storage.patch

    def counted(changes: Any) -> None:
        patched.append(len(changes))
        patch(changes)

    storage.patch = counted  # type: ignore[method-assign]
    keeper.save()
    assert patched == []
    for each in numbered(3):
        keeper.filter.add(each)
        write(products, [each])
        keeper.save()
    assert len(patched) == 3
    products.ids = None  # type: ignore[assignment, method-assign]
    assert missing(house.keeper(products), numbered(3)) == []


def test_what_is_committed_during_a_save_is_not_lost(house: House) -> None:
    """Planted defect: the position read when the changes have been taken."""
    products = house.products()
    keeper = house.keeper(products)
    keeper.save()
    take = keeper.filter.changes

    def changes() -> Any:
        taken = take()
        keeper.filter.add("meanwhile")
        write(products, ["meanwhile"])
        return taken

    keeper.filter.add("a")
    write(products, ["a"])
    keeper.filter.changes = changes  # type: ignore[method-assign]
    keeper.save()
    products.ids = None  # type: ignore[assignment, method-assign]
    assert missing(house.keeper(products), ["a", "meanwhile"]) == []


def test_a_write_that_nobody_here_heard_of_is_found_by_the_record(house: House) -> None:
    """Planted defect: a position that moves on past ids that were not read: they are denied for ever."""
    products = house.products()
    keeper = house.keeper(products)
    keeper.save()
    write(products, ["of another process"])
    keeper.filter.add("a")
    keeper.save()
    assert missing(keeper, ["of another process"]) == []
    products.ids = None  # type: ignore[assignment, method-assign]
    assert missing(house.keeper(products), ["of another process", "a"]) == []


def test_the_record_is_trimmed_up_to_what_is_saved_and_not_beyond(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: trimmed up to the end although the save failed."""
    products = house.products()
    trimmed: list[Any] = []
    monkeypatch.setattr(products.record, "trim", trimmed.append)
    keeper = house.keeper(products)
    write(products, ["a"])
    assert keeper.position is not None
    keeper.save()
    assert trimmed == [keeper.position]
    trimmed.clear()
    write(products, ["b"])
    failing(monkeypatch, keeper)
    keeper.save()
    assert trimmed == []


# --- what cannot be proved is not used ------------------------------------------------------------


def truncated(state: bytes) -> bytes:
    return state[:-1]


def emptied(_: bytes) -> bytes:
    return b""


def halved(state: bytes) -> bytes:
    return state[: len(state) // 2 // SECTOR * SECTOR]


def longer(state: bytes) -> bytes:
    return state + bytes(SECTOR)


def newer(state: bytes) -> bytes:
    header = bytearray(state[: SECTOR - 4])
    struct.pack_into(">H", header, 8, 2)
    return bytes(header) + zlib.crc32(header).to_bytes(4) + state[SECTOR:]


def pickled(_: bytes) -> bytes:
    return b"\x80\x04\x95" * 1000


def of_another_secret(state: bytes) -> bytes:
    return remade(state, bytes(32))


def of_another_size(state: bytes) -> bytes:
    return remade(state, SECRET, expected_items=ITEMS + 1)


def of_three_times_the_size(state: bytes) -> bytes:
    return remade(state, SECRET, expected_items=3 * ITEMS)


def smaller(state: bytes) -> bytes:
    return remade(state, SECRET, expected_items=ITEMS // 2)


def of_another_rate(state: bytes) -> bytes:
    return remade(state, SECRET, false_positive_rate=0.02)


def without_a_mark(state: bytes) -> bytes:
    return remade(state, SECRET, mark=b"")


def with_half_a_mark(state: bytes) -> bytes:
    return remade(state, SECRET, mark=bytes(8))


def with_a_mark_of_elsewhere(state: bytes) -> bytes:
    return remade(state, SECRET, mark=bytes(8) + b'[1, "00000000000000000000000000000000"]')


def remade(state: bytes, secret: bytes, mark: bytes | None = None, **shape: Any) -> bytes:
    """An empty filter, complete as it claims."""
    bloom = BloomFilter(secret, **({"expected_items": ITEMS} | shape))
    bloom.mark = BloomFilter.load(state, SECRET).mark if mark is None else mark
    return bloom.dump()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (truncated, "bytes, and its header says"),
        (emptied, "cut off: 0 bytes"),
        (halved, "bytes, and its header says"),
        (longer, "bytes, and its header says"),
        (newer, "the form 2"),
        (pickled, "no filter of Windlass"),
        (of_another_secret, "another secret"),
        (of_another_size, "made for items 1001, not 1000"),
        (of_three_times_the_size, "made for items 3000, not 1000"),
        (smaller, "made for items 500, not 1000"),
        (of_another_rate, r"rate of 0\.02, not 0\.01"),
        (without_a_mark, "up to where it is complete"),
        (with_half_a_mark, "no position"),
        (with_a_mark_of_elsewhere, "record of"),
    ],
)
def test_a_state_that_is_not_ours_is_refused_and_the_filter_built(
    on_disk: House, events: Events, harm: Callable[[bytes], bytes], why: str
) -> None:
    """Planted, one for each: that is not looked at, and the empty filter is used."""
    products = on_disk.products()
    write(products, numbered(200))
    on_disk.keeper(products).save()
    on_disk.file.write_bytes(harm(on_disk.state()))
    events.clear()
    again = on_disk.keeper(products)
    assert missing(again, numbered(200)) == []
    (line,) = told(events, "filter_refused")
    assert "built from the database" in line
    assert re.search(why, line), line
    again.save()
    events.clear()
    assert missing(on_disk.keeper(products), numbered(200)) == []
    assert [each["event"] for each in events] == ["filter_loaded"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_loses_nothing(on_disk: House, data: st.DataObject) -> None:
    """Planted defect: a checksum that is not compared."""
    products = on_disk.products()
    write(products, numbered(200))
    on_disk.file.unlink(missing_ok=True)
    on_disk.keeper(products).save()
    state = bytearray(on_disk.state())
    bit = data.draw(st.integers(0, 8 * len(state) - 1))
    state[bit >> 3] ^= 1 << (bit & 7)
    on_disk.file.write_bytes(state)
    with capture_logs() as events:
        assert missing(on_disk.keeper(products), numbered(200)) == []
    assert told(events, "filter_refused")
    on_disk.close()


@pytest.mark.parametrize("size", [1 << 20, 1 << 30])
def test_a_large_file_is_refused(on_disk: House, events: Events, size: int) -> None:
    products = on_disk.products()
    write(products, ["a"])
    with on_disk.file.open("wb") as file:
        file.truncate(size)
    keeper = on_disk.keeper(products)
    assert missing(keeper, ["a"]) == []
    assert told(events, "filter_refused")
    keeper.save()
    assert on_disk.file.stat().st_size < 1 << 20


def test_a_directory_in_its_place_stops_nothing(on_disk: House, events: Events) -> None:
    """Planted defect: an error of the disk goes through, and the server does not start."""
    products = on_disk.products()
    write(products, ["a"])
    on_disk.file.mkdir()
    keeper = on_disk.keeper(products)
    assert missing(keeper, ["a"]) == []
    assert told(events, "filter_refused")
    keeper.save()
    keeper.save()
    (line,) = told(events, "filter_not_saved")  # told once
    assert "directory" in line
    on_disk.file.rmdir()
    keeper.save()
    assert told(events, "filter_well")
    assert on_disk.file.is_file()


def test_the_filter_of_another_database_is_refused(on_disk: House, events: Events, tmp_path: Path) -> None:
    """Planted defect: a position that is but a number: the other database has it, too."""
    products = on_disk.products()
    write(products, numbered(50))
    on_disk.keeper(products).save()
    other = House(sqlite_url(tmp_path / "other.db"), tmp_path, None)
    write(theirs := other.products(), numbered(60, "other"))
    events.clear()
    assert missing(other.keeper(theirs), numbered(60, "other")) == []
    assert told(events, "filter_refused")
    other.close()


def test_a_record_that_ends_is_answered_with_a_rebuild(on_disk: House, events: Events) -> None:
    """Planted defect: the old position kept for good: no start would ever be quick again."""
    catalogue = on_disk.catalogue()
    run(catalogue.put(some(["a"])))
    products = on_disk.products()
    products._database.change(lambda connection: connection.exec_driver_sql("DELETE FROM windlass_keys"))
    write(products, ["b"])
    catalogue.keeper.save()
    catalogue.keeper._wake.set()
    until(lambda: told(events, "filter_rebuilt"), 60)
    catalogue.close()
    assert told(events, "filter_not_caught_up")
    events.clear()
    assert missing(on_disk.keeper(products), ["a", "b"]) == []
    assert [each["event"] for each in events] == ["filter_loaded"]


def test_a_record_that_begins_later_is_used_from_then_on(on_disk: House, events: Events) -> None:
    """Planted defect: no position, so no save, until the next start."""
    products = on_disk.products()
    write(products, ["a"])
    products._database.change(lambda connection: connection.exec_driver_sql("DELETE FROM windlass_keys"))
    catalogue = Catalogue(products, on_disk.keeper(products))
    assert told(events, "filter_without_record")
    catalogue.keeper.save()
    assert not on_disk.file.exists()
    write(products, ["b"])
    catalogue.keeper.save()
    catalogue.keeper._wake.set()
    until(lambda: told(events, "filter_rebuilt"), 60)
    catalogue.close()
    assert missing(on_disk.keeper(), ["a", "b"]) == []
    assert events[-1]["event"] == "filter_loaded"


# --- what cannot be saved -------------------------------------------------------------------------


def failing(patch: pytest.MonkeyPatch, keeper: Keeper) -> None:
    def fail(*_: Any) -> None:
        raise StoreUnavailable("It is away.")

    patch.setattr(keeper._storage, "patch", fail)
    patch.setattr(keeper._storage, "replace", fail)


def test_a_save_that_failed_is_followed_by_a_whole_one(
    house: House, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: patches go on after one that failed: its bits are never given again."""
    products = house.products()
    keeper = house.keeper(products, expected_items=100_000)  # so many sectors that few are one's
    keeper.save()
    with monkeypatch.context() as patch:
        failing(patch, keeper)
        for each in numbered(3, "a"):
            write(products, [each])
            keeper.save()
    assert told(events, "filter_not_saved") == [
        f"The filter cannot be saved in {house.storage().describe()}: It is away."
    ]
    write(products, ["b"])
    keeper.save()
    assert told(events, "filter_well")
    state = BloomFilter.load(house.state(), SECRET)
    assert [each for each in [*numbered(3, "a"), "b"] if each not in state] == []


def test_a_full_disk_stops_nothing(on_disk: House, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: the error ends the thread that saves, or the request."""
    catalogue = on_disk.catalogue()
    run(catalogue.put(some(["a"])))
    catalogue.keeper.save()

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr(os, "fsync", full)
        run(catalogue.put(some(["b"])))
        run(catalogue.rebuild())
        assert lost(catalogue, ["a", "b"]) == []
        assert any("is full" in line for line in told(events, "filter_not_saved"))
    assert missing(on_disk.keeper(), ["a", "b"]) == []  # as it was, and the record
    catalogue.close()
    events.clear()
    assert missing(on_disk.keeper(), ["a", "b"]) == []
    assert [each["event"] for each in events] == ["filter_loaded"]


def test_a_database_that_is_away_stops_a_start_and_no_save(
    postgresql: PostgreSQL, tmp_path: Path, events: Events
) -> None:
    house = House(postgresql.database(), tmp_path, None)
    products = house.products()
    write(products, ["a"])
    keeper = house.keeper(products)
    keeper.save()
    postgresql.stop()
    try:
        keeper.filter.add("b")
        keeper.save()
        assert told(events, "filter_not_caught_up")
        with pytest.raises(StoreUnavailable):
            house.keeper(products)
    finally:
        postgresql.start()
    keeper.save()
    assert told(events, "filter_well")
    house.close()


# --- Redis in trouble -----------------------------------------------------------------------------


def test_a_redis_that_hangs_stops_nothing(in_redis: House, redis: RedisServer, events: Events) -> None:
    """Planted defect: a client without a time limit."""
    products = in_redis.products()
    write(products, ["a"])
    keeper = in_redis.keeper(products)
    keeper.save()
    redis.hang()
    try:
        write(products, ["b"])
        keeper.save()
        assert told(events, "filter_not_saved")
        other = in_redis.keeper(products)
        assert missing(other, ["a", "b"]) == []
        assert "away" in told(events, "filter_refused")[0]
    finally:
        redis.resume()
    keeper.save()
    keeper.save()  # the one before may find the answer to what timed out: somebody has written
    assert BloomFilter.load(in_redis.state(), SECRET).mark == keeper.filter.mark


def restarted_empty(redis: RedisServer) -> None:
    redis.forget()


def evicted(redis: RedisServer) -> None:
    redis.empty()


def foreign(redis: RedisServer) -> None:
    with redis.client() as client:
        client.set(KEY, os.urandom(5000))


def of_another_type(redis: RedisServer) -> None:
    with redis.client() as client:
        client.delete(KEY)
        client.hset(KEY, "a", "b")


@pytest.mark.parametrize("harm", [restarted_empty, evicted, foreign, of_another_type])
def test_a_value_that_is_not_ours_is_made_anew(
    in_redis: House, redis: RedisServer, events: Events, harm: Callable[[RedisServer], None]
) -> None:
    """Planted defect: changes written over nothing, or over another's: zeros with a header."""
    products = in_redis.products()
    write(products, numbered(100))
    keeper = in_redis.keeper(products)
    keeper.save()
    harm(redis)
    assert missing(in_redis.keeper(products), numbered(100)) == []
    keeper.filter.add("b")
    keeper.save()
    assert told(events, "filter_not_saved")
    keeper.save()
    assert told(events, "filter_well")
    events.clear()
    assert missing(in_redis.keeper(products), [*numbered(100), "b"]) == []
    assert [each["event"] for each in events] == ["filter_loaded"]


def test_a_redis_without_memory_stops_nothing(tmp_path: Path, events: Events) -> None:
    server = RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    house = House(sqlite_url(tmp_path / DATABASE), tmp_path, server)
    try:
        products = house.products()
        write(products, ["a"])
        keeper = house.keeper(products)
        keeper.save()
        assert "maxmemory" in told(events, "filter_not_saved")[0]
        assert missing(house.keeper(products), ["a"]) == []
    finally:
        house.close()
        server.close()


def test_two_who_keep_one_filter_leave_it_whole(in_redis: House, events: Events) -> None:
    """Planted defect: both write their changes over one another's: one who reads that misses some."""
    products = in_redis.products()
    one, other = in_redis.keeper(products), in_redis.keeper(products)
    for number in range(40):
        id_ = f"p{number}"
        (one if number % 3 else other).filter.add(id_)
        write(products, [id_])
        one.save()
        if number % 2:
            other.save()
        events.clear()
        assert missing(in_redis.keeper(products), numbered(number + 1)) == []
    assert missing(one, numbered(40)) == []
    assert missing(other, numbered(40)) == []


def test_while_nothing_changes_the_database_is_left_alone(
    on_disk: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a look into the record at each turn; none at all: what a crash left is denied."""
    now = [1000.0]
    catalogue = on_disk.catalogue(interval=0.001, monotonic=lambda: now[0])
    run(catalogue.put(some(["a"])))
    keeper = catalogue.keeper
    until(lambda: not keeper._changed(), 60)
    turns: list[None] = []
    saves: list[None] = []
    due, save = keeper._due, keeper.save

    def counted() -> bool:
        turns.append(None)
        return due()

    def saved() -> None:
        saves.append(None)
        save()

    monkeypatch.setattr(keeper, "_due", counted)
    until(lambda: turns, 60)  # a save that was under way has ended
    monkeypatch.setattr(keeper, "save", saved)
    turns.clear()
    until(lambda: len(turns) > 5, 60)
    assert saves == []
    write(on_disk.products(), ["committed when its server was dead"])
    now[0] += 61
    until(lambda: "committed when its server was dead" in catalogue.guard.filter, 60)
