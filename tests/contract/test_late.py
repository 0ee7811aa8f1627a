"""Acknowledgements that may be late: they end a message after its lease, too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.bench import Bench
from windlass.message import Acknowledgement, Message, Settled, State

LEASE = 30_000

ACKNOWLEDGED, STALE, GONE = Settled.ACKNOWLEDGED, Settled.STALE, Settled.GONE


def lapsed(bench: Bench, queue: str = "q", amount: int = 1) -> list[Message]:
    """Messages that were received, and whose leases are over."""
    messages = bench.receive(queue, amount, LEASE, "a")
    assert len(messages) == amount
    bench.advance(LEASE / 1000)
    return messages


@pytest.mark.parametrize(
    "options", [{}, {"ttl": 90_000}, {"priority": 5}, {"group": "g"}, {"ttl": 90_000, "group": "g"}]
)
def test_a_late_one_ends_what_is_ready_again(bench: Bench, options: dict[str, Any]) -> None:
    """Planted: it stays in `ready`, in its group, in a count or in the queue; it is not among those that went
    out."""
    bench.create("q")
    bench.send("q", b"1", b"2", b"3", **options)
    grouped = "group" in options
    (message,) = lapsed(bench)
    assert bench.acknowledge("q", message) == [STALE]
    bench.changes.clear()
    rate = bench.info("q").out_rate
    assert bench.acknowledge("q", message, late=True) == [ACKNOWLEDGED]
    assert bench.info("q").out_rate > rate
    assert [number for change in bench.changes for number in change.ended] == [message.number]
    assert bench.acknowledge("q", message, late=True) == [GONE]
    assert bench.counts("q") == ({"ready": 1, "blocked": 1} if grouped else {"ready": 2})
    bench.crash()
    assert [m.content for m in bench.receive("q", 3)] == [b"2", b"3"]
    assert bench.counts("q") == {}


def test_a_late_one_ends_what_is_delayed(bench: Bench) -> None:
    """Planted: the end of the delay finds it still, or it stays counted as delayed."""
    bench.create("q")
    bench.send("q", b"1", b"2", group="g")
    (message,) = bench.receive("q", 1, LEASE)
    bench.release("q", message, 5_000)
    assert bench.acknowledge("q", message, late=True) == [ACKNOWLEDGED]
    assert bench.counts("q") == {"ready": 1}
    bench.advance(6)
    assert bench.contents("q") == [b"2"]


def test_a_late_one_ends_what_is_blocked(bench: Bench) -> None:
    """Planted: counted as ready; or whoever leads its group is taken for it."""
    bench.create("dead")
    for name in ("one", "two"):
        bench.create(name, max_deliveries=1, dead_letter="dead")
    bench.send("one", b"old", group="g")
    bench.send("two", b"young", group="g")
    (old,), (young,) = bench.receive("one", 1, LEASE), bench.receive("two", 1, LEASE)
    bench.release("two", young)
    (young,) = bench.receive("dead", 1, LEASE)
    bench.release("one", old)
    bench.release("dead", young)
    assert bench.counts("dead") == {"ready": 1, "blocked": 1}
    assert bench.acknowledge("dead", young, late=True) == [ACKNOWLEDGED]
    assert bench.counts("dead") == {"ready": 1}
    assert bench.contents("dead") == [b"old"]


def test_a_late_one_goes_by_the_latest_delivery(bench: Bench) -> None:
    """Planted: any delivery ends it; a named holder is taken for its delivery."""
    bench.create("q")
    bench.send("q", b"1")
    (first,) = lapsed(bench)
    held = Acknowledgement(first.number, first.delivery, holder="a", late=True)
    assert bench.run(lambda s: s.acknowledge("q", [held])) == [STALE]
    (second,) = bench.receive("q", 1, LEASE)
    assert bench.acknowledge("q", first, late=True) == [STALE]
    bench.advance(LEASE / 1000)
    assert bench.acknowledge("q", first, second, second, late=True) == [STALE, ACKNOWLEDGED, GONE]
    never = bench.send("q", b"2", delay=5_000).numbers[0]
    assert bench.run(lambda s: s.acknowledge("q", [Acknowledgement(never, 1, late=True)])) == [STALE]


@pytest.mark.parametrize("letter", [None, "letters"])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_late_one_leaves_what_died_of_its_lease(bench: Bench, letter: str | None, noticed: bool) -> None:
    """Planted: what is dead, or a dead letter, is ended; or the lease's end is not looked at first."""
    bench.create("letters")
    bench.create("q", max_deliveries=1, dead_letter=letter)
    bench.send("q", b"1")
    (message,) = bench.receive("q", 1, LEASE)
    bench.clock.advance(LEASE / 1000)
    if noticed:
        bench.settle()
    assert bench.acknowledge("q", message, message, late=True) == [STALE, STALE]
    if letter is None:
        assert bench.contents("q", State.DEAD) == [b"1"]
    else:
        assert bench.acknowledge("letters", message) == [STALE]
        assert bench.contents("letters") == [b"1"]
    assert bench.counts("q") == ({"dead": 1} if letter is None else {})


