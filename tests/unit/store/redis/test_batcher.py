"""What becomes of calls when connections break, servers end and answers cannot be read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.harness import until
from tests.unit.store.redis.pair import Pair
from windlass.errors import OutcomeUnknown, StoreClosed
from windlass.store.redis.call import REGISTRY, Call, new_future
from windlass.store.redis.durability import Confirmation


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_what_comes_while_the_store_ends_is_answered(pair: Pair) -> None:
    """Fails when a call that another master sent on to one that has ended is waited for for ever."""
    pair.run(lambda: pair.one.queues())
    (batcher,) = pair.one._link._batchers.values()

    async def late() -> None:
        call = Call(new_future(), "version", REGISTRY, [], lambda reply: reply)
        await asyncio.to_thread(batcher.close)  # whoever sent it on had it in hand by then
        batcher.submit_from_thread(call)
        with pytest.raises(StoreClosed):
            await asyncio.wait_for(call.future, 30)

    pair.run(late)


def test_no_answer_counts_without_the_replicas_word(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks behind the answers, before WAIT's.

    Fails when a send is told as done that no replica has.
    """
    pair.create("q")
    batcher = next(iter(pair.one._link._batchers.values()))
    converse = batcher._converse

    def breaking(packed: list[bytes], amount: int) -> tuple[list[Any], Exception | None]:
        answers, broken = converse(packed, amount)
        return answers[:-1], broken or redis.ConnectionError("it broke")

    monkeypatch.setattr(pair.one._link, "_confirmation", Confirmation((("WAIT", 0, 1),), 0))
    monkeypatch.setattr(batcher, "_converse", breaking)
    with pytest.raises(OutcomeUnknown, match="broke before"):
        pair.send("q", b"1")


def test_who_looks_waits_for_no_replicas(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: nothing is seen while a replica is away, not even that one is. Planted: the same for whoever
    looks in the pipeline of one who sends."""
    pair.create("q")
    monkeypatch.setattr(pair.one._link, "_confirmation", Confirmation((("WAIT", 1, 1),), 1))

    async def both() -> tuple[Any, ...]:
        looks = pair.one.queue("q"), pair.one.totals()
        return await asyncio.gather(pair.one.send("q", [b"1"]), *looks, return_exceptions=True)

    assert pair.run(lambda: pair.one.peek("q", 1)) == []
    sent, info, (queues, _) = pair.run(both)
    assert isinstance(sent, OutcomeUnknown)
    assert info.name == "q"
    assert queues == 1
    assert pair.ready("q") == 1


def test_an_answer_that_cannot_be_read_may_have_been_done(pair: Pair) -> None:
    """Planted defect: whoever asked is told that nothing was done."""

    def decode(_: Any) -> Any:
        raise ValueError("planted")

    def ask() -> asyncio.Future[Any]:
        return pair.one._link.submit(Call(new_future(), "version", REGISTRY, [], decode))

    with pytest.raises(OutcomeUnknown, match="planted"):
        pair.run(ask)


def test_a_listener_outlives_what_comes_on_a_channel_it_let_go_of(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: a channel is looked up that is none of its own any more."""
    (listener,) = pair.one._news._listeners.values()
    told = threading.Event()
    monkeypatch.setattr(pair.one._news, "registry_changed", told)
    until(lambda: REGISTRY in listener._channels.values(), what="a listener")
    (channel,) = [name for name, number in listener._channels.items() if number == REGISTRY]
    del listener._channels[channel]
    listener.wanted.discard(REGISTRY)
    client = pair.one._link.topology.nodes()[0].client
    client.execute_command("SPUBLISH", channel, "1")  # type: ignore[no-untyped-call]
    listener.wanted.add(REGISTRY)
    until(told.is_set, what="a subscription anew")
    assert listener.is_alive()
