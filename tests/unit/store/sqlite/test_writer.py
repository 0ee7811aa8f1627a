"""Group commit: many requests, one transaction; a commit that fails is taken apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import sqlite_of
from windlass.errors import StoreFull, StoreUnavailable
from windlass.message import Options


@contextmanager
def held(bench: Bench) -> Iterator[threading.Event]:
    """The writer waits in a commit until the event is set, so that what comes meanwhile joins the next."""
    event = threading.Event()
    db = sqlite_of(bench)._db

    def wait() -> bool:
        event.wait(60)
        return False

    db.set_commit_hook(wait)
    try:
        yield event
    finally:
        event.set()
        bench.run(lambda s: s.ping())
        db.set_commit_hook(None)


@contextmanager
def commits(bench: Bench, *, fail: int = 0) -> Iterator[list[bool]]:
    """Notes every commit: True where it went through. The first `fail` are refused."""
    seen: list[bool] = []

    def commit() -> bool:
        refuse = len(seen) < fail
        seen.append(not refuse)
        return refuse

    db = sqlite_of(bench)._db
    db.set_commit_hook(commit)
    try:
        yield seen
    finally:
        db.set_commit_hook(None)


def test_what_comes_during_a_commit_shares_the_next(bench: Bench) -> None:
    """Fails when each request has a commit, and an fsync, of its own."""
    bench.create("q")
    with commits(bench) as seen:
        bench.together(*[lambda s: s.send("q", [b"1"])] * 200)
    assert len(seen) < 100
    assert bench.counts("q") == {"ready": 200}


def test_no_answer_leaves_before_its_commit(bench: Bench) -> None:
    """Fails when an answer is given while the transaction may still fail."""
    bench.create("q")
    with held(bench) as event:

        async def send() -> bool:
            future = bench.store.send("q", [b"1"])
            timer = threading.Timer(0.05, event.set)
            timer.start()
            await future
            return event.is_set()

        assert bench.loop.run_until_complete(send())


def test_a_commit_that_fails_is_tried_one_by_one(bench: Bench) -> None:
    """Fails when a fault of the disk at a commit loses all of its requests, or does one of them twice."""
    bench.create("q")
    bench.advance(2)
    with commits(bench, fail=1) as seen:
        results = bench.together(*[lambda s, n=n: s.send("q", [b"%d" % n]) for n in range(5)])
    assert [getattr(result, "numbers", None) is not None for result in results].count(False) <= 1
    assert seen[0] is False
    good = [b"%d" % n for n, result in enumerate(results) if not isinstance(result, Exception)]
    assert sorted(bench.contents("q")) == good
    bench.crash()
    assert sorted(bench.contents("q")) == good


def test_a_commit_that_always_fails_answers_everybody(bench: Bench) -> None:
    """Fails when a request waits for ever, or memory counts what is not on the disk."""
    bench.create("q")
    before = bench.send("q", b"0")
    with commits(bench, fail=100):
        results = bench.together(
            lambda s: s.send("q", [b"1"]),
            lambda s: s.receive("q"),
            lambda s: s.send("q", [b"2"], [Options(delay=1_000)]),
            lambda s: s.update_queue("q", {"max_length": 1}),
            lambda s: s.create_queue("r", {}),
        )
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert bench.counts("q") == {"ready": 1}
    assert bench.info("q").settings.max_length is None
    assert [info.name for info in bench.run(lambda s: s.queues())] == ["q"]
    sent = bench.send("q", b"3")
    bench.crash()
    assert [m.number for m in bench.receive("q", 5)] == [*before.numbers, *sent.numbers]


def test_a_full_disk_refuses_what_does_not_fit_and_no_more(bench: Bench) -> None:
    """Fails when one message that is too large for the disk takes others with it, or needs a restart."""
    bench.create("q")
    db = sqlite_of(bench)._db
    pages = int(db.pragma("page_count"))
    db.pragma("max_page_count", pages + 20)
    results = bench.together(
        lambda s: s.send("q", [b"1"]),
        lambda s: s.send("q", [b"x" * 400_000]),
        lambda s: s.send("q", [b"2"]),
    )
    assert isinstance(results[1], StoreFull)
    assert results[1].retry_after
    assert bench.contents("q") == [b"1", b"2"]
    db.pragma("max_page_count", 1 << 30)
    bench.send("q", b"x" * 400_000)
    assert bench.counts("q") == {"ready": 3}


def test_upkeep_that_fails_does_not_hold_up_requests(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a step of upkeep that cannot be done makes every request fail."""
    bench.create("q")
    bench.send("q", b"1", delay=1_000)
    upkeep = sqlite_of(bench)._writer.upkeep

    def broken(*_: object) -> bool:
        raise apsw.FullError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "_due", broken)
        bench.clock.advance(1)
        bench.send("q", b"2")
        assert bench.contents("q") == [b"2"]
    bench.advance(2)
    assert bench.contents("q") == [b"1", b"2"]


def test_a_fault_of_the_disk_in_the_middle_of_a_statement(bench: Bench) -> None:
    """Fails when a transaction that the engine has already rolled back is taken for open."""
    bench.create("q")
    db = sqlite_of(bench)._db
    left = [3]

    def interrupt() -> bool:
        left[0] -= 1
        return left[0] == 0

    db.set_progress_handler(interrupt, 20)
    results = bench.together(*[lambda s: s.send("q", [b"1"] * 20)] * 3)
    db.set_progress_handler(None)
    done = sum(not isinstance(result, Exception) for result in results)
    assert done >= 2
    assert bench.counts("q") == {"ready": 20 * done}
