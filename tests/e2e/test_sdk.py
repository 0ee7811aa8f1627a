"""The SDK against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx
import pytest

from tests.harness import ServerProcess, until
from windlass.client import (
    AsyncClient,
    AsyncLeasedMessage,
    Client,
    LeasedMessage,
    NewMessage,
    Queue,
    RawJson,
    Retry,
    errors,
)

_numbers = itertools.count(1)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture
def queue(client: Client) -> Queue:
    """A new queue for the test alone."""
    name = f"sdk-{next(_numbers)}"
    client.create_queue(name)
    return client.queue(name)


def contents(queue: Queue) -> list[object]:
    """Everything that is ready, taken for good."""
    taken = []
    while batch := queue.take(max=1000):
        taken += [message.content for message in batch]
    return taken


class DroppedAnswer:
    """A way to the server on which the answer to the first request is lost: done, but never told."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                downstream, _ = self._listener.accept()
                self.connections += 1
                with downstream, socket.create_connection(("127.0.0.1", self._server.port), 60) as upstream:
                    self._carry(downstream, upstream)

    def _carry(self, downstream: socket.socket, upstream: socket.socket) -> None:
        """Carry bytes both ways until one side closes, or until the first answer of all begins."""
        other = {downstream: upstream, upstream: downstream}
        while True:
            for side in select.select([downstream, upstream], [], [])[0]:
                data = side.recv(1 << 20)
                if not data or (side is upstream and self.connections == 1):
                    return
                other[side].sendall(data)


def test_a_message_goes_through_as_it_was_sent(queue: Queue) -> None:
    texts = ["1180591620717411303424", "1e400", '{"b" : 1,"a":[null]}', '"\\u0000"', '"grün"', "false"]
    sent = [queue.send(RawJson(text)) for text in texts]
    for text, receipt in zip(texts, sent, strict=True):
        message = queue.receive_one()
        assert message is not None
        with message:
            assert (message.id, message.raw, message.deliveries) == (receipt.id, text, 1)
    assert queue.show().ready == 0


def test_everything_a_message_can_carry(queue: Queue) -> None:
    queue.send(NewMessage("low", priority=1))
    queue.send(NewMessage("high", priority=9, headers={"trace": "7"}, group="g", ttl=60, dedup_id="d"))
    assert queue.send(NewMessage("again", dedup_id="d")).duplicate
    queue.send(NewMessage("late", delay=3600))
    peeked = queue.peek()
    assert [message.content for message in peeked] == ["high", "low"]
    assert (peeked[0].headers, peeked[0].group, peeked[0].priority) == ({"trace": "7"}, "g", 9)
    assert queue.show().delayed == 1


def test_receive_with_an_exception_gives_back_and_the_next_delivery_counts(queue: Queue) -> None:
    queue.send("a")
    for message in queue.receive(wait=0, max=1):
        with pytest.raises(ZeroDivisionError), message:
            assert 1 / 0
    again = queue.receive_one()
    assert again is not None
    with again:
        assert (again.content, again.deliveries) == ("a", 2)


def test_a_long_batch_keeps_its_order_and_comes_back_in_batches(queue: Queue) -> None:
    sent = queue.send_many(range(2500))
    assert len({receipt.id for receipt in sent}) == 2500
    seen = []
    for message in queue.receive(wait=0, batch=1000):
        seen.append(message)
        if len(seen) % 500 == 0:
            results = queue.acknowledge_many(seen[-500:])
            assert {result.status for result in results} == {"acknowledged"}
    assert [message.content for message in seen] == list(range(2500))
    assert (queue.show().ready, queue.show().leased) == (0, 0)


def test_leaving_the_loop_gives_back_what_was_fetched_ahead(queue: Queue) -> None:
    queue.send_many(range(10))
    for message in queue.receive(batch=10):
        with message:
            break
    assert (queue.show().ready, queue.show().leased) == (9, 0)
    assert contents(queue) == list(range(1, 10))


def test_a_lease_is_kept_alive_as_long_as_the_handler_runs(client: Client, queue: Queue) -> None:
    """Planted defect: without extensions the second receiver gets the message while the first works on it."""
    queue.send("slow")
    message = queue.receive_one(lease=9)
    assert message is not None
    first = message.lease_until
    with message:
        until(lambda: (message.lease_until - first).total_seconds() > 2, what="the first extension")
        assert queue.receive_one() is None
        assert not message.lost
    assert client.queue(queue.name).show().leased == 0


