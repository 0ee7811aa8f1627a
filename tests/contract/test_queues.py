"""Queues themselves, and what people do with them: settings, purge, dead letters, redrive, lives, keys."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.bench import Bench
from windlass.errors import (
    Invalid,
    MessageGone,
    MessageLeased,
    QueueExists,
    QueueInUse,
    QueueNotFound,
    ReceiptGone,
)
from windlass.message import Acknowledgement, Options, Settled, State
from windlass.store import Key


def test_creating_again_compares_only_what_is_named(bench: Bench) -> None:
    """Fails when a repeat changes a setting, or is refused for one that it does not name."""
    info, new = bench.run(lambda s: s.create_queue("q", {"lease_seconds": 5, "max_length": 9}))
    assert (new, info.settings.lease_seconds, info.created_at) == (True, 5, bench.clock.now())
    again, new = bench.run(lambda s: s.create_queue("q", {"max_length": 9}))
    assert (new, again) == (False, info)
    with pytest.raises(QueueExists) as refused:
        bench.create("q", lease_seconds=6)
    assert refused.value.field == "lease_seconds"
    bench.reopen()
    assert bench.info("q") == info


def test_what_changes_a_queue_is_seen_by_the_same_commit(bench: Bench) -> None:
    """Fails when what follows a purge or a deletion in its commit still meets the old queue.

    The planted defects: a message sent behind a purge is lost and counted for ever; of two changes of
    settings only the last takes effect; a queue is deleted while another names it.
    """
    bench.create("q")
    bench.send("q", b"old")
    results = bench.together(
        lambda s: s.purge("q"),
        lambda s: s.send("q", [b"new"]),
        lambda s: s.purge("q"),
        lambda s: s.send("q", [b"newer"]),
        lambda s: s.update_queue("q", {"lease_seconds": 1}),
        lambda s: s.update_queue("q", {"max_length": 7}),
        lambda s: s.create_queue("dead", {}),
        lambda s: s.create_queue("dead", {}),
        lambda s: s.update_queue("q", {"dead_letter": "dead"}),
        lambda s: s.delete_queue("dead"),
        lambda s: s.create_queue("gone", {}),
        lambda s: s.delete_queue("gone"),
        lambda s: s.send("gone", [b"x"]),
    )
    assert (results[0], results[2]) == (1, 1)
    assert [results[6][1], results[7][1]] == [True, False]
    assert isinstance(results[9], QueueInUse)
    assert isinstance(results[12], QueueNotFound)
    assert bench.contents("q") == [b"newer"]
    assert bench.counts("q") == {"ready": 1}
    settings = bench.info("q").settings
    assert (settings.lease_seconds, settings.max_length, settings.dead_letter) == (1, 7, "dead")
    bench.crash()
    assert bench.contents("q") == [b"newer"]
    assert bench.totals() == (2, [1, 0, 0, 0, 0])


def test_queues_are_listed_by_prefix_in_pages(bench: Bench) -> None:
    """Fails when a page skips or repeats a queue, or shows one without the prefix."""
    for name in ("b", "a.2", "a", "a.1", "a.3", "c"):
        bench.create(name)

    def names(**asked: Any) -> list[str]:
        return [info.name for info in bench.run(lambda s: s.queues(**asked))]

    assert names() == ["a", "a.1", "a.2", "a.3", "b", "c"]
    assert names(prefix="a.", limit=2) == ["a.1", "a.2"]
    assert names(prefix="a.", after="a.2", limit=2) == ["a.3"]
    assert names(prefix="d") == []
    bench.delete("a.2")
    assert names(prefix="a") == ["a", "a.1", "a.3"]
    with pytest.raises(QueueNotFound):
        bench.info("a.2")


def test_a_dead_letter_must_be_another_queue_that_is_there(bench: Bench) -> None:
    """Fails when letters could have nowhere to go."""
    bench.create("q")
    for target in ("q", "nowhere"):
        with pytest.raises(Invalid) as refused:
            bench.update("q", dead_letter=target)
        assert refused.value.field == "dead_letter"
    bench.create("dead")
    bench.update("q", dead_letter="dead", max_deliveries=1)
    with pytest.raises(QueueInUse):
        bench.delete("dead")
    bench.update("q", dead_letter=None)
    bench.delete("dead")


def test_a_purge_ends_everything_leased_ones_too(bench: Bench) -> None:
    """Fails when a purged message comes back: from its lease, its delay, its group, a crash or upkeep."""
    bench.create("q", max_deliveries=1)
    bench.create("other")
    bench.send("other", b"stays")
    bench.send("q", *[b"%d" % n for n in range(20)])
    bench.send("q", b"d", delay=1_000, group="d")
    bench.send_each("q", [Options(group="g")] * 3 + [Options(ttl=2_000)] * 3)
    leased, dying, grouped = bench.receive("q", 3, 1_000)[:3]
    bench.release("q", dying)
    everything = sum(bench.counts("q").values())
    assert bench.purge("q") == everything == 27
    assert bench.counts("q") == {}
    bench.send("q", b"new", group="g")
    assert bench.acknowledge("q", leased) == [Settled.GONE]
    with pytest.raises(ReceiptGone):
        bench.extend("q", grouped, 5_000)
    bench.crash()
    bench.advance(60)
    assert bench.counts("q") == {"ready": 1}
    assert bench.contents("q") == [b"new"]
    assert bench.find(leased.number) is None
    assert bench.purge("q") == 1
    assert bench.purge("q") == 0
    assert bench.contents("other") == [b"stays"]


def test_a_queue_made_again_is_empty(bench: Bench) -> None:
    """Fails when a new queue of an old name inherits messages, dedup ids or its number."""
    bench.create("q")
    number = bench.store.queue_number("q")
    bench.send("q", b"1", b"2", dedup_id="x")
    (leased,) = bench.receive("q", 1, 1_000)
    bench.delete("q")
    with pytest.raises(QueueNotFound):
        bench.send("q", b"3")
    assert not bench.store.has_queue_number(number)
    bench.create("q")
    assert bench.store.queue_number("q") != number
    assert bench.acknowledge("q", leased) == [Settled.GONE]
    assert bench.send("q", b"4", dedup_id="x").duplicates is None
    bench.advance(10)
    bench.crash()
    assert bench.contents("q") == [b"4"]
    assert bench.totals() == (1, [1, 0, 0, 0, 0])


def test_after_its_last_delivery_a_message_is_dead_or_a_letter(bench: Bench) -> None:
    """Fails when a delivery too many is made, or a letter loses its id, its group's order or its past."""
    bench.create("dead")
    bench.create("kept", max_deliveries=2)
    bench.create("sent", max_deliveries=2, dead_letter="dead")
    for queue in ("kept", "sent"):
        bench.send(queue, b"1", ttl=60_000)
        (message,) = bench.receive(queue, 1, 1_000)
        bench.advance(1)
        (message,) = bench.receive(queue, 1, 1_000)
        bench.release(queue, message, 5_000)
        assert bench.receive(queue) == []
    assert bench.counts("kept") == {"dead": 1}
    assert bench.contents("kept", State.DEAD) == [b"1"]
    assert bench.counts("dead") == {"ready": 1}
    bench.advance(100)  # a letter outlives its ttl
    home = bench.store.queue_number("sent")
    (letter,) = bench.receive("dead", 1, 1_000)
    assert (letter.number, letter.queue, letter.deliveries) == (message.number, home, 3)
    life = bench.find(letter.number)
    assert life is not None
    assert life.in_queue == "dead"
    died = next(event for event in life.events if event["event"] == "dead")
    assert (died["reason"], died["from"], died["to"]) == ("max_deliveries", "sent", "dead")


