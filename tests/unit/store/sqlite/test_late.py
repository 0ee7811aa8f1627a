"""Late acknowledgements: what they leave in the tables; and while upkeep is behind, so that leases that are
over still stand in their rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.unit.store.sqlite.steps import sqlite_of
from windlass.message import Message, Settled, State
from windlass.store.sqlite import settling, upkeep

LEASE = 30_000


def behind(bench: Bench, amount: int = 1) -> list[Message]:
    """Messages whose leases are over, which upkeep will not have looked at."""
    messages = bench.receive("q", amount, LEASE)
    bench.clock.advance(LEASE / 1000)
    sqlite_of(bench)._writer.upkeep.put_off(bench.clock.now() + LEASE)
    return messages


@pytest.mark.parametrize("options", [{}, {"ttl": 900_000}, {"group": "g"}])
def test_nothing_is_left_in_any_table(bench: Bench, options: dict[str, Any]) -> None:
    """Planted: a row in `ready` or `fleeting`, which nobody sees and nothing ever takes away."""
    bench.create("q")
    bench.send("q", b"1", **options)
    (message,) = bench.receive("q", 1, LEASE)
    bench.advance(LEASE / 1000)
    assert bench.acknowledge("q", message, late=True) == [Settled.ACKNOWLEDGED]
    db = sqlite_of(bench)._db
    tables = ("messages", "deliveries", "ready", "fleeting", "fleeting_blocks", "grouped")
    assert {name for name in tables if next(db.execute(f"SELECT count(*) FROM {name}"))[0]} == set()


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


def test_what_upkeep_ends_in_the_same_commit_has_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step that is cut short, some may not be written yet. Planted: looking only at what is."""
    ended: list[int] = []

    def end(*args: Any) -> None:
        settling.end_delivery(*args)
        ended.append(1)

    bench.create("q")
    bench.send("q", b"1", ttl=LEASE)
    (message,) = bench.receive("q", 1, LEASE)
    monkeypatch.setattr(upkeep, "end_delivery", end)
    monkeypatch.setattr(upkeep.Watch, "over", property(lambda _: bool(ended)))
    bench.clock.advance(LEASE / 1000)
    assert bench.acknowledge("q", message, late=True) == [Settled.GONE]
    assert ended == [1]
    assert bench.counts("q") == {}
