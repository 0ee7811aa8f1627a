"""Leases are kept alive while a handler runs. Time moves by hand; nothing sleeps."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from tests.unit.client.script import Script, extended, messages, ok, problem
from windlass.client import AsyncLeasedMessage, Client, LeasedMessage, errors
from windlass.client.extender import Extender


def by_hand(client: Client) -> Extender:
    """The client's extender without its thread: the test calls `step`."""
    client.extender._thread = threading.current_thread()
    return client.extender


def leased(client: Client, lease: float = 30.0) -> LeasedMessage:
    message = client.queue("orders").receive_one(lease=lease)
    assert message is not None
    return message


def test_a_lease_is_extended_at_each_third_of_it() -> None:
    """Planted defect: extending once only, or at the end of the lease, lets it run out under the handler."""
    script = Script(messages(), extended, extended, ok())
    with script.client() as client:
        extender = by_hand(client)
        with leased(client):
            for after, extensions in ((9.9, 0), (0.2, 1), (9.8, 1), (0.3, 2), (5, 2)):
                script.clock.advance(after)
                extender.step()
                assert script.asked.count("PATCH /queues/orders/receipts/r1") == extensions
    assert script.bodies[1] == {"lease": 30.0}


def test_a_message_taken_up_late_is_extended_at_once() -> None:
    script = Script(messages(), extended, ok())
    with script.client() as client:
        extender = by_hand(client)
        message = leased(client)
        script.clock.advance(25)
        with message:
            extender.step()
            assert len(script.requests) == 2


def test_nothing_is_extended_after_the_message_is_settled() -> None:
    script = Script(messages(), ok())
    with script.client() as client:
        extender = by_hand(client)
        with leased(client) as message:
            message.acknowledge()
            script.clock.advance(100)
            extender.step()
    assert script.asked[1:] == ["DELETE /queues/orders/receipts/r1"]


@pytest.mark.parametrize(
    "answer", [problem(409, "receipt_stale"), problem(410, "receipt_gone"), problem(404, "receipt_unknown")]
)
def test_a_lost_lease_is_flagged_and_told(answer: httpx.Response) -> None:
    """Planted defect: going on silently lets two handlers do the same work unawares."""
    script = Script(messages(), answer, problem(409, "receipt_stale"))
    told: list[LeasedMessage] = []
    with script.client() as client:
        extender = by_hand(client)
        message = leased(client)
        message.on_lost = told.append
        extender.keep(message)
        flags = [message.lost]
        for _ in range(2):
            script.clock.advance(11)
            extender.step()
            flags.append(message.lost)
        with pytest.raises(errors.LeaseLost):
            message.acknowledge()
    assert flags == [False, True, True]
    assert told == [message]
    assert len(script.requests) == 3, "a lost lease is not extended again; the acknowledgement is tried"


def test_an_extension_refused_because_the_handler_has_just_finished_is_no_loss() -> None:
    """Planted defect: reporting it tells a user that finished work was lost."""
    told: list[LeasedMessage] = []

    def overtaken(_request: httpx.Request) -> httpx.Response:
        client.extender.forget(message)
        return problem(410, "receipt_gone")

    script = Script(messages(), overtaken, ok())
    with script.client() as client:
        extender = by_hand(client)
        message = leased(client)
        message.on_lost = told.append
        with message:
            script.clock.advance(11)
            extender.step()
    assert not message.lost
    assert told == []


def test_an_extension_that_could_not_be_made_is_tried_again_soon() -> None:
    script = Script(
        messages(), httpx.ConnectError("refused"), problem(503, "store_unavailable"), extended, ok()
    )
    with script.client() as client:
        extender = by_hand(client)
        with leased(client) as message:
            script.clock.advance(10)
            for _ in range(3):
                extender.step()
                script.clock.advance(1)
            assert not message.lost
    assert script.asked.count("PATCH /queues/orders/receipts/r1") == 3
    assert script.pauses == [], "the extender never pauses: other messages wait behind it"