def test_redrive_brings_back_from_all_three_sides(bench: Bench) -> None:
    """Fails when a redriven message has another id, an old number, or deliveries already used up."""
    bench.create("dead", max_deliveries=1)
    for name in ("a", "b"):
        bench.create(name, max_deliveries=1, dead_letter="dead")
        bench.send(name, b"1", b"2", b"3")
        for message in bench.receive(name, 3, 1_000):
            bench.release(name, message)
    assert bench.counts("dead") == {"ready": 6}
    assert bench.redrive("a", 2) == (2, False)  # from its dead-letter queue
    assert bench.redrive("a", 100) == (1, True)
    assert bench.contents("a") == [b"1", b"2", b"3"]
    (first,) = bench.receive("dead", 1, 1_000)
    bench.release("dead", first)
    assert bench.counts("dead") == {"ready": 2, "dead": 1}
    bench.send("b", b"4")
    assert bench.redrive("dead") == (3, True)  # its own dead, then all letters to where they came from
    assert bench.counts("dead") == {}
    assert [m.content for m in bench.receive("b", 9, 1_000)] == [b"4", b"1", b"2", b"3"]
    messages = bench.receive("a", 9, 1_000)
    assert [m.deliveries for m in messages] == [1, 1, 1]
    assert [m.delivery for m in messages] == [2, 2, 2]  # the fence is never taken down