def test_a_lease_that_ran_out_cannot_acknowledge(queue: Queue) -> None:
    """Planted defect: a receipt that outlives its lease would acknowledge another consumer's message."""
    queue.send("a")
    first = queue.receive_one(lease=0.2)
    second = queue.receive_one(lease=30, wait=10)
    assert first is not None
    assert second is not None
    assert (second.id, second.deliveries) == (first.id, 2)
    with pytest.raises(errors.LeaseLost):
        first.acknowledge()
    second.acknowledge()


def test_a_lost_lease_is_told_while_the_handler_still_runs(queue: Queue) -> None:
    told = threading.Event()
    lost: list[LeasedMessage] = []

    def tell(message: LeasedMessage) -> None:
        lost.append(message)
        told.set()

    queue.send("a")
    with contextlib.suppress(errors.LeaseLost):
        for message in queue.receive(lease=0.6, on_lost=tell, max=1):
            with message:
                queue.purge()
                assert told.wait(60)
                assert message.lost
    assert [message.content for message in lost] == ["a"]


def test_acknowledging_what_a_purge_took_is_success(queue: Queue) -> None:
    queue.send("a")
    message = queue.receive_one()
    assert message is not None
    assert queue.purge() == 1
    message.acknowledge()


def test_an_answer_lost_on_the_way_does_not_store_a_message_twice(
    server: ServerProcess, queue: Queue
) -> None:
    """Planted defect: without the Idempotency-Key the repeat stores it again."""
    with DroppedAnswer(server) as way, Client(way.url) as client:
        client.queue(queue.name).send("once")
        assert way.connections == 2
    assert contents(queue) == ["once"]


def test_an_answer_lost_on_the_way_loses_one_taken_message_and_not_two(
    server: ServerProcess, queue: Queue
) -> None:
    """Planted defect: repeating `take` returns the second message as if there had never been a first."""
    queue.send_many(["first", "second"])
    with DroppedAnswer(server) as way, Client(way.url) as client, pytest.raises(errors.AnswerLost):
        client.queue(queue.name).take()
    assert contents(queue) == ["second"]


def test_an_answer_lost_on_the_way_costs_a_leased_message_its_lease_and_no_more(
    server: ServerProcess, queue: Queue
) -> None:
    queue.send_many(["first", "second"])
    with DroppedAnswer(server) as way, Client(way.url) as client:
        message = client.queue(queue.name).receive_one(lease=60)
        assert message is not None
        assert message.content == "second", "the first is leased to nobody until its lease ends"
        message.acknowledge()
    [back] = queue.peek(state="leased")
    assert back.content == "first"


def test_an_acknowledgement_whose_answer_is_lost_is_repeated_until_it_is_known(
    server: ServerProcess, queue: Queue
) -> None:
    queue.send("a")
    message = queue.receive_one()
    assert message is not None
    with DroppedAnswer(server) as way, Client(way.url) as client:
        client.queue(queue.name).acknowledge(message.receipt)
        assert way.connections == 2
    assert (queue.show().ready, queue.show().leased) == (0, 0)


def test_the_users_own_idempotency_key_sends_once(queue: Queue) -> None:
    first = queue.send("a", idempotency_key="order-7")
    assert queue.send("a", idempotency_key="order-7").id == first.id
    with pytest.raises(errors.IdempotencyKeyReused):
        queue.send("b", idempotency_key="order-7")
    assert contents(queue) == ["a"]


def test_whoever_waits_for_an_outcome_gets_it(server: ServerProcess, queue: Queue) -> None:
    sent = queue.send("sum")
    with pytest.raises(errors.OutcomePending):
        queue.outcome(sent.id)
    answers: list[object] = []

    def wait() -> None:
        with Client(server.url) as other:
            answers.append(other.queue(queue.name).outcome(sent.id, wait=30))

    waiter = threading.Thread(target=wait)
    waiter.start()
    message = queue.receive_one()
    assert message is not None
    message.acknowledge(outcome={"sum": 3})
    waiter.join(60)
    assert answers == [{"sum": 3}]
    record = queue.message(sent.id)
    assert (record.state, record.outcome) == ("acknowledged", {"sum": 3})


def test_a_cancelled_message_has_no_outcome(queue: Queue) -> None:
    sent = queue.send(NewMessage("a", delay=60))
    queue.cancel(sent.id)
    with pytest.raises((errors.NoOutcome, errors.MessageGone)):
        queue.outcome(sent.id, wait=5)
    with pytest.raises(errors.MessageNotFound):
        queue.message("no-such-id")


def test_dead_letters_and_redrive(queue: Queue) -> None:
    queue.update(max_deliveries=1)
    queue.send_many(["a", "b"])
    for message in queue.receive(wait=0, batch=2):
        message.release()
    until(lambda: queue.show().dead == 2, what="both are dead")
    assert [message.content for message in queue.peek(state="dead")] == ["a", "b"]
    assert queue.redrive() == 2
    assert contents(queue) == ["a", "b"]


