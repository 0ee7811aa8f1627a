"""A filter made anew beside the one in use: nothing that there is, or comes to be meanwhile, is denied."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.contract.keeping import ITEMS, SECRET, House, lost, numbered, run, some
from tests.contract.test_keeping import Events, told
from tests.harness import until
from windlass.catalogue import building
from windlass.catalogue.products import Products
from windlass.catalogue.service import DATABASE, Catalogue
from windlass.database import sqlite_url
from windlass.errors import ProductExists, StoreClosed, StoreUnavailable
from windlass.guard.bloom import BloomFilter
from windlass.guard.both import Both
from windlass.guard.guard import Limits


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    url = sqlite_url(tmp_path / DATABASE)
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").database()
    made = House(url, tmp_path, None)
    yield made
    made.close()


@pytest.fixture
def events() -> Iterator[Events]:
    with capture_logs() as heard:
        yield heard


class Scan:
    """Stands in a rebuild's way: at its beginning, after the first page, at its end, before the last swap."""

    def __init__(self, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scans = 0
        self.denied: list[str] | None = None
        """Of what there is when the new filter is in use, before it has caught up again."""
        self.at: dict[str, Callable[[], object]] = {}
        self._products = catalogue.products
        self._ids = self._products.ids
        monkeypatch.setattr(self._products, "ids", self._pages)
        monkeypatch.setattr(building, "_BATCH", 10)
        swap = catalogue.guard.swap

        def swapped(filter: Any) -> set[str]:  # noqa: A002
            if isinstance(filter, Both):
                return swap(filter)
            self._come("swap")
            under_way = swap(filter)
            self.denied = [each for each in self._ids() if each not in filter]
            return under_way

        monkeypatch.setattr(catalogue.guard, "swap", swapped)

    def _pages(self) -> Iterator[str]:
        self.scans += 1
        self._come("begin")
        for number, each in enumerate(self._ids()):
            if number == 10:
                self._come("page")
            yield each
        self._come("end")

    def _come(self, where: str) -> None:
        self.at.pop(where, lambda: None)()


def rate(bloom: Any, probes: int = 50_000) -> float:
    return sum(f"absent-{number}" in bloom for number in range(probes)) / probes


# --- when, and what it is worth -------------------------------------------------------------------


def test_a_filter_that_has_grown_is_made_anew_by_itself(on_disk: House, events: Events) -> None:
    """Planted defect: made for as many as before: it has a layer more at once, and is made anew for ever."""
    catalogue = on_disk.catalogue()
    run(catalogue.put(some(numbered(3 * ITEMS))))
    assert catalogue.stats().layers == 2
    catalogue.keeper._wake.set()
    until(lambda: catalogue.stats().layers == 1, 60)
    until(lambda: catalogue.stats().rebuilding is None, 60)
    stats = catalogue.stats()
    assert stats.expected_items == 4 * ITEMS
    assert stats.items == pytest.approx(3 * ITEMS, rel=0.01)
    assert rate(catalogue.guard.filter) <= 0.0105
    assert lost(catalogue, numbered(3 * ITEMS)) == []
    catalogue.close()
    assert len(told(events, "filter_rebuilt")) == 1
    events.clear()
    again = on_disk.catalogue()
    assert [each["event"] for each in events] == ["filter_loaded"]
    assert again.stats().expected_items == 4 * ITEMS


def test_as_many_as_it_was_made_for_keep_to_the_promised_rate(on_disk: House) -> None:
    catalogue = on_disk.catalogue()
    run(catalogue.put(some(numbered(ITEMS))))
    run(catalogue.rebuild())
    assert catalogue.stats().expected_items == ITEMS
    assert rate(catalogue.guard.filter, 200_000) <= 0.0105


def test_deletions_are_counted_over_restarts_and_answered(on_disk: House, events: Events) -> None:
    """Planted defects: a count that begins anew at each start; one that a rebuild does not take back."""
    catalogue = on_disk.catalogue()
    run(catalogue.put(some(numbered(500))))

    async def delete(first: int, last: int) -> None:
        for number in range(first, last):
            assert await catalogue.delete(f"p{number}")
            assert not await catalogue.delete(f"p{number}")

    run(delete(0, 60))
    assert catalogue.stats().deletions == 60
    catalogue.close()
    catalogue = on_disk.catalogue()
    assert catalogue.stats().deletions == 60
    run(delete(60, 100))
    catalogue.keeper.save()  # its thread sleeps
    assert told(events, "filter_rebuilt") == []
    run(delete(100, 101))
    catalogue.keeper._wake.set()
    until(lambda: told(events, "filter_rebuilt"), 60)
    until(lambda: catalogue.stats().rebuilding is None, 60)
    assert catalogue.stats().deletions == 0
    assert catalogue.stats().items <= 399
    assert lost(catalogue, numbered(500)[101:]) == []
    assert len(lost(catalogue, numbered(101))) == 101


# --- writes beside it -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["begin", "page", "end", "swap"])
def test_what_is_written_beside_it_is_found(
    house: House, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Planted defects: new keys told to one filter; the new one in use before the scan has ended."""
    catalogue = house.catalogue()
    scan = Scan(catalogue, monkeypatch)
    run(catalogue.put(some(numbered(50))))

    def write() -> None:
        new = [f"{at}{where}" for at in ("", "p", "z")]  # before, among and behind what was scanned
        run(catalogue.put(some(new)))
        assert lost(catalogue, numbered(50) + new) == []

    scan.at[where] = write
    run(catalogue.rebuild())
    assert scan.denied == []
    assert lost(catalogue, [*numbered(50), *(f"{at}{where}" for at in ("", "p", "z"))]) == []
    assert catalogue.stats().items == 53


def held_insert(products: Products, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """(set when an insert is on its way, what it waits for)."""
    begun, go = asyncio.Event(), asyncio.Event()
    insert = products.insert

    async def held(product: Any) -> None:
        begun.set()
        await go.wait()
        await insert(product)

    monkeypatch.setattr(products, "insert", held)
    return begun, go


def test_a_write_that_was_under_way_all_the_time_is_found(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: the keys of writes under way forgotten."""
    catalogue = house.catalogue()
    run(catalogue.put(some(numbered(50))))

    async def scenario() -> None:
        begun, go = held_insert(catalogue.products, monkeypatch)
        writing = asyncio.ensure_future(catalogue.insert(some(["slow"])[0]))
        await begun.wait()
        await catalogue.rebuild()
        go.set()
        await writing

    run(scenario())
    assert lost(catalogue, ["slow"]) == []


def test_a_write_whose_outcome_nobody_knows_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: a scan at once: what is committed after it is denied for good."""
    catalogue = house.catalogue(limits=Limits(doubt_seconds=1e6))
    run(catalogue.put(some(numbered(50))))
    insert, keeper = catalogue.products.insert, catalogue.keeper

    async def broken(_: Any) -> None:
        raise StoreUnavailable("The connection is broken, and the commit under way.")

    waits: list[float | None] = []

    def wait(seconds: float | None = None) -> bool:
        waits.append(seconds)
        if seconds:
            run(insert(some(["late"])[0]))  # past the guard, as the database does it
        return False

    async def scenario() -> None:
        monkeypatch.setattr(catalogue.products, "insert", broken)
        with pytest.raises(StoreUnavailable):
            await catalogue.insert(some(["late"])[0])
        monkeypatch.setattr(keeper._closing, "wait", wait)
        monkeypatch.setattr(catalogue.products.record, "since", lambda position: ([], position))
        await catalogue.rebuild()

    run(scenario())
    assert waits[0] == pytest.approx(1e6, rel=0.01)
    assert lost(catalogue, ["late"]) == []


writes = st.lists(
    st.tuples(st.sampled_from(["insert", "put", "delete", "held", "release", "rebuild"]), st.integers(0, 30)),
    max_size=40,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=writes)
def test_no_order_of_writes_and_rebuilds_loses_anything(
    on_disk: House, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int]]
) -> None:
    """Planted defects: those above, all of them."""
    catalogue = on_disk.catalogue()
    there = set(catalogue.products.ids())

    async def scenario() -> None:
        gate = asyncio.Event()
        insert = catalogue.products.insert
        rebuilds: list[asyncio.Future[None]] = []
        tasks: list[asyncio.Task[None]] = []

        async def held(product: Any) -> None:
            if product.product_id.startswith("held"):
                await gate.wait()
            await insert(product)

        async def add(id_: str) -> None:
            with contextlib.suppress(ProductExists):
                await catalogue.insert(some([id_])[0])
            there.add(id_)

        monkeypatch.setattr(catalogue.products, "insert", held)
        for step, number in steps:
            if step == "insert":
                await add(f"p{number}")
            elif step == "put":
                ids = numbered(number)
                await catalogue.put(some(ids))
                there.update(ids)
            elif step == "delete":
                await catalogue.delete(f"p{number}")
                there.discard(f"p{number}")
            elif step == "held":
                tasks.append(asyncio.ensure_future(add(f"held{number}")))
                await asyncio.sleep(0)
            elif step == "release":
                gate.set()
                await asyncio.gather(*tasks)
                gate.clear()
            else:
                rebuilds.append(asyncio.ensure_future(catalogue.rebuild()))
                await asyncio.sleep(0)
            for each in there:
                assert (await catalogue.get(each)).value is not None, each
        await asyncio.gather(*rebuilds)
        gate.set()
        await asyncio.gather(*tasks)
        for each in there:
            assert (await catalogue.get(each)).value is not None, each

    run(scenario())
    catalogue.close()


def test_threads_that_write_beside_many_rebuilds_lose_nothing(house: House) -> None:
    """Planted defect: a new filter that is filled without its lock."""
    catalogue = house.catalogue()
    answered: list[list[str]] = [[], []]
    over = threading.Event()

    def write(mine: list[str], prefix: str) -> None:
        async def all_the_time() -> None:
            while not over.is_set():
                id_ = f"{prefix}{len(mine)}"
                await catalogue.insert(some([id_])[0])
                mine.append(id_)

        asyncio.run(all_the_time())

    threads = [threading.Thread(target=write, args=(answered[n], f"w{n}-")) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            run(catalogue.rebuild())
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert lost(catalogue, answered[0] + answered[1]) == []
    assert [each for each in answered[0] + answered[1] if each not in catalogue.keeper.filter] == []


# --- for those who have missed something ----------------------------------------------------------


def test_one_who_catches_up_has_all_that_there_is(house: House) -> None:
    """Planted defect: only what was heard of."""
    catalogue = house.catalogue()
    run(house.products().put(some(numbered(30, "of another server"))))
    catalogue.keeper.catch_up()
    assert lost(catalogue, numbered(30, "of another server")) == []


def test_without_a_record_one_who_catches_up_reads_all_ids(
    on_disk: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: content with the rebuild under way, which has passed by what is new."""
    products = on_disk.products()
    monkeypatch.setattr(products, "record", None)
    catalogue = Catalogue(products, on_disk.keeper(products))
    scan = Scan(catalogue, monkeypatch)
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait(60)

    scan.at["end"] = hold
    first = threading.Thread(target=catalogue.keeper.make_anew)
    first.start()
    assert begun.wait(60)
    run(on_disk.products().put(some(["a"])))
    second = threading.Thread(target=catalogue.keeper.catch_up)
    second.start()
    go.set()
    first.join(60)
    second.join(60)
    assert scan.scans == 2
    assert lost(catalogue, ["a"]) == []
    catalogue.close()


# --- one at a time, and no harm -------------------------------------------------------------------


def test_those_who_ask_meanwhile_wait_for_the_one_under_way(
    on_disk: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a rebuild for each; one who gives up takes the others along."""
    catalogue = on_disk.catalogue()
    scan = Scan(catalogue, monkeypatch)

    async def scenario() -> None:
        loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def hold() -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait(60)

        scan.at["begin"] = hold
        first = asyncio.ensure_future(catalogue.rebuild())
        await begun.wait()
        assert catalogue.stats().rebuilding == 0.0
        others = [asyncio.ensure_future(catalogue.rebuild()) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        go.set()
        await asyncio.gather(*others)

    run(scenario())
    assert scan.scans == 1
    assert catalogue.stats().rebuilding is None


def test_one_that_fails_leaves_the_old_one_in_use(
    on_disk: House, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Planted defects: the half-filled one in use; the thread that ends with the error."""
    catalogue = on_disk.catalogue()
    scan = Scan(catalogue, monkeypatch)
    run(catalogue.put(some(numbered(50))))
    before = catalogue.guard.filter

    def fail() -> None:
        run(catalogue.put(some(["beside"])))
        raise StoreUnavailable("The database is gone.")

    scan.at["page"] = fail
    with pytest.raises(StoreUnavailable, match="is gone"):
        run(catalogue.rebuild())
    assert catalogue.guard.filter is before is catalogue.keeper.filter
    assert told(events, "filter_not_rebuilt") == ["The filter stays as it was: The database is gone."]
    assert catalogue.stats().rebuild_failed == "The database is gone."
    assert lost(catalogue, [*numbered(50), "beside"]) == []
    run(catalogue.rebuild())
    assert catalogue.stats().rebuild_failed is None
    assert catalogue.guard.filter is not before
    assert lost(catalogue, [*numbered(50), "beside"]) == []


def test_one_that_failed_by_itself_is_not_tried_again_at_once(
    on_disk: House, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Planted defect: a scan of a database that is in trouble, every two seconds."""
    now = [0.0]
    catalogue = on_disk.catalogue(monotonic=lambda: now[0])
    scan = Scan(catalogue, monkeypatch)
    run(catalogue.put(some(numbered(2 * ITEMS))))

    def fail() -> None:
        raise StoreUnavailable("The database is gone.")

    scan.at["begin"] = fail
    keeper = catalogue.keeper
    keeper._wake.set()
    until(lambda: told(events, "filter_not_rebuilt"), 60)
    now[0] = 59.0
    turns = count_of_turns(keeper, monkeypatch)
    for count in (1, 2):
        keeper._wake.set()
        until(lambda count=count: len(turns) >= count, 60)  # type: ignore[misc]
    assert scan.scans == 1
    now[0] = 61.0
    keeper._wake.set()
    until(lambda: told(events, "filter_rebuilt"), 60)


def count_of_turns(keeper: Any, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each time that it was asked whether a rebuild is due, and the answer."""
    turns: list[bool] = []
    due = keeper._due

    def counted() -> bool:
        turns.append(due())
        return turns[-1]

    monkeypatch.setattr(keeper, "_due", counted)
    return turns


def test_a_close_gives_it_up_and_keeps_the_old_one(
    on_disk: House, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Planted defects: a close that waits for all ids; a half-filled filter that is saved."""
    catalogue = on_disk.catalogue()
    scan = Scan(catalogue, monkeypatch)
    run(catalogue.put(some(numbered(200))))
    read: list[str] = []

    def close() -> None:
        closing.start()
        catalogue.keeper._closing.wait(60)

    closing = threading.Thread(target=catalogue.close)
    scan.at["page"] = close
    scan.at["end"] = lambda: read.append("to the end")
    with pytest.raises(StoreClosed):
        run(catalogue.rebuild())
    closing.join(60)
    assert read == []
    assert told(events, "filter_not_rebuilt") == []
    with pytest.raises(StoreClosed):
        run(catalogue.rebuild())
    events.clear()
    assert lost(on_disk.catalogue(), numbered(200)) == []
    assert [each["event"] for each in events] == ["filter_loaded"]


def test_it_is_saved_whole(on_disk: House) -> None:
    """Planted defect: changes of the new one written over the old one: the next start refuses that."""
    catalogue = on_disk.catalogue()
    run(catalogue.put(some(numbered(50))))
    run(catalogue.rebuild())
    saved = BloomFilter.load(on_disk.state(), SECRET)
    assert [each for each in numbered(50) if each not in saved] == []
    assert saved.dump() == catalogue.keeper.filter.dump()