def test_a_redrive_of_more_than_one_bite(bench: Bench) -> None:
    """Fails when a redrive ends with its first transaction."""
    bench.create("q", max_deliveries=1)
    bench.send("q", *[b"%d" % n for n in range(200)])
    bench.receive("q", 200, 1_000)
    bench.advance(1)
    assert bench.counts("q") == {"dead": 200}
    assert bench.redrive("q") == (200, True)
    assert bench.contents("q") == [b"%d" % n for n in range(200)]


def test_cancelling(bench: Bench) -> None:
    """Fails when a leased message is cancelled under its holder, or one of another queue."""
    bench.create("q")
    bench.create("other")
    numbers = bench.send("q", b"1", b"2").numbers
    delayed = bench.send("q", b"3", delay=1_000).numbers[0]
    bench.receive("q", 1, 1_000)
    with pytest.raises(MessageLeased):
        bench.cancel("q", numbers[0])
    with pytest.raises(MessageGone):
        bench.cancel("other", numbers[1])
    bench.cancel("q", numbers[1])
    bench.cancel("q", delayed)
    with pytest.raises(MessageGone):
        bench.cancel("q", delayed)
    assert bench.counts("q") == {"leased": 1}
    assert [changes.ended for changes in bench.changes if changes.ended][-1] == [delayed]


def test_an_outcome_is_kept_for_its_time(bench: Bench) -> None:
    """Fails when an outcome is lost with a restart, kept too long, or kept where none was given."""
    bench.create("q", outcome_ttl_seconds=20)
    bench.send("q", b"1", b"2", group="g", headers=b'{"a":"b"}')
    (one,) = bench.receive("q", 1, 5_000, "me")
    bench.acknowledge("q", one, outcome=b'{"ok":1e400}')
    (two,) = bench.receive("q", 1, 5_000)
    bench.acknowledge("q", two)
    bench.crash()
    life = bench.find(one.number)
    assert life is not None
    assert (life.state, life.outcome, life.ended_at) == (
        "acknowledged",
        b'{"ok":1e400}',
        bench.clock.now(),
    )
    assert (life.message.group, life.message.headers, life.message.deliveries) == ("g", b'{"a":"b"}', 1)
    assert [event["event"] for event in life.events] == ["sent", "leased", "acknowledged"]
    assert bench.find(two.number) is None
    bench.clock.advance(20)
    assert bench.find(one.number) is None


def test_history_is_kept_of_every_end(bench: Bench) -> None:
    """Fails when one way to end leaves no record, or the wrong holder."""
    bench.create("q", history_seconds=60)
    numbers = bench.send("q", b"1", b"2", b"3", b"4").numbers
    bench.send("q", b"5", ttl=1_000)
    results = bench.together(
        lambda s: s.receive("q", 1, None, "ann"), lambda s: s.receive("q", 1, None, "bob")
    )
    (third,) = bench.receive("q", 1, 5_000, 'c"\n\\')
    bench.run(lambda s: s.acknowledge("q", [Acknowledgement(third.number, third.delivery)]))
    bench.cancel("q", numbers[3])
    bench.advance(1)
    lives = [bench.find(number) for number in [*numbers, numbers[3] + 1]]
    assert [life.state for life in lives if life] == [
        "received",
        "received",
        "acknowledged",
        "cancelled",
        "expired",
    ]
    assert [results[n][0].number for n in (0, 1)] == list(numbers[:2])
    assert [life.events[-1]["by"] for life in lives[:2] if life] == ["ann", "bob"]
    assert lives[2] is not None
    assert lives[2].events[1]["by"] == 'c"\n\\'
    assert bench.find(1 << 40) is None
    bench.advance(60)
    assert bench.find(numbers[0]) is None


def test_a_strange_holder_does_not_break_the_life(bench: Bench) -> None:
    """Fails when a holder's name is written into the past without being quoted."""
    bench.create("q")
    bench.send("q", b"1")
    (message,) = bench.receive("q", 1, 5_000, 'a"b\\c\nd')
    bench.release("q", message)
    bench.receive("q", 1, 5_000, 'a"b\\c\nd')
    bench.advance(5)
    life = bench.find(message.number)
    assert life is not None
    assert [event.get("by") for event in life.events] == [None, 'a"b\\c\nd', None, 'a"b\\c\nd', None]


