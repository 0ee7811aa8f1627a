"""Long polls on one server of a shared store, and what happens on another: with its word, and without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.contract.http.served import settled
from tests.contract.servers import Several, Yards
from windlass.errors import QueueNotFound
from windlass.message import Acknowledgement, Message, Options
from windlass.queues import pulse


@pytest.fixture(params=["told", "silent"])
def yards(
    request: pytest.FixtureRequest, several: Several, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Yards]:
    """With a queue, `q`. Servers that hear of each other and never look, or else the other way round."""
    if request.param == "told":
        monkeypatch.setattr(pulse, "EVERY", 3600.0)
    several.silent = request.param == "silent"
    made = Yards(several)
    made.a.bench.create("q")
    made.run(*[yard.bench.store.learn("q") for yard in made.all])
    yield made
    made.close()


def waiting(yards: Yards, count: int = 1) -> list[asyncio.Task[list[Message]]]:
    """Receives on `a` that wait, in order."""
    queues = yards.a.queues
    return [asyncio.ensure_future(queues.receive("q", 1, -1, 3600, f"w{n}", None)) for n in range(count)]


async def idle(yards: Yards, count: int = 1) -> None:
    lines = yards.a.queues.lines
    await settled(lambda: lines.waiting("q") == count and lines.idle("q"))


def test_a_receive_gets_what_another_server_takes_in(yards: Yards) -> None:
    """Planted defects: who waits is told by this process alone; without a word, nobody looks."""

    async def scenario() -> None:
        receives = waiting(yards, 3)
        await idle(yards, 3)
        sent = await yards.b.bench.store.send("q", [b"1", b"2", b"3"])
        got = [await receive for receive in receives]
        assert sorted(message.number for (message,) in got) == list(sent.numbers)

    yards.run(scenario())


def test_a_receive_gets_what_falls_due_of_a_server_that_is_gone(yards: Yards) -> None:
    """Planted defect: the reaper rests until what this process knows of is due."""

    async def scenario() -> None:
        (receive,) = waiting(yards)
        await idle(yards)
        await yards.b.bench.store.send("q", [b"1"], [Options(delay=5_000)])
        await yards.b.queues.stop()
        yards.several.clock.advance(6)
        assert [message.content for message in await receive] == [b"1"]

    yards.run(scenario())


@pytest.mark.parametrize("yards", ["silent"], indirect=True)
def test_a_receive_is_let_go_when_another_server_deletes_its_queue(yards: Yards) -> None:
    """Planted defect: a look at a queue that is gone wakes nobody."""

    async def scenario() -> None:
        (receive,) = waiting(yards)
        await idle(yards)
        await yards.b.bench.store.delete_queue("q")
        with pytest.raises(QueueNotFound):
            await receive

    yards.run(scenario())


@pytest.mark.parametrize("yards", ["silent"], indirect=True)
def test_a_paused_queue_is_not_tried_for_and_its_end_is_seen(yards: Yards) -> None:
    """Planted defect: whoever waits tries every second for what a pause keeps back."""
    store = yards.a.bench.store

    async def scenario() -> None:
        await yards.b.bench.store.send("q", [b"1"])
        await yards.b.bench.store.update_queue("q", {}, paused=True)
        (receive,) = waiting(yards)
        await idle(yards)
        before = store.calls["receive"]
        await settled(lambda: store.calls["queue"] >= 2)
        assert store.calls["receive"] == before
        await yards.b.bench.store.update_queue("q", {}, paused=False)
        assert [message.content for message in await receive] == [b"1"]

    yards.run(scenario())


@pytest.mark.parametrize("yards", ["silent"], indirect=True)
def test_one_look_serves_all_who_wait(yards: Yards) -> None:
    """Planted defects: each waiter looks; an empty queue is tried for."""
    store = yards.a.bench.store

    async def scenario() -> None:
        receives = waiting(yards, 100)
        await idle(yards, 100)
        tried = store.calls["receive"]
        expired = store.calls["expire"]
        await settled(lambda: store.calls["expire"] >= expired + 3)  # each second, about
        assert 1 <= store.calls["queue"] <= 6
        assert store.calls["receive"] == tried
        yards.a.queues.release_waiters()
        await asyncio.gather(*receives)

    yards.run(scenario())


def test_who_waits_for_a_message_is_told_that_it_ended_elsewhere(yards: Yards) -> None:
    """Planted defects: only what this process did is an end; without a word, nobody looks."""

    async def scenario() -> None:
        await yards.b.bench.store.update_queue("q", {"history_seconds": 60})
        (number,) = (await yards.b.bench.store.send("q", [b"1"])).numbers
        life = asyncio.ensure_future(yards.a.queues.life(number, 3600))
        await settled(lambda: len(yards.a.queues.ends) == 1)
        await settled(lambda: yards.several.silent or yards.several.listens("q"))
        (message,) = await yards.b.bench.store.receive("q", 1, -1)
        await yards.b.bench.store.acknowledge("q", [Acknowledgement(number, message.delivery)])
        assert (await life).state == "acknowledged"

    yards.run(scenario())