def test_pause_holds_back_and_resume_lets_go(queue: Queue) -> None:
    assert queue.pause().paused
    queue.send("a")
    assert queue.receive_one() is None
    assert not queue.resume().paused
    assert contents(queue) == ["a"]


def test_refusals_have_their_errors(client: Client, queue: Queue) -> None:
    with pytest.raises(errors.QueueNotFound):
        client.queue("nobody").send("a")
    with pytest.raises(errors.QueueExists):
        client.create_queue(queue.name, lease_seconds=77)
    client.create_queue(queue.name + "-dead")
    queue.update(dead_letter=queue.name + "-dead")
    with pytest.raises(errors.QueueInUse):
        client.queue(queue.name + "-dead").delete()
    with pytest.raises(errors.InvalidRequest) as invalid:
        queue.send(NewMessage("a", priority=10))
    assert invalid.value.field is not None
    assert "priority" in invalid.value.field
    queue.update(max_message_bytes=10, max_length=1)
    with pytest.raises(errors.TooLarge):
        queue.send("x" * 20)
    queue.send("full")
    client.retry = Retry(limit=0)
    with pytest.raises(errors.QueueFull) as full:
        queue.send("over")
    assert full.value.retry_after is not None


def test_queues_are_listed_by_prefix(client: Client, queue: Queue) -> None:
    for letter in "ab":
        client.create_queue(f"{queue.name}-list-{letter}")
    assert [found.name for found in client.queues(f"{queue.name}-list-")] == [
        f"{queue.name}-list-a",
        f"{queue.name}-list-b",
    ]
    client.queue(f"{queue.name}-list-a").delete()
    assert len(client.queues(f"{queue.name}-list-")) == 1


def test_a_consumer_and_a_sender_outlive_kills_of_the_server(own_server: ServerProcess) -> None:
    """Planted defect: a client that does not repeat stops at the first kill; one that does it
    without keys sends some messages twice."""
    total, kills = 300, 3
    seen: list[object] = []
    progress = threading.Event()

    def consume() -> None:
        with Client(own_server.url) as client:
            for message in client.queue("work").receive(wait=1, lease=10):
                with message:
                    seen.append(message.content)
                progress.set()
                if len(set(map(str, seen))) == total:
                    return

    def produce() -> None:
        with Client(own_server.url) as client:
            for number in range(total):
                client.queue("work").send(number)

    with Client(own_server.url) as client:
        client.create_queue("work")
        threads = [threading.Thread(target=consume), threading.Thread(target=produce)]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            progress.clear()
            assert progress.wait(60)
            own_server.kill()
            own_server.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert {number for number in seen if isinstance(number, int)} == set(range(total))
        assert len(seen) - total <= kills, "twice only what a kill met in work"
        assert client.status().messages == 0


def test_async_everything_at_once(server: ServerProcess) -> None:
    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            await client.create_queue("async")
            queue = client.queue("async")
            await asyncio.gather(*(queue.send(number) for number in range(50)))
            seen = []

            async def work(message: AsyncLeasedMessage) -> None:
                seen.append(message.content)
                if message.deliveries == 1 and message.content == 7:
                    raise LookupError

            await queue.handle(work, concurrency=8, wait=0)
            assert sorted(seen) == sorted([*range(50), 7])
            sent = await queue.send("slow")
            message = await queue.receive_one(lease=9)
            assert message is not None
            first = message.lease_until
            async with message, asyncio.timeout(60):
                while (message.lease_until - first).total_seconds() < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert await queue.receive_one() is None
                await message.acknowledge(outcome="done")
            assert await queue.outcome(sent.id, wait=5) == "done"
            assert (await queue.show()).leased == 0

    asyncio.run(scenario())


def test_async_a_cancelled_long_poll_takes_nothing_with_it(server: ServerProcess) -> None:
    async def scenario() -> None:
        async with AsyncClient(server.url) as client, httpx.AsyncClient(base_url=server.url) as http:
            await client.create_queue("async-cancel")

            async def waiting() -> int:
                found: int = (await http.get("/status")).json()["waiting"]
                return found

            queue = client.queue("async-cancel")
            poll = asyncio.ensure_future(queue.receive_one(wait=30))
            async with asyncio.timeout(60):
                while not await waiting():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                poll.cancel()
                while await waiting():  # noqa: ASYNC110 - until the server knows of it
                    await asyncio.sleep(0.01)
            await queue.send("a")
            message = await queue.receive_one(wait=5)
            assert message is not None
            assert message.deliveries == 1
            await message.acknowledge()

    asyncio.run(scenario())
