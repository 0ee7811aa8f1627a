"""Messages in: all or nothing, limits, dedup ids, Idempotency-Keys, and faults that stay with one request."""

from __future__ import annotations

from typing import cast

import pytest

from tests.contract.bench import Bench
from windlass.errors import (
    IdempotencyKeyReused,
    MessageGone,
    QueueFull,
    QueueNotFound,
    StoreUnavailable,
    TooLarge,
)
from windlass.message import Once, Options

DAY = 24 * 3600


def test_a_full_queue_refuses_a_batch_whole(bench: Bench) -> None:
    """Fails when a batch that does not fit is cut, or when what is leased, delayed or dead takes no room."""
    bench.create("q", max_length=5, max_deliveries=1)
    bench.send("q", b"1", b"2")
    bench.send("q", b"3", delay=5_000)
    (dying,) = bench.receive("q", 1, 5_000)
    bench.release("q", dying)
    with pytest.raises(QueueFull) as refused:
        bench.send("q", b"4", b"5", b"6")
    assert refused.value.retry_after
    with pytest.raises(QueueFull):
        bench.send("q", b"4", b"5", b"6", priority=3)
    assert bench.counts("q") == {"ready": 1, "delayed": 1, "dead": 1}
    bench.send("q", b"4", b"5")
    assert len(bench.receive("q", 10)) == 3


def test_the_sends_of_one_commit_share_the_room(bench: Bench) -> None:
    """Fails when each send of a commit is measured against the queue as it was before all of them."""
    bench.create("q", max_length=10)
    plain = [lambda s: s.send("q", [b"1"] * 3)] * 3
    special = [lambda s: s.send("q", [b"1"] * 3, [Options(priority=1)] * 3)] * 3
    results = bench.together(*plain, *special)
    assert sum(isinstance(result, QueueFull) for result in results) == 3
    assert bench.counts("q") == {"ready": 9}


def test_a_content_over_the_limit_is_refused_and_one_at_it_is_not(bench: Bench) -> None:
    """Fails when the limit is off by one, or takes the rest of the commit with it."""
    bench.create("q", max_message_bytes=10)
    results = bench.together(
        lambda s: s.send("q", [b"x" * 10]),
        lambda s: s.send("q", [b"x", b"x" * 11]),
        lambda s: s.send("q", [b"x" * 11], [Options(priority=1)]),
        lambda s: s.send("q", [b"x" * 10], [Options(priority=1)]),
    )
    assert [isinstance(result, TooLarge) for result in results] == [False, True, True, False]
    assert bench.counts("q") == {"ready": 2}


def test_a_fault_of_one_request_stays_with_it(bench: Bench) -> None:
    """Fails when one bad request of a commit takes the others with it.

    The planted defects: a content that is none, a group that no database can hold, a queue that is not there.
    """
    bench.create("q")
    results = bench.together(
        lambda s: s.send("q", [b"1"]),
        lambda s: s.send("q", [cast(bytes, 1)]),
        lambda s: s.send("q", [b"2"], [Options(group="\ud800")]),
        lambda s: s.send("nowhere", [b"3"]),
        lambda s: s.receive("nowhere"),
        lambda s: s.cancel("q", 1 << 70),
        lambda s: s.send("q", [b"4"], [Options(group="g")]),
        lambda s: s.receive("q", 1, 5_000),
    )
    kinds = [type(result) for result in results]
    assert kinds[1:5] == [StoreUnavailable, StoreUnavailable, QueueNotFound, QueueNotFound]
    assert kinds[5] in (StoreUnavailable, MessageGone)
    assert [m.content for m in results[7]] == [b"1"]
    assert bench.counts("q") == {"ready": 1, "leased": 1}
    bench.crash()
    assert bench.contents("q") == [b"4"]


