"""Messages are moved out of dead-letter queues: each once, in order, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.contract.servers import Several, _Ground
from tests.contract.sqs.mill import TURN, Killer, Mill, texts
from windlass.errors import Conflict, Forbidden, WindlassError
from windlass.server.auth import Principal
from windlass.server.sqs.names import arn_of

START, LIST, CANCEL = "StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask"
SIX = tuple(b'"%d"' % n for n in range(6))


@pytest.fixture
def mill(bench: Bench) -> Iterator[Mill]:
    made = Mill(bench)
    yield made
    made.close()


@pytest.fixture
def bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of two messages."""
    monkeypatch.setattr("windlass.server.sqs.moving._BITE", 2)


@pytest.fixture
def full(mill: Mill) -> Mill:
    """Six dead letters of `orders` in `dlq`, and a queue `other`."""
    mill.pipe()
    mill.bench.create("other")
    mill.die(*SIX)
    return mill


# --- what is moved, and how ---------------------------------------------------------------------------


def test_without_a_destination_they_go_back_to_where_they_came_from(mill: Mill) -> None:
    """Planted defect: all go to the first queue whose dead letters are here."""
    mill.pipe()
    mill.bench.create("more", max_deliveries=1, dead_letter="dlq")
    first = mill.die(b"1", b"2", headers=b'{"a":"b"}')
    second = mill.die(b"3", queue="more")
    mill.begin()
    mill.finish()
    orders, more = mill.drain("orders"), mill.drain("more")
    assert [(m.number, m.content, m.headers, m.deliveries) for m in orders] == [
        (first[0], b"1", b'{"a":"b"}', 1),
        (first[1], b"2", b'{"a":"b"}', 1),
    ]
    assert [m.number for m in more] == second
    assert mill.tasks() == [
        {
            "Status": "COMPLETED",
            "SourceArn": arn_of("dlq"),
            "ApproximateNumberOfMessagesMoved": 3,
            "ApproximateNumberOfMessagesToMove": 3,
            "StartedTimestamp": mill.clock.now(),
        }
    ]


@pytest.mark.usefixtures("bites")
def test_with_one_they_arrive_there_in_order_with_all_that_they_had(full: Mill) -> None:
    """Planted defects: headers, or the priority, left behind; the sends of a step in any order."""
    full.die(b'"h"', headers=b'{"a":"b"}', priority=3)
    full.begin(destination="other", rate=500)
    while full.moves.moving.running:
        full.advance(0.1)
    first, *rest = full.drain("other")
    assert (first.content, first.headers, first.priority) == (b'"h"', b'{"a":"b"}', 3)
    assert tuple(texts(rest)) == SIX
    assert full.bench.counts("dlq") == full.bench.counts("orders") == {}
    (entry,) = full.tasks()
    assert entry["DestinationArn"] == arn_of("other")
    assert entry["MaxNumberOfMessagesPerSecond"] == 500
    assert (entry["Status"], entry["ApproximateNumberOfMessagesMoved"]) == ("COMPLETED", 7)


@pytest.mark.usefixtures("bites")
def test_groups_keep_their_order(mill: Mill) -> None:
    """Planted defect: the group left behind."""
    mill.pipe("orders.fifo", "dlq.fifo")
    mill.bench.create("other.fifo")
    for n in range(3):
        for group in ("a", "b"):
            mill.die(b'"%d"' % n, queue="orders.fifo", group=group)
    mill.begin("dlq.fifo", "other.fifo")
    mill.finish()
    assert mill.bench.counts("other.fifo") == {"ready": 2, "blocked": 4}
    moved = mill.drain("other.fifo")
    for group in ("a", "b"):
        assert [m.content for m in moved if m.group == group] == [b'"0"', b'"1"', b'"2"']


def test_no_more_than_were_there(full: Mill) -> None:
    """Whoever fails on them again at once does not keep it going for ever.

    Planted defect: it goes on until the queue is empty.
    """
    full.begin(rate=1)
    for n in range(5):
        full.moved(n + 1)
        (message,) = full.bench.receive("orders", 1, 60_000)
        full.bench.release("orders", message)
        full.advance(1)
    full.finish()
    assert full.status() == ("COMPLETED", 6)
    assert full.bench.counts("dlq") == {"ready": 5}