def test_a_late_one_finds_no_more_what_its_ttl_has_ended(bench: Bench) -> None:
    """Planted: what ended in the same commit is ended once more, or ends as acknowledged."""
    bench.create("q", history_seconds=600)
    bench.send("q", b"1", ttl=20_000)
    (message,) = bench.receive("q", 1, LEASE)
    bench.clock.advance(LEASE / 1000)
    assert bench.acknowledge("q", message, message, late=True) == [GONE, GONE]
    assert bench.counts("q") == {}
    life = bench.find(message.number)
    assert life is not None
    assert life.state == "expired"
    bench.send("q", b"2", ttl=20_000)
    assert bench.contents("q") == [b"2"]


def test_a_late_one_is_on_record_as_any(bench: Bench) -> None:
    """Planted: its past, its outcome or that somebody has to be told is lost; a repeat is not known,
    in the same call or later."""
    bench.create("q", history_seconds=60)
    sent = bench.send("q", b"1", dedup_id="d", priority=3)
    (message,) = lapsed(bench)
    ack = Acknowledgement(message.number, message.delivery, b'"done"', tell=True, late=True)
    again = Acknowledgement(message.number, message.delivery)
    assert bench.run(lambda s: s.acknowledge("q", [ack, again])) == [ACKNOWLEDGED] * 2
    for late in (False, True):
        assert bench.acknowledge("q", message, late=late) == [ACKNOWLEDGED]
    (end,) = bench.run(lambda s: s.untold())
    assert (end.number, end.outcome) == (message.number, b'"done"')
    life = end.life
    assert [event["event"] for event in life.events] == ["sent", "leased", "lease_expired", "acknowledged"]
    assert (life.state, life.message.deliveries, life.message.priority) == ("acknowledged", 1, 3)
    repeated = bench.send("q", b"1", dedup_id="d")
    assert (repeated.numbers, repeated.duplicates) == (sent.numbers, [True])


def test_late_ones_go_with_others(bench: Bench) -> None:
    """Planted: what one did in the same commit is not seen by the next; one that is in time is refused."""
    bench.create("q")
    bench.send("q", b"0", b"1", group="g")
    bench.send("q", *[b"%d" % n for n in range(2, 8)])
    late = lapsed(bench, amount=7)
    held = bench.receive("q", 3, LEASE)
    assert [m.content for m in held] == [b"0", b"2", b"3"]
    order = [held[0], late[0], late[2], held[1], late[3], late[4], late[3]]
    expected = [ACKNOWLEDGED, GONE, STALE, ACKNOWLEDGED, ACKNOWLEDGED, ACKNOWLEDGED, GONE]
    acks = [Acknowledgement(m.number, m.delivery, late=True) for m in order]
    together = bench.together(
        lambda s: s.acknowledge("q", acks),
        lambda s: s.acknowledge("q", acks[-1:]),
        lambda s: s.send("q", [b"8"]),
        lambda s: s.receive("q", 9),
    )
    assert together[:2] == [expected, [GONE]]
    assert [m.content for m in together[3]] == [b"1", b"6", b"7", b"8"]
    assert bench.counts("q") == {"leased": 1}
