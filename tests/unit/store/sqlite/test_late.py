"""Late acknowledgements while upkeep is behind: leases that are over still stand in their rows."""

from __future__ import annotations

import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import sqlite_of
from windlass.message import Message, Settled, State

LEASE = 30_000


def behind(bench: Bench, amount: int = 1) -> list[Message]:
    """Messages whose leases are over, which upkeep will not have looked at."""
    messages = bench.receive("q", amount, LEASE)
    bench.clock.advance(LEASE / 1000)
    sqlite_of(bench)._writer.upkeep.put_off(bench.clock.now() + LEASE)
    return messages


@pytest.mark.parametrize("letter", [None, "letters"])
def test_a_last_lease_that_is_over_has_killed_its_message(bench: Bench, letter: str | None) -> None:
    """Planted: the message is ended, as if its lease went on."""
    bench.create("letters")
    bench.create("q", max_deliveries=1, dead_letter=letter)
    bench.send("q", b"1")
    (message,) = behind(bench)
    assert bench.acknowledge("q", message, message, late=True) == [Settled.STALE] * 2
    place = ("letters", State.READY) if letter else ("q", State.DEAD)
    assert bench.contents(*place) == [b"1"]
    assert bench.counts("q") == ({} if letter else {"dead": 1})


def test_leases_that_are_over_end_before_their_messages_do(bench: Bench) -> None:
    """Planted: they end as leased, and their past does not tell that they were late."""
    bench.create("q", history_seconds=600)
    bench.send("q", b"1", b"2", b"3", group="g")
    bench.send("q", b"4", b"5")
    messages = behind(bench, 3)
    late = messages[:2]
    assert bench.acknowledge("q", *late, *late, late=True) == [Settled.ACKNOWLEDGED] * 4
    assert bench.counts("q") == {"ready": 1, "leased": 1, "blocked": 1}
    for message in late:
        life = bench.find(message.number)
        assert life is not None
        assert [event["event"] for event in life.events[-2:]] == ["lease_expired", "acknowledged"]
    bench.advance(LEASE / 1000)
    assert [m.content for m in bench.receive("q", 5)] == [b"2", b"3", b"5"]
    assert bench.counts("q") == {}


def test_a_ttl_that_ended_with_the_lease_ends_its_message(bench: Bench) -> None:
    """Planted: it is looked for once more where it is not, or counted twice."""
    bench.create("q")
    bench.send("q", b"1", ttl=LEASE)
    (message,) = behind(bench)
    assert bench.acknowledge("q", message, message, late=True) == [Settled.GONE] * 2
    assert bench.counts("q") == {}
