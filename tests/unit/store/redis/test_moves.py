"""A move between two queues, cut in two, or looked at by one server while another finishes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.unit.store.redis.pair import Cut, Pair, interposed, raising
from windlass.errors import StoreFull, StoreUnavailable
from windlass.message import State
from windlass.store.redis import upkeep


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    made.create("letters", max_deliveries=1)
    made.create("work", max_deliveries=1, dead_letter="letters")
    yield made
    made.close()


@pytest.mark.parametrize("later", [0, 29, 31, 3_600])
def test_who_stood_still_brings_nothing_that_others_have_brought(pair: Pair, later: int) -> None:
    """A server looks at a move, stands still, and goes on when another has finished it.

    Planted defects: an arrival that is forgotten at once; one that is never too late.
    """
    work = pair.one.queue_number("work")
    pair.send("work", b"1")
    (message,) = pair.take("work", lease=60_000)
    with interposed(pair.one, raising("depart", Cut())), pytest.raises(Cut):
        pair.give_back("work", message)
    looked_at = pair.run(lambda: pair.other._link.ask("expire", work, []))[5]
    assert len(looked_at) == 1
    pair.run(lambda: pair.one._upkeep.move_on(work))
    assert [letter.content for letter in pair.take("letters")] == [b"1"]
    pair.clock.advance(later)
    pair.settle(pair.one)
    pair.run(lambda: pair.other._upkeep.move(work, looked_at))
    assert pair.ready("letters") == 0
    assert pair.run(lambda: pair.one.totals()) == (2, [0] * len(State))


def test_arrivals_are_known_for_a_while_only(pair: Pair) -> None:
    """Planted defect: what is remembered of arrivals stays."""
    letters = pair.one.queue_number("letters")
    pair.send("work", *[b"1"] * 5)
    for message in pair.take("work", 5, lease=60_000):
        pair.give_back("work", message)
    key = pair.one._link.key_of(letters)[0][:-1]
    client = pair.one._link.topology.nodes()[0].client
    assert (client.hlen(key + "w"), client.zcard(key + "wx")) == (0, 5)
    pair.clock.advance(120)
    pair.settle(pair.one)
    assert client.zcard(key + "wx") == 0


@pytest.mark.parametrize("verb", ["arrive", "depart", "forget"])
@pytest.mark.parametrize("done", [False, True])
def test_another_server_finishes_a_move_that_was_cut_in_two(pair: Pair, verb: str, done: bool) -> None:
    """Planted defects: what has left is due never; an arrival that is not known."""
    pair.send("work", b"1")
    (message,) = pair.take("work", lease=60_000)
    with interposed(pair.one, raising(verb, Cut(), done=done)), pytest.raises(Cut):
        pair.give_back("work", message)
    pair.settle(pair.other)
    assert (pair.ready("letters"), pair.ready("work")) == (1, 0)
    assert pair.run(lambda: pair.one.totals())[1] == [1, 0, 0, 0, 0]


def test_who_gives_back_is_not_told_of_a_move_that_failed(pair: Pair) -> None:
    """What was asked for is done, and the rest will be: "nothing was done" would be a lie.

    Fails when what goes wrong on the way to the dead-letter queue is told to whoever gave back.
    """
    pair.send("work", b"1")
    (message,) = pair.take("work", lease=60_000)
    with interposed(pair.one, raising("arrive", StoreFull("Nothing was done."))):
        pair.give_back("work", message)
    pair.settle(pair.other)
    assert pair.ready("letters") == 1


def test_a_redrive_tells_what_it_did_before_redis_went_away(pair: Pair) -> None:
    """Fails when a bite that fails makes undone of those before it."""
    pair.send("work", *[b"1"] * 100)
    for message in pair.take("work", 100, lease=60_000):
        pair.give_back("work", message)
    real = pair.one._link.submit
    bites = 0

    def breaking(call):  # type: ignore[no-untyped-def]
        nonlocal bites
        bites += call.verb == "redrive" and call.number == pair.one.queue_number("letters")
        if bites == 2:
            raise StoreUnavailable("Nothing was done.")
        return real(call)

    pair.one._link.submit = breaking  # type: ignore[method-assign]
    assert pair.run(lambda: pair.one.redrive("work", 100)) == (64, False)
    pair.one._link.submit = real  # type: ignore[method-assign]
    assert (pair.ready("work"), pair.ready("letters")) == (64, 36)


def test_what_comes_back_from_a_queue_that_is_gone_is_the_move_that_was_meant(pair: Pair) -> None:
    """Planted defect: a comeback that takes whatever move of that message is there."""
    work = pair.one.queue_number("work")
    pair.send("work", b"1")
    (message,) = pair.take("work", lease=60_000)
    with interposed(pair.one, raising("arrive", Cut())), pytest.raises(Cut):
        pair.give_back("work", message)
    pair.run(lambda: pair.one._link.ask("comeback", work, [str(message.number & (1 << 48) - 1), "another"]))
    pair.settle(pair.other)
    assert pair.ready("letters") == 1


def pointers(pair: Pair) -> dict[bytes, bytes]:
    """What leads from `work` to where its messages are now."""
    key = pair.one._link.key_of(pair.one.queue_number("work"))[0][:-1] + "away"
    found: dict[bytes, bytes] = pair.one._link.topology.nodes()[0].client.hgetall(key)  # type: ignore[assignment]
    return found


def give_up(pair: Pair, amount: int) -> list[int]:
    """Have so many messages moved to the dead-letter queue; their numbers."""
    numbers = pair.send("work", *[b"1"] * amount)
    for message in pair.take("work", amount, lease=60_000):
        pair.give_back("work", message)
    return numbers


@pytest.mark.parametrize("gone", ["purged", "deleted"])
def test_pointers_end_with_what_they_lead_to(pair: Pair, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody asks for those messages.

    Planted defects: the look through all queues passes pointers over; it looks into some, whatever they are.
    """
    monkeypatch.setattr(upkeep, "_POINTERS", 8)
    give_up(pair, 24)
    assert len(pointers(pair)) == 24
    if gone == "purged":
        pair.run(lambda: pair.one.purge("letters"))
        (lives,) = give_up(pair, 1)
    else:
        pair.run(lambda: pair.one.update_queue("work", {"dead_letter": None}))
        pair.run(lambda: pair.one.delete_queue("letters"))
    pair.clock.advance(61)
    pair.settle(pair.other)
    left = [str(lives & (1 << 48) - 1).encode()] if gone == "purged" else []
    assert list(pointers(pair)) == left


