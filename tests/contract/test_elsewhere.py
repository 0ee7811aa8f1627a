"""Messages in a dead-letter queue: what is said of them where they were, while they live and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import pytest

from tests.contract.bench import Bench
from windlass.errors import MessageGone, ReceiptGone, ReceiptStale
from windlass.message import Acknowledgement, Extension, Message, Settled

LEASE = 30_000


@pytest.fixture
def work(bench: Bench) -> Bench:
    bench.create("letters", max_deliveries=1)
    bench.create("work", max_deliveries=1, dead_letter="letters")
    return bench


def moved(bench: Bench) -> Message:
    """A message of `letters`, as it was when it was received from `work`."""
    bench.send("work", b"1")
    (message,) = bench.receive("work", lease=LEASE, holder="a")
    bench.release("work", message)
    return message


def anywhere(bench: Bench, message: Message, **how: Any) -> int | Settled:
    extension = Extension(message.number, LEASE, **how)
    return bench.run(lambda s: s.extend(None, [extension]))[0]


def by_acknowledging(bench: Bench, message: Message, queue: str) -> int:
    return bench.acknowledge(queue, message)[0]


def by_extending(bench: Bench, message: Message, queue: str) -> int:
    extension = Extension(message.number, LEASE, message.delivery)
    return bench.run(lambda s: s.extend(queue, [extension]))[0]


def by_extending_anywhere(bench: Bench, message: Message, _: str) -> int:
    return anywhere(bench, message, delivery=message.delivery)


def by_giving_back(bench: Bench, message: Message, queue: str) -> int:
    with pytest.raises((ReceiptStale, ReceiptGone)) as refused:
        bench.release(queue, message)
    return Settled.STALE if refused.type is ReceiptStale else Settled.GONE


WAYS = (by_acknowledging, by_extending, by_extending_anywhere, by_giving_back)


def said(bench: Bench, messages: Sequence[Message], queue: str = "work") -> set[int]:
    """What is said of receipts, of each in a way of its own: an answer may change the next."""
    return {way(bench, message, queue) for way, message in zip(cycle(WAYS), messages, strict=False)}


def purge(bench: Bench, messages: Sequence[Message]) -> None:
    assert bench.purge("letters") == len(messages)


def delete(bench: Bench, _: Sequence[Message]) -> None:
    bench.update("work", dead_letter=None)
    bench.delete("letters")


def cancel(bench: Bench, messages: Sequence[Message]) -> None:
    for message in messages:
        bench.cancel("letters", message.number)


def receive(bench: Bench, messages: Sequence[Message]) -> None:
    assert len(bench.receive("letters", 100)) == len(messages)


def acknowledge(bench: Bench, messages: Sequence[Message]) -> None:
    letters = bench.receive("letters", 100, lease=LEASE)
    assert bench.acknowledge("letters", *letters) == [Settled.ACKNOWLEDGED] * len(messages)


def outlive(bench: Bench, _: Sequence[Message]) -> None:
    bench.update("letters", retention_seconds=60)
    bench.advance(61)


End = Callable[[Bench, Sequence[Message]], None]


@pytest.mark.parametrize("end", [purge, delete, cancel, receive, acknowledge, outlive])
def test_a_receipt_of_a_message_that_ended_elsewhere_is_gone(work: Bench, end: End) -> None:
    """Planted defect: what leads from its home to where it was is taken for the message itself."""
    messages = [moved(work) for _ in range(len(WAYS) + 1)]
    assert said(work, messages) == {Settled.STALE}
    life = work.find(messages[0].number)
    assert life is not None
    assert (life.in_queue, life.state) == ("letters", "ready")
    end(work, messages)
    assert work.find(messages.pop().number) is None
    assert said(work, messages) == {Settled.GONE}
    with pytest.raises(MessageGone):
        work.cancel("work", messages[0].number)


@pytest.mark.parametrize("end", [purge, delete])
def test_of_many_receipts_each_has_its_own_answer(work: Bench, end: End) -> None:
    """Fails when what is said of one that was moved is said of others."""
    gone = moved(work)
    end(work, [gone])
    work.create("letters", max_deliveries=1)
    work.update("work", dead_letter="letters")
    lives = moved(work)
    work.send("work", b"2")
    (held,) = work.receive("work", lease=LEASE)
    expected = [Settled.GONE, Settled.ACKNOWLEDGED, Settled.STALE, Settled.GONE]
    order = gone, held, lives, held
    acks = [Acknowledgement(message.number, message.delivery) for message in order]
    extensions = [Extension(message.number, LEASE, message.delivery) for message in order]
    until = work.clock.now() + LEASE
    assert work.run(lambda s: s.extend("work", extensions)) == [Settled.GONE, until, Settled.STALE, until]
    alone = [lambda s, ack=ack: s.acknowledge("work", [ack]) for ack in acks]
    together = work.together(*alone, lambda s: s.acknowledge("work", acks))
    assert together == [*([each] for each in expected), [*expected[:1], Settled.GONE, *expected[2:]]]


def test_an_end_that_is_on_record_elsewhere_is_told_as_it_was(work: Bench) -> None:
    """Fails when a repeated acknowledgement is answered otherwise than in the queue where it was made."""
    work.update("letters", history_seconds=60)
    message = moved(work)
    (letter,) = work.receive("letters", lease=LEASE, holder="b")
    first = Acknowledgement(letter.number, holder="b")
    assert work.run(lambda s: s.acknowledge("letters", [first])) == [Settled.ACKNOWLEDGED]
    for queue in ("work", "letters"):
        assert work.acknowledge(queue, letter) == [Settled.ACKNOWLEDGED]
        assert said(work, [message] * 4, queue) == {Settled.GONE}
        by_holder = [Acknowledgement(message.number, holder=holder) for holder in "ba"]
        found = work.run(lambda s, queue=queue, acks=by_holder: s.acknowledge(queue, acks))  # type: ignore[misc]
        assert found == [Settled.ACKNOWLEDGED, Settled.GONE]
    life = work.find(message.number)
    assert life is not None
    assert life.state == "acknowledged"
    work.advance(61)
    assert work.acknowledge("work", letter) == [Settled.GONE]
    assert work.find(message.number) is None


def test_what_went_home_is_stale_in_the_dead_letter_queue(work: Bench) -> None:
    """Planted defect: who asks in the dead-letter queue is told that it has ended."""
    moved(work)
    (letter,) = work.receive("letters", lease=LEASE)
    work.update("letters", max_deliveries=None)
    work.release("letters", letter)
    assert work.redrive("letters") == (1, True)
    assert said(work, [letter] * 4, "letters") == {Settled.STALE}
    (again,) = work.receive("work", lease=LEASE)
    assert work.acknowledge("work", again) == [Settled.ACKNOWLEDGED]
    assert said(work, [letter] * 4, "letters") == {Settled.GONE}


def test_a_lease_goes_on_wherever_its_message_is(work: Bench) -> None:
    """Planted defect: a lease is looked for only in the queue that its message was sent to."""
    message = moved(work)
    (letter,) = work.receive("letters", lease=LEASE, holder="b")
    work.clock.advance(10)
    until = work.clock.now() + LEASE
    assert anywhere(work, message, holder="a") is Settled.STALE
    assert anywhere(work, message, holder="b") == until
    assert anywhere(work, letter, delivery=letter.delivery) == until
    assert work.acknowledge("letters", letter) == [Settled.ACKNOWLEDGED]
    assert anywhere(work, message, holder="b") is Settled.GONE


def test_an_end_is_told_of_wherever_it_was(work: Bench) -> None:
    """Planted defect: who confirms an end reaches only the queue that the message was sent to."""
    message = moved(work)
    (letter,) = work.receive("letters", lease=LEASE, holder="b")
    ack = Acknowledgement(letter.number, letter.delivery, b'"done"', tell=True)
    assert work.run(lambda s: s.acknowledge("letters", [ack])) == [Settled.ACKNOWLEDGED]
    assert [end.number for end in work.run(lambda s: s.untold())] == [message.number]
    work.run(lambda s: s.told(message.number, 5_000))
    assert work.run(lambda s: s.untold()) == []
    assert work.find(message.number) is not None
    work.advance(6)
    assert work.find(message.number) is None