def test_a_dedup_id_gives_the_first_message_again_inside_the_window(bench: Bench) -> None:
    """Fails when the window ends early or late, with the message, with a purge, or with the process."""
    bench.create("q", dedup_window_seconds=10, max_length=2)
    bench.create("other")
    first = bench.send("q", b"1", dedup_id="x")
    assert first.duplicates is None
    batch = bench.send("q", b"2", b"3", dedup_id="y")  # twice in one batch: one message
    assert (batch.numbers[0], batch.duplicates) == (batch.numbers[1], [False, True])
    bench.crash()
    again = bench.send("q", b"4", dedup_id="x")  # the queue is full, but this takes no room
    assert (list(again.numbers), again.duplicates) == (list(first.numbers), [True])
    assert bench.send("other", b"5", dedup_id="x").duplicates is None
    bench.receive("q", 2)
    bench.send("q", b"6")
    bench.purge("q")
    bench.clock.advance(9.999)
    assert bench.send("q", b"7", dedup_id="x").duplicates == [True]
    assert bench.counts("q") == {}
    bench.clock.advance(0.001)
    assert bench.send("q", b"8", dedup_id="x").duplicates is None
    assert bench.contents("q") == [b"8"]


def test_dedup_ids_of_one_commit_see_each_other(bench: Bench) -> None:
    """Fails when sends of one commit look only at what was committed before."""
    bench.create("q")
    sends = [lambda s: s.send("q", [b"1"], [Options(dedup_id="x")])] * 8
    numbers = {sent.numbers[0] for sent in bench.together(*sends)}
    assert len(numbers) == 1
    assert bench.counts("q") == {"ready": 1}


def test_an_idempotency_key_gives_the_first_answer_again(bench: Bench) -> None:
    """Fails when a repeat sends again: in its commit, after a crash, or because the queue is full now."""
    bench.create("q", max_length=2)
    once = Once(b"key", b"body")
    sends = [lambda s: s.send("q", [b"1", b"2"], None, once)] * 4
    answers = bench.together(*sends)
    assert len({tuple(answer.numbers) for answer in answers}) == 1
    with pytest.raises(IdempotencyKeyReused):
        bench.send("q", b"3", once=Once(b"key", b"another body"))
    bench.crash()
    again = bench.send("q", b"1", b"2", once=once)
    assert list(again.numbers) == list(answers[0].numbers)
    assert bench.counts("q") == {"ready": 2}
    bench.receive("q", 2)
    bench.advance(DAY - 1)
    assert list(bench.send("q", b"1", b"2", once=once).numbers) == list(answers[0].numbers)
    bench.clock.advance(1)
    assert list(bench.send("q", b"1", b"2", once=once).numbers) != list(answers[0].numbers)


def test_a_refused_send_uses_no_key_up(bench: Bench) -> None:
    """Fails when an error is remembered as an answer."""
    bench.create("q", max_length=1)
    once = Once(b"key", b"body")
    with pytest.raises(QueueFull):
        bench.send("q", b"1", b"2", once=once)
    bench.update("q", max_length=2)
    assert len(bench.send("q", b"1", b"2", once=once).numbers) == 2


def test_who_waits_is_told_what_became_ready(bench: Bench) -> None:
    """Fails when a commit's news are lost, come for what is blocked or delayed, or lack the next due time."""
    bench.create("q")
    bench.changes.clear()
    bench.send("q", b"1", b"2")
    bench.send("q", b"3", delay=1_000)
    bench.send("q", b"4", group="g")
    bench.send("q", b"5", group="g")
    assert [change.ready for change in bench.changes if change.ready] == [{"q": 2}, {"q": 1}]
    assert bench.changes[-1].due in (None, bench.clock.now() + 1_000)
    assert any(change.due == bench.clock.now() + 1_000 for change in bench.changes)
    bench.changes.clear()
    bench.advance(1)
    assert [change.ready for change in bench.changes if change.ready] == [{"q": 1}]
    (one,) = bench.receive("q")
    assert bench.changes[-1].ended == [one.number]


def test_a_closed_store_refuses(bench: Bench) -> None:
    """Fails when a call after the end waits for ever."""
    bench.create("q")
    store = bench.store
    bench.reopen()

    async def late() -> None:
        await store.send("q", [b"1"])

    with pytest.raises(StoreUnavailable):
        bench.loop.run_until_complete(late())
