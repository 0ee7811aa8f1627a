"""Queues and runners, as two servers change them at the same time or one of them ends half-way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.unit.store.redis.pair import Ask, Cut, Pair, interposed, raising
from windlass.errors import Conflict, Invalid, OutcomeUnknown, QueueInUse, QueueNotFound, StoreUnavailable
from windlass.message import Options
from windlass.store.base import Runner
from windlass.store.redis import reading
from windlass.store.redis.call import REGISTRY


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


AWAY = StoreUnavailable("Nothing was done.")


def test_a_queue_that_nobody_finds_is_deleted(pair: Pair) -> None:
    """Fails when who deletes is told that nothing was done, though only the rest of it was not."""
    number = pair.create("q")
    with interposed(pair.one, raising("destroy", AWAY)):
        pair.run(lambda: pair.one.delete_queue("q"))
    client = pair.one._link.topology.nodes()[0].client
    assert client.exists(pair.one._link.key_of(number)[0])
    pair.clock.advance(120)
    pair.settle(pair.other)
    assert not client.exists(pair.one._link.key_of(number)[0])


def test_what_cannot_be_read_behind_a_change_may_have_been_done(pair: Pair) -> None:
    """Fails when a change that is made is told as not made."""
    pair.create("q")
    for change in (
        lambda: pair.one.create_queue("new", {}),
        lambda: pair.one.update_queue("q", {"lease_seconds": 7}),
    ):
        behind = False

        def make(ask: Ask) -> Ask:
            async def asked(verb: str, number: int, args: Sequence[Any]) -> Any:
                nonlocal behind
                if behind:
                    raise AWAY
                behind = verb == "register" or (verb == "configure" and bool(args[0]))
                return await ask(verb, number, args)

            return asked

        with interposed(pair.one, make), pytest.raises(OutcomeUnknown):
            pair.run(change)
    assert pair.run(lambda: pair.other.queue("new")).name == "new"
    assert pair.run(lambda: pair.other.queue("q")).settings.lease_seconds == 7


def test_a_change_of_settings_does_not_undo_a_pause(pair: Pair) -> None:
    """Planted defect: who changes a setting writes whether it is paused as it was when it looked."""
    pair.create("q")

    def make(ask: Ask) -> Ask:
        async def asked(verb: str, number: int, args: Sequence[Any]) -> Any:
            if verb == "configure":
                await pair.other.update_queue("q", {}, paused=True)
            return await ask(verb, number, args)

        return asked

    with interposed(pair.one, make):
        changed = pair.run(lambda: pair.one.update_queue("q", {"lease_seconds": 7}))
    assert (changed.paused, changed.settings.lease_seconds) == (True, 7)


def test_a_dead_letter_queue_that_is_made_anew_meanwhile_is_the_one(pair: Pair) -> None:
    """Planted defect: its number is that of when it was looked up."""
    pair.create("letters")
    pair.create("work", max_deliveries=1)

    def make(ask: Ask) -> Ask:
        async def asked(verb: str, number: int, args: Sequence[Any]) -> Any:
            if verb == "readdress":
                await pair.other.delete_queue("letters")
                await pair.other.create_queue("letters", {})
            return await ask(verb, number, args)

        return asked

    with interposed(pair.one, make):
        pair.run(lambda: pair.one.update_queue("work", {"dead_letter": "letters"}))
    pair.send("work", b"1")
    (message,) = pair.take("work", lease=60_000)
    pair.give_back("work", message)
    assert pair.ready("letters") == 1


def test_a_change_on_condition_that_comes_too_late_leaves_nothing(pair: Pair) -> None:
    """Planted defect: the dead-letter queue that a refused change names stays noted as one in use."""
    for name in ("letters", "refused"):
        pair.create(name)
    pair.create("q", dead_letter="letters", max_deliveries=1)
    was = pair.run(lambda: pair.one.queue("q")).settings

    def make(ask: Ask) -> Ask:
        async def asked(verb: str, number: int, args: Sequence[Any]) -> Any:
            if verb == "configure":
                await pair.other.update_queue("q", {"lease_seconds": 7})
            return await ask(verb, number, args)

        return asked

    with interposed(pair.one, make), pytest.raises(Conflict):
        pair.run(lambda: pair.one.update_queue("q", {"dead_letter": "refused"}, was=was))
    assert pair.run(lambda: pair.one.queue("q")).settings.dead_letter == "letters"
    with pytest.raises(QueueInUse):
        pair.run(lambda: pair.one.delete_queue("letters"))
    pair.run(lambda: pair.one.delete_queue("refused"))


def test_nothing_is_sent_to_a_queue_whose_name_is_anothers(pair: Pair) -> None:
    """One who was not told yet that a queue was deleted, half-way, and made anew under its name.

    Fails when a message is taken into the former one, which is taken away later.
    """
    former = pair.create("q")
    with interposed(pair.one, raising("destroy", AWAY)):
        pair.run(lambda: pair.one.delete_queue("q"))
    pair.run(lambda: pair.one.create_queue("q", {}))
    assert pair.one.queue_number("q") != former
    with pytest.raises(QueueNotFound):
        pair.run(lambda: pair.other._link.ask("stats", former, []))


def test_a_runner_that_was_removed_stays_so(pair: Pair) -> None:
    """Planted defect: who notes that it was seen puts it on record again."""
    runner = Runner(0, "r", b"d" * 32, (), (), 0, 0)
    number = pair.run(lambda: pair.one.add_runner(runner)).number
    pair.run(pair.other.refresh)
    known = pair.other._memory.runners[number]
    pair.run(lambda: pair.one.remove_runner(number))
    pair.other._memory.runners[number] = known  # it was not told yet
    pair.run(lambda: pair.other.seen_runner(number, 5))
    assert pair.run(lambda: pair.one.runner(number)) is None


def test_what_is_due_is_not_put_off_by_who_stood_still(pair: Pair) -> None:
    """Planted defect: how often a queue was noted is counted from 1 again once nothing was due."""

    def ask(verb: str, *args: Any) -> Any:
        return pair.run(lambda: pair.one._link.ask(verb, REGISTRY, args))

    now = pair.clock.now()
    ask("note_due", 7, now)
    _, (noted,), *_ = ask("claim_due", 1, 5_000)
    pair.clock.advance(6)
    _, (again,), *_ = ask("claim_due", 1, 5_000)
    ask("set_due", 7, again, "")
    ask("note_due", 7, now + 9_000)
    ask("set_due", 7, noted, "")
    assert int(ask("set_due")) == now + 9_000


def test_of_deleted_queues_nothing_is_left(pair: Pair) -> None:
    """Planted defect: how often something was due in it stays."""
    before = set(pair.one._link.topology.nodes()[0].client.scan_iter())
    number = pair.create("q")
    pair.send("q", b"1")
    pair.take("q", lease=60_000)
    pair.run(lambda: pair.one.delete_queue("q"))
    client = pair.one._link.topology.nodes()[0].client
    assert not client.hexists(pair.one._link.key_of(REGISTRY)[0][:-1] + "duev", str(number))
    assert set(client.scan_iter()) == before


def test_all_queues_are_counted_together(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: each queue is asked for itself; one that is being deleted is counted; one on its way
    between two queues is not.
    """
    monkeypatch.setattr(reading, "_COUNTED", 4)
    numbers = [pair.create(f"q{n}") for n in range(9)]
    pair.create("work", max_deliveries=1, dead_letter="q0")
    pair.create("alone", max_deliveries=1)
    pair.send("q1", b"1", b"2")
    pair.run(lambda: pair.one.send("q2", [b"1"] * 3, [Options(group="g")] * 3))
    pair.run(lambda: pair.one.send("q3", [b"1"], [Options(delay=9_000)]))
    for name in ("alone", "work"):
        pair.send(name, b"1", b"2")
        first, _ = pair.take(name, 2, lease=60_000)
        with interposed(pair.one, raising("arrive", AWAY)):
            pair.give_back(name, first)
    pair.run(lambda: pair.one._link.ask("destroy", numbers[8], []))
    real, asked = pair.one._link.ask, []

    async def ask(verb: str, number: int, args: Sequence[Any]) -> Any:
        asked.append(verb)
        return await real(verb, number, args)

    pair.one._link.ask = ask  # type: ignore[method-assign]
    assert pair.run(pair.one.totals) == (10, [3, 2, 1, 2, 2])
    assert asked == ["counts"] * 3