def test_what_is_no_dead_letter_has_no_way_back(full: Mill) -> None:
    """Planted defect: it is reported as moved, or the task goes on for ever."""
    full.bench.send("dlq", b'"sent here"')
    full.begin()
    full.finish()
    (entry,) = full.tasks()
    assert (entry["Status"], entry["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert full.bench.contents("dlq") == [b'"sent here"']
    assert tuple(texts(full.drain("orders"))) == SIX


# --- what is asked ------------------------------------------------------------------------------------


def test_what_is_refused(full: Mill) -> None:
    full.pipe("orders.fifo", "dlq.fifo")
    dlq, other = arn_of("dlq"), arn_of("other")
    nothing = arn_of("nothing")
    wrong = "InvalidParameterValue"
    not_there = "ResourceNotFoundException"
    full.refused(not_there, "SourceArn", START, SourceArn=nothing)
    full.refused(not_there, "DestinationArn", START, SourceArn=dlq, DestinationArn=nothing)
    full.refused(wrong, "configured as a Dead Letter", START, SourceArn=other)
    full.refused(wrong, "no ARN", START, SourceArn="dlq")
    full.refused(wrong, "no ARN", START, SourceArn=dlq, DestinationArn="")
    full.refused(wrong, "same queue", START, SourceArn=dlq, DestinationArn=dlq)
    full.refused(wrong, "same type", START, SourceArn=dlq, DestinationArn=arn_of("orders.fifo"))
    full.refused(wrong, "same type", START, SourceArn=arn_of("dlq.fifo"), DestinationArn=other)
    for rate in (0, -1, 501):
        full.refused(wrong, "between 1 and 500", START, SourceArn=dlq, MaxNumberOfMessagesPerSecond=rate)
    for most in (0, 11):
        full.refused(wrong, "between 1 and 10", LIST, SourceArn=dlq, MaxResults=most)
    full.refused(not_there, "SourceArn", LIST, SourceArn=nothing)
    assert full.tasks() == []
    assert full.bench.counts("dlq") == {"ready": 6}


def test_handles_prove_themselves(full: Mill) -> None:
    """Planted defect: a handle that is not signed."""
    handle = full.begin(rate=1)
    wrong = "InvalidParameterValue"
    forged = "0" * 4 + handle[4:]
    for bad in ("", "foobared", "äöü", "ZHJlYW1z", handle[:-4], forged, handle[::-1]):
        full.refused(wrong, "TaskHandle is invalid", CANCEL, TaskHandle=bad)
    full.bench.run(lambda s: s.update_queue("dlq", {"sqs": {}}))
    full.refused("ResourceNotFoundException", "Task does not exist", CANCEL, TaskHandle=handle)
    full.bench.update("orders", dead_letter=None)
    full.bench.delete("dlq")
    full.refused("ResourceNotFoundException", "SourceArn", CANCEL, TaskHandle=handle)


def test_who_may(full: Mill) -> None:
    """Planted defect: no look at the scopes."""
    dlq, other = arn_of("dlq"), arn_of("other")
    half, whole = Principal("h", ["admin:dlq"]), Principal("w", ["admin:dlq", "send:other"])
    for principal, parameters in (
        (half, {"SourceArn": dlq, "DestinationArn": other}),
        (Principal("s", ["send:*", "receive:*"]), {"SourceArn": dlq}),
    ):
        with pytest.raises(Forbidden):
            full.call(START, principal, **parameters)
    handle = full.call(START, whole, SourceArn=dlq, DestinationArn=other)["TaskHandle"]
    stranger = Principal("x", ["admin:other"])
    with pytest.raises(Forbidden):
        full.call(CANCEL, stranger, TaskHandle=handle)
    with pytest.raises(Forbidden):
        full.call(LIST, stranger, SourceArn=dlq)
    with pytest.raises(Forbidden):
        full.call(START, SourceArn=arn_of("windlass.jobs"))


def test_one_task_at_a_time_and_ten_are_remembered(full: Mill) -> None:
    """Planted defects: a look for one that runs, and then a write that does not see another; eleven kept."""

    async def race() -> list[Any]:
        parameters: dict[str, Any] = {"SourceArn": arn_of("dlq"), "MaxNumberOfMessagesPerSecond": 1}
        return await asyncio.gather(
            *(full.asked(START, **parameters) for _ in range(4)), return_exceptions=True
        )

    begun = full.run(race())
    assert sum(isinstance(each, dict) for each in begun) == 1
    full.refused("InvalidParameterValue", "already a task running", START, SourceArn=arn_of("dlq"))
    for _ in range(6):
        full.advance(1)
    full.finish()
    for n in range(11):
        full.clock.advance(1)
        full.begin(rate=n + 1)
        full.finish()
    tasks = full.tasks()
    assert [task["MaxNumberOfMessagesPerSecond"] for task in tasks] == [*range(11, 1, -1)]
    assert full.call(LIST, SourceArn=arn_of("dlq"))["Results"] == tasks[:1]
    assert len(json.loads(full.bench.info("dlq").settings.sqs["moves"])) == 10


def test_what_else_is_kept_of_the_queue_stays(full: Mill) -> None:
    """Planted defect: all that is kept of the queue is written anew, as it was read."""
    full.begin(rate=2)
    full.moved(1)

    async def tag() -> None:
        while True:
            settings = (await full.bench.store.queue("dlq")).settings
            with contextlib.suppress(Conflict):
                await full.bench.store.update_queue(
                    "dlq", {"sqs": settings.sqs | {"tags": "t"}}, was=settings
                )
                return

    full.run(tag())
    while full.moves.moving.running:
        full.advance(0.5)
    assert full.status() == ("COMPLETED", 6)
    kept = full.bench.info("dlq").settings.sqs
    assert kept["tags"] == "t"
    assert sorted(kept) == ["moves", "tags"]


# --- rate, and cancelling -----------------------------------------------------------------------------


@pytest.mark.parametrize("destination", [None, "other"])
def test_no_more_a_second_than_were_asked_for(full: Mill, destination: str | None) -> None:
    """Planted defect: no look at the clock."""
    full.begin(destination=destination, rate=2)
    full.moved(1)
    for moved in range(2, 6):
        full.advance(0.4)
        full.moved(moved - 1)
        full.advance(0.1)
        full.moved(moved)
    assert full.bench.counts(destination or "orders") == {"ready": 5}
    full.advance(0.5)
    full.finish()
    assert full.status() == ("COMPLETED", 6)


@pytest.mark.parametrize("destination", [None, "other"])
def test_cancelled_the_rest_stays(full: Mill, destination: str | None) -> None:
    """Planted defect: nobody looks whether the task is cancelled."""
    handle = full.begin(destination=destination, rate=1)
    full.moved(1)
    full.advance(1)
    full.moved(2)
    (running,) = full.tasks()
    assert (running["Status"], running["TaskHandle"]) == ("RUNNING", handle)
    assert full.call(CANCEL, TaskHandle=handle) == {"ApproximateNumberOfMessagesMoved": 2}
    full.finish()
    (entry,) = full.tasks()
    assert (entry["Status"], entry["ApproximateNumberOfMessagesMoved"]) == ("CANCELLED", 2)
    assert "TaskHandle" not in entry
    full.refused("UnsupportedOperation", "CANCELLED", CANCEL, TaskHandle=handle)
    full.advance(10)
    assert tuple(full.bench.contents("dlq")) == SIX[2:]
    full.begin(destination=destination)
    full.finish()
    assert tuple(full.bench.contents(destination or "orders")) == SIX


# --- crashes and restarts -----------------------------------------------------------------------------


def _at_rest(mill: Mill, killer: Killer) -> bool:
    return killer.dead or not mill.moves.moving.running


def recovered(mill: Mill) -> None:
    """Start again after a crash, and wait until all is done."""
    mill.crash()
    mill.until(lambda: mill.moves.moving.at_rest)
    mill.advance(TURN + 1)  # the turn and the leases of the life before are over
    while mill.moves.moving.running:
        mill.advance(1)


@pytest.mark.usefixtures("bites")
@pytest.mark.parametrize("destination", [None, "other"])
def test_a_crash_at_any_moment_loses_nothing_and_doubles_nothing(
    bench: Bench, destination: str | None
) -> None:
    """Planted defects: an acknowledgement before the send; a send that is repeated; a message that overtakes
    those that were leased when the server died; a task that a start does not find."""
    mill = Mill(bench)
    mill.pipe()
    bench.create("other")
    at, survived = 1, False
    while not survived:
        mill.die(*SIX)
        killer = Killer(bench.store, at)
        try:
            mill.begin(destination=destination)
        except WindlassError:
            started = False
        else:
            started = True
            mill.until(partial(_at_rest, mill, killer))
        survived = not killer.dead
        killer.leave()
        recovered(mill)
        if not started and bench.counts("dlq"):  # whoever asked was not answered: it may have run, or not
            mill.begin(destination=destination)
            mill.finish()
        assert mill.status()[0] == "COMPLETED"
        assert tuple(texts(mill.drain(destination or "orders"))) == SIX, f"killed at call {at}"
        assert bench.counts("dlq") == bench.counts("orders") == bench.counts("other") == {}
        at += 1
    assert at > 10
    mill.close()


@pytest.mark.usefixtures("bites")
def test_cancelled_after_a_crash_nothing_is_in_both(full: Mill) -> None:
    """Planted defect: a task that is cancelled ends at once, and what it had sent stays where it was."""
    handle = full.begin(destination="other", rate=1)
    full.moved(1)
    acknowledge = full.bench.store.acknowledge
    killer = Killer(full.bench.store, 1_000)

    def die(*_: Any) -> Any:
        killer.left = 0
        return acknowledge("dlq", [])

    full.bench.store.__dict__["acknowledge"] = die
    full.advance(1)
    assert killer.dead
    killer.leave()
    full.close()
    full.bench.crash()
    assert full.bench.counts("dlq") == {"ready": 4, "leased": 1}
    assert full.bench.counts("other") == {"ready": 2}
    full.open()
    full.call(CANCEL, TaskHandle=handle)
    full.until(lambda: full.moves.moving.at_rest)
    assert full.status() == ("CANCELLING", 1)
    full.advance(TURN + 1)
    while full.moves.moving.running:
        full.advance(1)
    assert full.status()[0] == "CANCELLED"
    assert tuple(full.bench.contents("other")) == SIX[:2]
    assert tuple(full.bench.contents("dlq")) == SIX[2:]


def test_a_restart_goes_on_with_what_was_counted(full: Mill) -> None:
    """Planted defects: a start that looks for no tasks; a stop that forgets how far it was."""
    full.begin(destination="other", rate=1)
    full.moved(1)
    full.advance(1)
    full.moved(2)
    full.reopen()
    full.until(lambda: full.moves.moving.running)
    full.moved(2)
    while full.moves.moving.running:
        full.advance(TURN + 1)
    assert full.status() == ("COMPLETED", 6)
    assert tuple(full.bench.contents("other")) == SIX


def test_nothing_runs_where_there_is_nothing_to_do(full: Mill) -> None:
    """Planted defect: a look every second."""
    full.begin()
    full.finish()
    full.reopen()
    full.until(lambda: full.moves.moving._search._task is None or full.moves.moving._search._task.done())
    assert full.moves.moving.running == []
    before = dict(full.bench.store.calls)
    full.advance(3600)
    after = {verb: count for verb, count in full.bench.store.calls.items() if verb != "expire"}
    assert after == {verb: count for verb, count in before.items() if verb != "expire"}
    assert not [task for task in asyncio.all_tasks(full.bench.loop) if "move" in task.get_name()]


# --- what happens meanwhile ---------------------------------------------------------------------------


@pytest.mark.parametrize("destination", [None, "other"])
def test_the_source_is_purged(full: Mill, destination: str | None) -> None:
    full.begin(destination=destination, rate=1)
    full.moved(1)
    full.bench.purge("dlq")
    full.advance(1)
    full.finish()
    assert full.status() == ("COMPLETED", 1)


def test_the_source_is_deleted_and_another_one_has_its_name(full: Mill) -> None:
    """Planted defect: the task is known by the queue's name alone."""
    full.begin(destination="other", rate=1)
    full.moved(1)
    full.bench.update("orders", dead_letter=None)
    kept = full.bench.info("dlq").settings.sqs
    full.bench.delete("dlq")
    full.bench.create("dlq", sqs=kept)
    full.bench.send("dlq", b'"new"')
    full.advance(1)
    full.finish()
    assert full.tasks() == []
    assert full.bench.contents("dlq") == [b'"new"']
    assert tuple(full.bench.contents("other")) == SIX[:1]


def test_the_destination_is_deleted(full: Mill) -> None:
    """Planted defect: the message that was on its way is lost, or the task tries for ever."""
    full.begin(destination="other", rate=1)
    full.moved(1)
    full.bench.delete("other")
    full.advance(1)
    full.finish()
    (entry,) = full.tasks()
    assert entry["Status"] == "FAILED"
    assert entry["FailureReason"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert entry["ApproximateNumberOfMessagesMoved"] == 1
    assert tuple(full.bench.contents("dlq")) == SIX[1:]


def test_one_that_is_too_large_for_the_destination_stays(full: Mill) -> None:
    full.bench.create("small", max_message_bytes=8)
    full.die(b'"as large as can be"')
    full.begin(destination="small")
    full.finish()
    (entry,) = full.tasks()
    assert entry["Status"] == "FAILED"
    assert "max_message_bytes" in entry["FailureReason"]
    assert full.bench.contents("dlq") == [b'"as large as can be"']
    assert tuple(full.bench.contents("small")) == SIX


def test_a_destination_that_is_full_is_waited_for(full: Mill) -> None:
    """Planted defect: the task fails, or messages go on being leased and given back all the while."""
    full.bench.create("narrow", max_length=2)
    full.begin(destination="narrow")
    full.moved(2)
    before = full.bench.store.calls["receive"]
    full.advance(1)
    full.moved(2)
    assert full.bench.store.calls["receive"] == before
    arrived = [message.content for message in full.drain("narrow")]
    while full.moves.moving.running:
        full.advance(1)
        arrived += texts(full.drain("narrow"))
    arrived += texts(full.drain("narrow"))
    assert tuple(arrived) == SIX
    assert full.status() == ("COMPLETED", 6)


def test_a_source_that_is_paused_is_waited_for(full: Mill) -> None:
    """Planted defect: what is paused counts as empty."""
    full.bench.update("dlq", paused=True)
    full.begin(destination="other")
    full.advance(5)
    assert full.status() == ("RUNNING", 0)
    full.bench.update("dlq", paused=False)
    full.advance(1)
    full.finish()
    assert full.status() == ("COMPLETED", 6)


# --- several servers ----------------------------------------------------------------------------------


def test_of_several_servers_one_works_and_another_goes_on(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: each server that knows of a task works on it; nobody looks after another's."""
    clock = SimpleNamespace(monotonic=lambda: several.clock.now() / 1000)
    monkeypatch.setattr("tests.contract.servers.time", clock)
    benches = [Bench(_Ground(several)) for _ in range(2)]
    loop = benches[0].loop
    benches[1].loop.close()
    for each in benches:
        each.loop, each.clock = loop, several.clock
    a, b = (Mill(each, turn=5) for each in benches)
    a.pipe()
    benches[0].create("other")
    a.die(*SIX)
    a.begin(destination="other", rate=1)
    b.until(lambda: b.moves.moving.running)
    a.moved(1)
    for _ in range(3):
        a.advance(1)
        b.advance(0)
    assert len(benches[1].peek("other")) <= 4
    a.close()
    while b.moves.moving.running:
        b.advance(1)
    assert b.status() == ("COMPLETED", 6)
    assert [m.content for m in benches[1].peek("other")] == list(SIX)
    b.close()
    loop.close()