@pytest.mark.parametrize("how", ["lease_expired", "given_back", "of a group"])
def test_a_long_life_keeps_its_beginning_and_its_end_and_says_what_is_left_out(
    bench: Bench, how: str
) -> None:
    """Planted defects: a past that stops when it is full, or loses its beginning; a gap that is not said, or
    says a part of what is missing; one without bounds."""
    bench.create("q")
    bench.send("q", b"1", group="g" if how == "of a group" else None)
    life = None
    for n in range(1, 200):
        (message,) = bench.receive("q", 1, 1_000, f"holder {n}")
        if how == "given_back":
            bench.release("q", message)
        else:
            bench.advance(1)
        life = bench.find(message.number)
        assert life is not None
        said = sum(event.get("omitted", 1) for event in life.events)
        assert said == 1 + 2 * n
        assert life.events[-2]["by"] == f"holder {n}"
        assert life.events[-1]["event"] == (how if how == "given_back" else "lease_expired")
        assert len(life.events) < 70
    assert life is not None
    assert [event.get("by") for event in life.events[:5]] == [None, "holder 1", None, "holder 2", None]
    assert [n for n, event in enumerate(life.events) if event["event"] == "omitted"] == [5]
    bench.crash()
    assert bench.find(message.number) == life


def test_the_end_of_a_life_is_kept_however_long_its_events_are(bench: Bench) -> None:
    bench.create("q")
    bench.send("q", b"1")
    for n in range(4):
        (message,) = bench.receive("q", 1, 1_000, str(n) * 3_000)
        bench.release("q", message)
    life = bench.find(message.number)
    assert life is not None
    holders = [event["by"][0] for event in life.events if event.get("by")]
    assert (holders, life.events[-1]["event"]) == (["0", "1"], "given_back")
    assert sum(event.get("omitted", 1) for event in life.events) == 1 + 2 * 4


def test_peek_shows_each_state_and_takes_nothing(bench: Bench) -> None:
    """Fails when a look changes what is looked at, or shows another queue's messages."""
    bench.create("q", max_deliveries=1)
    bench.create("other")
    bench.send("other", b"x", b"y", delay=9_000)
    bench.send_each("q", [Options(priority=n) for n in (1, 2)])
    bench.send("q", b"b1", b"b2", b"b3", group="g", priority=9)
    bench.send("q", b"late", delay=5_000)
    bench.receive("other", 1, 5_000)
    (leased,) = bench.receive("q", 1, 5_000)
    assert leased.content == b"b1"
    before = bench.counts("q")
    assert bench.contents("q") == [b'"1"', b'"0"']
    assert bench.contents("q", State.BLOCKED) == [b"b2", b"b3"]
    assert bench.contents("q", State.DELAYED) == [b"late"]
    (seen,) = bench.peek("q", state=State.LEASED)
    assert (seen.content, seen.lease_until, seen.delivery) == (b"b1", leased.lease_until, 0)
    assert bench.peek("q", 1)[0].content == b'"1"'
    assert bench.counts("q") == before
    assert bench.oldest("q") == bench.clock.now()
    with pytest.raises(QueueNotFound):
        bench.peek("nowhere")


def test_rates_are_those_of_the_last_minute(bench: Bench) -> None:
    """Fails when old seconds stay in the ring, or a look clears it."""
    bench.create("q")
    bench.send("q", *[b"1"] * 60)
    bench.receive("q", 30)
    assert (bench.info("q").in_rate, bench.info("q").out_rate) == (1.0, 0.5)
    bench.clock.advance(59)
    assert bench.info("q").in_rate == 1.0
    bench.clock.advance(1)
    assert (bench.info("q").in_rate, bench.info("q").out_rate) == (0, 0)


def test_api_keys_are_remembered(bench: Bench) -> None:
    """Fails when a key is lost with a restart, or one that was removed comes back."""
    one = Key("1", "one", b"\1" * 32, ("all",), 5)
    two = Key("2", "two", b"\2" * 32, ("send:a", "receive:*"), 6)
    bench.add_key(one)
    bench.add_key(two)
    bench.crash()
    assert sorted(bench.store.keys(), key=lambda key: key.id) == [one, two]
    assert bench.run(lambda s: s.remove_key("1")) is True
    assert bench.run(lambda s: s.remove_key("1")) is False
    bench.crash()
    assert bench.store.keys() == [two]


def test_the_secret_and_the_clock_go_on_after_a_restart(bench: Bench) -> None:
    """Fails when ids of an earlier process no longer verify, or time runs backwards."""
    secret = bench.store.secret
    assert len(secret) == 32
    bench.clock.advance(5_000)
    bench.run(lambda s: s.ping())
    moment = bench.clock.now()
    bench.clock.advance(-3_600)
    bench.crash()
    assert bench.store.secret == secret
    if not bench.store.shared:  # else the servers that all share keep the time
        assert bench.clock.now() == moment