def test_a_look_takes_away_a_pointer_that_leads_nowhere(pair: Pair) -> None:
    """Planted defect: it is followed, and stays."""
    numbers = give_up(pair, 3)
    pair.run(lambda: pair.one.purge("letters"))
    for number in numbers[:2]:
        assert pair.run(lambda number=number: pair.other.find(number)) is None  # type: ignore[misc]
    pair.run(pair.other.ping)  # behind what nobody waits for
    assert len(pointers(pair)) == 1


def test_a_pointer_that_was_set_anew_stays(pair: Pair) -> None:
    """Who looked goes on when the message came home and was moved once more.

    Planted defects: all pointers to one queue are alike; who has seen that nothing is there does not look
    again.
    """
    (number,) = give_up(pair, 1)
    work, looked_at = pair.one.queue_number("work"), pointers(pair)

    def again() -> None:
        assert pair.run(lambda: pair.other.redrive("work", 1)) == (1, False)
        (message,) = pair.take("work", lease=60_000)
        pair.give_back("work", message)

    again()
    (pair_of,) = looked_at.items()
    pair.run(lambda: pair.one._link.ask("unpoint", work, pair_of))
    assert len(pointers(pair)) == 1
    real, came = pair.one._link.ask, False

    async def ask(verb: str, asked: int, args: Sequence[Any]) -> Any:
        nonlocal came
        if verb == "find" and asked != work and not came:  # it comes home just before this look
            came = True
            await pair.other.redrive("work", 1)
        return await real(verb, asked, args)

    pair.one._link.ask = ask  # type: ignore[assignment, method-assign]
    life = pair.run(lambda: pair.one.find(number))
    assert came
    assert life is not None
    assert life.in_queue == "work"


def test_what_is_on_its_way_is_found_where_it_arrives(pair: Pair) -> None:
    """A letter that goes on to the dead-letter queue of its dead-letter queue.

    Planted defect: who has finished the move looks only where it came from.
    """
    pair.create("last")
    pair.run(lambda: pair.one.update_queue("letters", {"dead_letter": "last"}))
    (number,) = give_up(pair, 1)
    (letter,) = pair.take("letters", lease=60_000)
    with interposed(pair.one, raising("arrive", StoreUnavailable("Nothing was done."))):
        pair.give_back("letters", letter)
    life = pair.run(lambda: pair.other.find(number))
    assert life is not None
    assert pair.ready("last") == 1


def test_what_has_not_arrived_is_not_lost(pair: Pair) -> None:
    """Planted defect: a pointer is taken away while what it leads to is on its way there."""
    with interposed(pair.one, raising("arrive", StoreUnavailable("Nothing was done."))):
        (number,) = give_up(pair, 1)
    pair.run(lambda: pair.other._upkeep._forget_pointers(pair.one.queue_number("work")))
    assert len(pointers(pair)) == 1
    pair.settle(pair.other)
    assert pair.ready("letters") == 1
    assert pair.run(lambda: pair.other.find(number)) is not None
