"""The guard: who answers, what is remembered and for how long, and that nothing that is there is denied."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

import pytest

from tests.unit.guard.scripted import ExactFilter, Source, settle
from windlass.errors import Conflict, StoreUnavailable
from windlass.guard.bloom import BloomFilter
from windlass.guard.both import Both
from windlass.guard.guard import Answer, Guard, Limits

T = TypeVar("T")


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


class Time:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A guard on a scripted source: `there` are rows, `false` are keys that pass the filter for nothing."""

    def __init__(self, there: str = "", false: str = "", *, held: bool = False, **limits: Any) -> None:
        self.source = Source({key: ord(key) for key in there}, held=held)
        self.filter = ExactFilter(there, false)
        self.time = Time()
        self.guard = Guard(self.filter, self.source.load, limits=Limits(**limits), monotonic=self.time)

    async def ask(self, *keys: str) -> list[str]:
        """Who answered for each."""
        return [(await self.guard.get(key)).source for key in keys]

    async def write(self, key: str, value: int | None) -> None:
        """Write a row as it should be done; None deletes it."""

        async def commit() -> None:
            if value is None:
                self.source.rows.pop(key, None)
            else:
                self.source.rows[key] = value

        await self.guard.write([key], commit, adding=value is not None)


# --- who answers ----------------------------------------------------------------------------------


def test_the_filter_then_what_is_remembered_then_the_source() -> None:
    bench = Bench("a", "b")

    async def scenario() -> None:
        assert await bench.guard.get("a") == Answer(97, "database")
        assert await bench.guard.get("a") == Answer(97, "cache")
        assert await bench.guard.get("b") == Answer(None, "database")
        assert await bench.guard.get("b") == Answer(None, "negative_cache")
        assert await bench.guard.get("c") == Answer(None, "bloom_filter")

    run(scenario())
    assert bench.source.calls == ["a", "b"]
    counts = bench.guard.counts()
    assert (counts.requests, counts.bloom_filter, counts.negative_cache) == (5, 1, 1)
    assert (counts.cache, counts.database, counts.database_calls) == (1, 2, 2)
    assert (counts.database_roundtrips_saved, counts.roundtrip_reduction) == (3, 0.6)


def test_it_works_with_the_real_filter() -> None:
    bloom = BloomFilter(b"s" * 16, expected_items=1000)
    source = Source({"there": 1})
    bloom.add("there")
    guard = Guard(bloom, source.load)

    async def scenario() -> None:
        assert await guard.get("there") == Answer(1, "database")
        assert await guard.get("elsewhere") == Answer(None, "bloom_filter")
        await guard.write(["new"], lambda: asyncio.sleep(0, source.rows.update(new=2)), adding=True)
        assert await guard.get("new") == Answer(2, "database")

    run(scenario())


def test_nothing_asked_yet_is_no_reduction() -> None:
    assert Bench().guard.counts().roundtrip_reduction == 0


# --- single flight --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", "b"])
def test_many_who_ask_at_once_make_one_query(key: str) -> None:
    """Planted defect: a query for each (`_query` never looks for one under way): a hundred calls, not one."""
    bench = Bench("a", "b", held=True)

    async def scenario() -> list[Answer[int]]:
        asking = [asyncio.ensure_future(bench.guard.get(key)) for _ in range(100)]
        await settle()
        (query,) = bench.source.queries
        query.answer()
        return await asyncio.gather(*asking)

    answers = run(scenario())
    assert answers == [Answer(97 if key == "a" else None, "database")] * 100
    assert bench.guard.counts().database_roundtrips_saved == 99


