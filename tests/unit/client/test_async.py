"""The async client: the same calls, the same rules, the same signatures."""

from __future__ import annotations

import asyncio
import contextlib
import inspect

import httpx
import pytest

from tests.unit.client.script import QUEUE, Script, messages, ok, problem
from windlass.client import (
    AsyncClient,
    AsyncLeasedMessage,
    AsyncQueue,
    Client,
    LeasedMessage,
    Queue,
    errors,
)

EMPTY = httpx.Response(204)


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [(Client, AsyncClient), (Queue, AsyncQueue), (LeasedMessage, AsyncLeasedMessage)],
)
def test_both_have_the_same_methods_with_the_same_parameters(blocking: type, asynchronous: type) -> None:
    def described(kind: type) -> dict[str, list[tuple[str, object]]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: [(p.name, p.default) for p in inspect.signature(method).parameters.values()]
            for name, method in methods
            if not name.startswith("_")
        }

    assert described(blocking) == described(asynchronous)


def test_receive_acknowledges_and_gives_back() -> None:
    async def scenario() -> list[str]:
        script = Script(messages([1]), ok(), messages([2]), ok(), EMPTY)
        async with script.async_client() as client:
            async for message in client.queue("orders").receive(wait=0):
                with contextlib.suppress(ZeroDivisionError):
                    async with message:
                        assert 1 / (2 - int(message.id[1:]))
        return script.asked

    assert asyncio.run(scenario()) == [
        "POST /queues/orders/receive",
        "DELETE /queues/orders/receipts/r1",
        "POST /queues/orders/receive",
        "PATCH /queues/orders/receipts/r2",
        "POST /queues/orders/receive",
    ]


def test_a_cancelled_handler_gives_its_message_back() -> None:
    """Planted defect: catching `Exception` only would leave the message to its lease, as a cancel is none."""

    async def scenario() -> list[str]:
        script = Script(messages([1]), ok())
        started = asyncio.Event()

        async def handler() -> None:
            async with script.async_client() as client:
                async for message in client.queue("orders").receive():
                    async with message:
                        started.set()
                        await asyncio.Event().wait()

        task = asyncio.create_task(handler())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return script.asked

    assert asyncio.run(scenario())[1:] == ["PATCH /queues/orders/receipts/r1"]


def test_the_same_rules_for_repeats() -> None:
    async def scenario() -> None:
        cut = httpx.ReadError("cut")
        script = Script(
            cut, problem(503, "store_unavailable"), ok({"id": "m1", "duplicate": False}, 201), cut
        )
        async with script.async_client() as client:
            await client.queue("orders").send("a")
            assert len({request.headers["idempotency-key"] for request in script.requests}) == 1
            with pytest.raises(errors.AnswerLost):
                await client.queue("orders").take()
        assert len(script.requests) == 4
        assert len(script.pauses) == 2

    asyncio.run(scenario())


def test_plans_are_followed_and_told_of_failures() -> None:
    async def scenario() -> None:
        sent = ok({"messages": [{"id": f"m{n}", "duplicate": False} for n in range(1000)]}, 201)
        pages = [ok({"queues": [QUEUE], "next": "orders"}), ok({"queues": [], "next": None})]
        script = Script(sent, problem(422, "invalid"), *pages)
        async with script.async_client() as client:
            with pytest.raises(errors.InvalidRequest) as caught:
                await client.queue("orders").send_many(range(1001))
            assert len(caught.value.sent) == 1000
            assert [queue.name for queue in await client.queues()] == ["orders"]

    asyncio.run(scenario())


def test_handle_runs_tasks_side_by_side(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> list[str]:
        meeting = asyncio.Barrier(2)
        received = iter([messages([1]), messages([2])])

        def server(request: httpx.Request) -> httpx.Response:
            return next(received, EMPTY) if request.method == "POST" else ok()

        async def work(message: AsyncLeasedMessage) -> None:
            async with asyncio.timeout(60):
                await meeting.wait()
            if message.id == "m1":
                raise LookupError("no such order")

        script = Script(*[server] * 5)
        async with script.async_client() as client:
            await client.queue("orders").handle(work, concurrency=2, wait=0)
        return script.asked

    asked = asyncio.run(scenario())
    assert "PATCH /queues/orders/receipts/r1" in asked
    assert "DELETE /queues/orders/receipts/r2" in asked
    assert "no such order" in caplog.text