def keys_of(pair: Pair) -> set[bytes]:
    return set(pair.one._link.topology.nodes()[0].client.scan_iter())


@pytest.mark.parametrize(("verb", "done"), [("make", True), ("configure", True), ("register", False)])
def test_of_a_queue_that_was_never_made_nothing_is_left(pair: Pair, verb: str, done: bool) -> None:
    """Its server ends half-way. Planted defect: no other server takes it away."""
    pair.create("there")
    before = keys_of(pair)
    with interposed(pair.one, raising(verb, Cut(), done=done)), pytest.raises(Cut):
        pair.run(lambda: pair.one.create_queue("q", {}))
    assert keys_of(pair) != before
    pair.clock.advance(59)
    pair.settle(pair.other)
    pair.clock.advance(61)
    pair.settle(pair.other)
    assert keys_of(pair) == before
    assert pair.run(lambda: pair.other.queues())[0].name == "there"


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("refused", ["taken", "letterless"])
def test_of_a_queue_that_was_refused_at_last_nothing_is_left(pair: Pair, refused: str, ends: bool) -> None:
    """Also where its server ends before it took its keys away.

    Planted defects: one that is refused counts as made; one that was taken away counts as being made.
    """
    pair.create("letters")

    def make(ask: Ask) -> Ask:
        async def asked(verb: str, number: int, args: Sequence[Any]) -> Any:
            if verb == "register":
                if refused == "taken":
                    await pair.other.create_queue("q", {})
                else:
                    await pair.other.delete_queue("letters")
            if verb == "destroy" and ends:
                raise Cut
            return await ask(verb, number, args)

        return asked

    named = {} if refused == "taken" else {"dead_letter": "letters", "max_deliveries": 1}
    with interposed(pair.one, make), contextlib.suppress(Cut, Invalid):
        pair.run(lambda: pair.one.create_queue("q", named))
    if ends:
        pair.clock.advance(61)
        pair.settle(pair.other)
    left = {info.name for info in pair.run(lambda: pair.other.queues())}
    assert left == ({"letters", "q"} if refused == "taken" else set())
    numbers = {key.split(b"{")[1].split(b"}")[0] for key in keys_of(pair)}
    assert numbers - {b"r"} == {str(pair.other.queue_number(name)).encode() for name in left}
    assert not any(key.endswith(b"{r}:made") for key in keys_of(pair))


def test_who_stood_still_while_it_made_a_queue_begins_anew(pair: Pair) -> None:
    """Planted defect: a queue is registered whose keys others took away."""
    stood = False

    def make(ask: Ask) -> Ask:
        async def asked(verb: str, number: int, args: Sequence[Any]) -> Any:
            nonlocal stood
            if verb == "register" and not stood:
                stood = True
                pair.clock.advance(61)
                await pair.other.expire()
            return await ask(verb, number, args)

        return asked

    with interposed(pair.one, make):
        info, new = pair.run(lambda: pair.one.create_queue("q", {"lease_seconds": 7}))
    assert (new, info.settings.lease_seconds) == (True, 7)
    assert pair.run(lambda: pair.other.queue("q")) == info


def test_a_message_is_found_in_a_queue_that_nobody_told_of(pair: Pair) -> None:
    """Planted defect: it is found in a queue without a name."""
    pair.other._watch.stop()
    pair.other._news.close()
    pair.run(lambda: pair.one.create_queue("q", {}))
    (number,) = pair.send("q", b"1")
    life = pair.run(lambda: pair.other.find(number))
    assert life is not None
    assert life.in_queue == "q"