def test_one_who_gives_up_takes_nobody_along() -> None:
    """Planted defect: the query runs in the task of whoever asked first; its cancellation ends it for all."""
    bench = Bench("a", held=True)

    async def scenario() -> None:
        first, second = (asyncio.ensure_future(bench.guard.get("a")) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        bench.source.queries[0].answer()
        assert await second == Answer(97, "database")
        assert first.cancelled()

    run(scenario())
    assert bench.source.calls == ["a"]


def test_a_source_that_fails_fails_those_who_wait_and_is_asked_again() -> None:
    """Planted defect: an error is remembered as absence: a database that was away makes a 404."""
    bench = Bench("a", held=True)

    async def scenario() -> None:
        asking = [asyncio.ensure_future(bench.guard.get("a")) for _ in range(3)]
        await settle()
        bench.source.queries[0].fail(StoreUnavailable())
        assert all(
            isinstance(each, StoreUnavailable)
            for each in await asyncio.gather(*asking, return_exceptions=True)
        )
        bench.source.held = False
        assert await bench.guard.get("a") == Answer(97, "database")

    run(scenario())


def test_a_query_whose_event_loop_ends_is_asked_again_from_another() -> None:
    """Planted defect: those in other event loops are given its cancellation, or wait for ever."""
    bench = Bench("a", held=True)
    asked, joined = threading.Event(), threading.Event()
    other: list[Answer[int]] = []

    async def first() -> None:
        asking = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        asked.set()
        await asyncio.to_thread(joined.wait, 60)
        asking.cancel()  # and with this coroutine the loop ends, and all that runs in it

    async def second() -> None:
        asking = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        bench.source.held = False
        joined.set()
        other.append(await asyncio.wait_for(asking, 60))

    thread = threading.Thread(target=lambda: run(first()))
    thread.start()
    assert asked.wait(60)
    run(second())
    thread.join(60)
    assert other == [Answer(97, "database")]
    assert bench.source.calls == ["a", "a"]


# --- bounds ---------------------------------------------------------------------------------------


def test_what_is_absent_is_forgotten_in_time() -> None:
    bench = Bench("a", "b", negative_seconds=60)

    async def scenario() -> None:
        await bench.ask("a", "b")
        bench.time.now = 59.9
        assert await bench.ask("a", "b") == ["cache", "negative_cache"]
        bench.time.now = 60.1
        assert bench.guard.sizes()["negative_entries"] == 0
        assert await bench.ask("a", "b") == ["cache", "database"]

    run(scenario())


def test_distinct_absent_keys_stay_within_their_bound_and_push_no_value_out() -> None:
    """Planted defect: one cache for both. The bound is in bytes, so ten million keys are no other case."""

    class Everything(ExactFilter):
        def __contains__(self, key: str, /) -> bool:
            return True

    source = Source({f"real-{number}": number for number in range(100)})
    guard = Guard(Everything(), source.load, limits=Limits(negative_bytes=100_000, cache_bytes=100_000))

    async def scenario() -> None:
        for key in source.rows:
            await guard.get(key)
        for number in range(20_000):
            await guard.get(f"absent-{number}")
        assert guard.sizes()["negative_bytes"] <= 100_000
        assert 100 < guard.sizes()["negative_entries"] < 300
        for key in source.rows:
            assert (await guard.get(key)).source == "cache"

    run(scenario())


def test_the_least_recently_used_leaves_first() -> None:
    bench = Bench("abc", cache_bytes=1000)

    async def scenario() -> None:
        assert await bench.ask("a", "b", "a", "c") == ["database", "database", "cache", "database"]
        assert await bench.ask("a", "c", "b") == ["cache", "cache", "database"]

    run(scenario())


def test_a_value_larger_than_the_cache_is_answered_and_not_kept() -> None:
    bench = Bench("a", "b", cache_bytes=10, negative_bytes=10)
    assert run(bench.ask("a", "a", "b", "b")) == ["database"] * 4


def test_the_bounds_are_those_of_real_memory() -> None:
    """Planted defect: entries weigh only what their value does: half a megabyte takes two."""
    limit = 500_000
    rows = {f"product-{number:06d}": number for number in range(3_000)}
    source, everything = Source(rows), ExactFilter([*rows, *(f"absent-{number}" for number in range(3_000))])
    guard = Guard(everything, source.load, limits=Limits(cache_bytes=limit, negative_bytes=limit))

    async def scenario() -> int:
        tracemalloc.start()
        for key in everything.keys.copy():
            await guard.get("".join(key))  # a string of its own, as a request brings
        source.calls.clear()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return taken

    assert run(scenario()) < 1.2 * 2 * limit
    assert guard.sizes()["cache_bytes"] > 0.9 * limit
    assert guard.sizes()["negative_bytes"] > 0.9 * limit


# --- writes ---------------------------------------------------------------------------------------


def test_what_was_written_is_found_whatever_was_remembered() -> None:
    """Planted defects: no filter.add; or `_drop` leaves the absent; or it leaves the values."""
    bench = Bench("a", "b")

    async def scenario() -> None:
        await bench.ask("a", "b", "c")
        for key in "abc":
            await bench.write(key, 5)
            assert await bench.guard.get(key) == Answer(5, "database")
        await bench.write("a", None)
        assert await bench.guard.get("a") == Answer(None, "database")

    run(scenario())


@pytest.mark.parametrize("many", [1, 1000])
def test_a_key_is_in_the_filter_before_it_is_in_the_source(many: int) -> None:
    """Planted defect: filter.add after the operation: a crash between them is a false negative for good.

    Or `_take_in` forgets those that are many; or, while two filters are filled, one of the two does.
    """
    bench = Bench()
    old, new = ExactFilter(), ExactFilter()
    bench.guard.swap(Both(old, new))
    keys = [f"key-{number}" for number in range(many)]

    async def commit() -> None:
        assert old.keys == new.keys == {*keys}

    run(bench.guard.write(keys, commit, adding=True))


@pytest.mark.parametrize("known", ["a", "b", "both"])
def test_a_write_drops_what_is_remembered_of_each_of_its_keys(known: str) -> None:
    """Planted defect: `_drop` goes on to the absent only where there are values."""
    bench = Bench("a", "b")

    async def scenario() -> None:
        await bench.ask(*(known if known != "both" else "ab"))
        await bench.guard.write(
            ["b", "a"], lambda: asyncio.sleep(0, bench.source.rows.update(a=5, b=6)), adding=True
        )
        assert await bench.guard.get("a") == Answer(5, "database")
        assert await bench.guard.get("b") == Answer(6, "database")

    run(scenario())


def test_a_deletion_leaves_the_filter_alone() -> None:
    bench = Bench()
    run(bench.write("a", None))
    assert "a" not in bench.filter


@pytest.mark.parametrize("when", ["before", "within", "across"])
def test_a_query_that_a_write_overtakes_is_not_remembered(when: str) -> None:
    """Planted defects: `_drop` leaves the queries (before); `_writing` is not asked (within); no `_drop`
    at the end of a write (across).
    """
    bench = Bench(false="a", held=True)
    commit = asyncio.Event()

    async def operation() -> None:
        await commit.wait()
        bench.source.rows["a"] = 1

    async def scenario() -> None:
        early = []
        if when == "before":
            early.append(asyncio.ensure_future(bench.guard.get("a")))
            await settle()
            bench.source.queries[0].look()
        writing = asyncio.ensure_future(bench.guard.write(["a"], operation, adding=True))
        await settle()
        if when != "before":
            early.append(asyncio.ensure_future(bench.guard.get("a")))
            await settle()
            bench.source.queries[0].look()
        if when == "within":
            bench.source.queries[0].answer()
            await settle()
        commit.set()
        await writing
        bench.source.queries[0].answer()
        assert await early[0] == Answer(None, "database")
        bench.source.held = False
        assert await bench.guard.get("a") == Answer(1, "database")
        assert await bench.guard.get("a") == Answer(1, "cache")

    run(scenario())


def test_who_asks_after_a_write_joins_no_query_from_before() -> None:
    """Planted defect: `_drop` leaves the queries: a 404 after the 201."""
    bench = Bench(false="a", held=True)

    async def scenario() -> None:
        early = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        bench.source.queries[0].look()
        await bench.write("a", 1)
        late = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        for query in bench.source.queries:
            query.answer()
        assert await late == Answer(1, "database")
        assert await early == Answer(None, "database")
        assert await bench.guard.get("a") == Answer(1, "cache")

    run(scenario())


def test_two_writes_of_one_key_are_told_apart() -> None:
    """Planted defect: `_writing` is a set: the end of one write is taken for that of the other."""
    bench = Bench(false="a")
    first, second = asyncio.Event(), asyncio.Event()

    async def operation(end: asyncio.Event) -> None:
        await end.wait()

    async def scenario() -> None:
        one = asyncio.ensure_future(bench.guard.write(["a"], lambda: operation(first), adding=True))
        two = asyncio.ensure_future(bench.guard.write(["a"], lambda: operation(second), adding=True))
        await settle()
        first.set()
        await one
        assert await bench.ask("a", "a") == ["database", "database"]
        second.set()
        await two
        assert await bench.ask("a", "a") == ["database", "negative_cache"]

    run(scenario())


def test_a_write_goes_on_where_whoever_asked_for_it_goes_away() -> None:
    """Planted defect: no shield: its end is told at the cancellation, and the commit comes after."""
    bench = Bench(false="a")
    commit = asyncio.Event()

    async def operation() -> None:
        await commit.wait()
        bench.source.rows["a"] = 1

    async def scenario() -> None:
        writing = asyncio.ensure_future(bench.guard.write(["a"], operation, adding=True))
        await settle()
        writing.cancel()
        await settle()
        assert await bench.ask("a", "a") == ["database", "database"]
        commit.set()
        await settle()
        assert await bench.guard.get("a") == Answer(1, "database")

    run(scenario())


@pytest.mark.parametrize("error", [StoreUnavailable(), OSError(), asyncio.CancelledError()])
def test_after_a_write_whose_outcome_is_unknown_nothing_is_remembered_for_a_while(
    error: BaseException,
) -> None:
    """Planted defect: it is taken for one that failed: it comes to pass, and the absence is remembered."""
    bench = Bench(false="ab", doubt_seconds=60)

    async def operation() -> None:
        raise error

    async def scenario() -> None:
        with pytest.raises(type(error)):
            await bench.guard.write(["a"], operation, adding=True)
        assert await bench.ask("a", "a") == ["database", "database"]
        bench.source.held = True
        bench.time.now = 59.9
        asking = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        bench.source.queries[0].look()
        bench.source.rows["a"] = 1  # it does come to pass
        bench.time.now = 60.1
        bench.source.queries[0].answer()
        assert await asking == Answer(None, "database")
        bench.source.held = False
        assert await bench.guard.get("a") == Answer(1, "database")
        assert await bench.ask("a", "b", "b") == ["cache", "database", "negative_cache"]

    run(scenario())


def test_a_write_that_was_refused_casts_no_doubt() -> None:
    """Planted defect: any error casts doubt: whoever repeats a POST turns the guard's memory off."""
    bench = Bench(false="ab")

    async def operation() -> None:
        raise Conflict

    async def scenario() -> None:
        with pytest.raises(Conflict):
            await bench.guard.write(["a"], operation, adding=True)
        assert await bench.ask("b", "b") == ["database", "negative_cache"]

    run(scenario())


# --- others who write -----------------------------------------------------------------------------


class Others:
    """Peers as a test wants them."""

    def __init__(self) -> None:
        self.known = True
        self.told: list[str] = []
        self.refused: Exception | None = None

    def current(self) -> bool:
        return self.known

    async def begin(self, keys: Collection[str]) -> object:
        if self.refused is not None:
            raise self.refused
        self.told.append(f"begin {' '.join(keys)}")
        return "begun"

    async def done(self, begun: object) -> None:
        self.told.append(f"done {begun}")

    async def end(self, begun: object, *, sure: bool) -> None:
        self.told.append(f"end {begun} {sure}")


def with_others(there: str = "", *, held: bool = False) -> tuple[Bench, Others]:
    bench, others = Bench(there, held=held), Others()
    bench.guard.peers = others
    return bench, others


def test_who_does_not_know_of_all_writes_asks_the_source() -> None:
    """Planted defect: `remembered` that does not ask `current`: "c", which another wrote, is absent."""
    bench, others = with_others("a")

    async def scenario() -> None:
        assert await bench.ask("a", "a", "b") == ["database", "cache", "bloom_filter"]
        bench.source.rows["c"] = 1
        others.known = False
        assert await bench.ask("a", "b") == ["database", "database"]
        assert await bench.guard.get("c") == Answer(1, "database")
        bench.guard.heard_begin(["c"])
        bench.guard.heard_end(["c"])
        others.known = True
        assert await bench.ask("a", "c", "c") == ["cache", "database", "cache"]

    run(scenario())


@pytest.mark.parametrize("why", ["writing", "not current"])
def test_who_asks_where_a_write_may_have_been_answered_joins_no_query_from_before(why: str) -> None:
    """Planted defects: `_query` that shares whatever is under way; one query for each who asks (4 calls)."""
    bench, others = with_others(held=True)
    bench.filter.add("a")

    async def scenario() -> None:
        before = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        bench.source.queries[0].look()
        if why == "writing":
            bench.guard.heard_begin(["a"])  # which takes the first query away
            late = asyncio.ensure_future(bench.guard.get("a"))
            await settle()
            bench.source.queries[1].look()
        else:
            others.known, late = False, before
        bench.source.rows["a"] = 1  # and whoever wrote it is answered, while its end is not heard yet
        after = [asyncio.ensure_future(bench.guard.get("a")) for _ in range(3)]
        await settle()
        while bench.source.queries:
            bench.source.queries.pop(0).answer()
            await settle()
        assert (await before).value is None
        assert (await late).value is None
        assert [(await each).value for each in after] == [1, 1, 1]

    run(scenario())
    assert len(bench.source.calls) == (3 if why == "writing" else 2)
    assert bench.guard.counts().database_calls == len(bench.source.calls)


def test_a_query_behind_one_that_fails_is_made_all_the_same() -> None:
    """Planted defect: an error that begins nothing behind it: whoever waits there waits for ever."""
    bench, others = with_others("a", held=True)
    others.known = False

    async def scenario() -> None:
        first = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        second = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        bench.source.queries.pop(0).fail(StoreUnavailable("away"))
        await settle()
        bench.source.queries.pop(0).answer()
        with pytest.raises(StoreUnavailable):
            await first
        assert (await second).value == 97

    run(scenario())


def test_others_are_told_before_and_after_and_a_write_they_cannot_hear_of_is_not_made() -> None:
    """Planted defects: the operation before `begin`; a refusal of `begin` that casts doubt."""
    bench, others = with_others()

    async def commit() -> None:
        others.told.append("commit")
        bench.source.rows["a"] = 1

    async def scenario() -> None:
        await bench.guard.write(["a"], commit, adding=True)
        assert others.told == ["begin a", "commit", "done begun"]
        assert await bench.ask("a", "a") == ["database", "cache"]
        others.refused = StoreUnavailable("nobody hears")
        with pytest.raises(StoreUnavailable, match="nobody hears"):
            await bench.guard.write(["a"], commit, adding=True)
        assert len(others.told) == 3
        assert await bench.ask("a", "a") == ["database", "cache"]

    run(scenario())


def test_an_outcome_that_nobody_knows_is_told_as_such() -> None:
    """Planted defect: `sure` that is never False."""
    bench, others = with_others()

    async def broken() -> None:
        raise StoreUnavailable("gone in the commit")

    async def scenario() -> None:
        with pytest.raises(StoreUnavailable):
            await bench.guard.write(["a"], broken, adding=True)
        assert others.told[-1] == "end begun False"

    run(scenario())


def test_what_is_forgotten_comes_back_from_the_source_alone() -> None:
    """Planted defect: `forget` that leaves the queries under way: the old value is remembered."""
    bench = Bench("a", held=True)

    async def scenario() -> None:
        asking = asyncio.ensure_future(bench.guard.get("a"))
        await settle()
        query = bench.source.queries.pop()
        query.look()
        bench.guard.forget()
        query.answer()
        assert (await asking).value == 97
        bench.source.held = False
        assert await bench.ask("a", "a") == ["database", "cache"]
        bench.guard.forget()
        assert await bench.ask("a") == ["database"]

    run(scenario())


def test_a_filter_that_is_swapped_in_is_told_what_it_may_miss() -> None:
    """Planted defect: `swap` that gives nothing back."""
    bench = Bench()

    async def commit() -> None:
        other = ExactFilter()
        other.keys |= bench.guard.swap(other)
        bench.source.rows["a"] = 1

    async def scenario() -> None:
        await bench.guard.write(["a"], commit, adding=True)
        assert (await bench.guard.get("a")).value == 1

    run(scenario())