def test_a_lease_that_nobody_could_extend_is_lost_when_it_has_run_out() -> None:
    script = Script(messages(), *[httpx.ConnectError("refused")] * 2)
    with script.client() as client:
        extender = by_hand(client)
        message = leased(client)
        extender.keep(message)
        flags = []
        for seconds in (29, 1.1):
            script.clock.advance(seconds)
            extender.step()
            flags.append(message.lost)
    assert flags == [False, True]


def test_whatever_goes_wrong_with_one_extension_the_others_are_made() -> None:
    """Planted defect: an error nobody thought of would end the thread, and with it all leases."""
    script = Script(messages([1, 2]), RuntimeError("unheard of"), extended, extended, ok(), ok())
    with script.client() as client:
        extender = by_hand(client)
        first, second = client.queue("orders").receive_batch(max=2, lease=30)
        with first, second:
            script.clock.advance(11)
            extender.step()
            script.clock.advance(1)
            extender.step()
            assert (first.lost, second.lost) == (False, False)
    assert [asked for asked in script.asked if asked.startswith("PATCH")] == [
        f"PATCH /queues/orders/receipts/r{number}" for number in (1, 2, 1)
    ]


def test_extending_by_hand_moves_the_next_extension() -> None:
    script = Script(messages(), extended, ok())
    with script.client() as client:
        extender = by_hand(client)
        with leased(client) as message:
            message.extend(300)
            script.clock.advance(99)
            extender.step()
            assert message.lease_seconds == 300
    assert script.bodies[1] == {"lease": 300}


def test_a_callback_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fails(message: LeasedMessage) -> None:
        raise RuntimeError(message.id)

    script = Script(messages([1, 2]), problem(409, "receipt_stale"), extended, ok(), ok())
    with script.client() as client:
        extender = by_hand(client)
        first, second = client.queue("orders").receive_batch(max=2, lease=30)
        first.on_lost = fails
        with first, second:
            script.clock.advance(11)
            extender.step()
            assert (first.lost, second.lost) == (True, False)
    assert "on_lost" in caplog.text


def test_one_thread_serves_all_messages_and_ends_with_the_client() -> None:
    done = threading.Barrier(2, timeout=60)
    asked = []

    def patched(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, threading.current_thread().name))
        if len(asked) == 2:
            done.wait()
        return extended(request)

    script = Script(messages([1, 2]), patched, patched, ok(), ok())
    with script.client() as client:
        first, second = client.queue("orders").receive_batch(max=2, lease=30)
        script.clock.advance(11)
        with first, second:
            done.wait()
        threads = [thread for thread in threading.enumerate() if thread.name == "windlass-extender"]
        assert len(threads) == 1
    assert not threads[0].is_alive()
    assert sorted(asked) == [
        ("/queues/orders/receipts/r1", "windlass-extender"),
        ("/queues/orders/receipts/r2", "windlass-extender"),
    ]


def test_async_a_task_extends_and_tells_what_is_lost() -> None:
    async def scenario() -> None:
        lost = asyncio.Event()
        script = Script(messages(), extended, problem(409, "receipt_stale"), problem(409, "receipt_stale"))
        async with script.async_client() as client:
            message = await client.queue("orders").receive_one(lease=30)
            assert message is not None

            def tell(_message: AsyncLeasedMessage) -> None:
                lost.set()

            message.on_lost = tell
            script.clock.advance(11)
            client.extender.keep(message)
            async with asyncio.timeout(60):
                while len(script.requests) < 2:  # noqa: ASYNC110 - the script has no event
                    await asyncio.sleep(0)
                script.clock.advance(11)
                client.extender.keep(message)
                await lost.wait()
            assert message.lost
            with pytest.raises(errors.LeaseLost):
                await message.acknowledge()

    asyncio.run(scenario())
