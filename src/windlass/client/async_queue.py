"""A queue, for asyncio."""

# `max` is the word of the protocol, so it is the word here.
# ruff: noqa: A002

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Unpack

from windlass.client import calls
from windlass.client.async_message import AsyncLeasedMessage
from windlass.client.errors import LeaseLost
from windlass.client.intake import Intake
from windlass.client.lease import UNSET
from windlass.client.values import (
    Acknowledged,
    Message,
    MessageRecord,
    PeekState,
    QueueInfo,
    QueueSettings,
    QueueStats,
    Sent,
    WireMessage,
)

if TYPE_CHECKING:
    from windlass.client.async_client import AsyncClient

log = logging.getLogger("windlass.client")


class AsyncQueue:
    """One queue of a server. Every method raises a `WindlassError` when the server refuses."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self.client = client
        self.name = name

    def __repr__(self) -> str:
        return f"<AsyncQueue {self.name} at {self.client.url}>"

    # Sending

    async def send(self, content: Any, *, idempotency_key: str | None = None) -> Sent:
        """Send one message: any JSON value, or a `NewMessage`. On disk when this returns.

        `idempotency_key`: your own name for this send; with the same one it is stored once, within a
        day. Left out, the client makes one up, so that its own repeats add nothing.
        """
        message = calls.as_message(content)
        return await self.client.run(
            calls.send(self.name, message, key=idempotency_key, make_key=self.client.retry_sends)
        )

    async def send_many(self, messages: Iterable[Any]) -> list[Sent]:
        """Send values or `NewMessage`s, in order, in batches of at most 1,000 and 16 MiB.

        Each batch is stored whole or not at all. When one fails, the error's `sent` lists the messages
        of the batches before it.
        """
        return await self.client.follow(
            calls.send_many(self.name, messages, make_key=self.client.retry_sends)
        )

    # Receiving

    async def receive(
        self,
        *,
        lease: float | None = None,
        wait: float = 20.0,
        max: int | None = None,
        batch: int = 1,
        idle: float | None = None,
        stop: asyncio.Event | None = None,
        retry_delay: float = 0.0,
        on_lost: Callable[[AsyncLeasedMessage], None] | None = None,
    ) -> AsyncGenerator[AsyncLeasedMessage, None]:
        """Messages as they come, each on a lease.

            async for message in queue.receive():
                async with message:
                    await work(message.content)

        `lease`: seconds, None for the queue's own. `wait`: seconds one request waits for a message, at
        most 60; with 0 the loop ends when the queue is empty. `max`: end after so many messages.
        `batch`: messages fetched at once; those not yet handed out have their leases kept alive, and
        are given back when the loop is left. `idle`: end when nothing came for so many seconds. `stop`:
        end when it is set; it is looked at between requests, so within `wait` seconds. `retry_delay`:
        seconds a message that is given back by a failing `with` stays away. `on_lost`: called, by
        the task that extends leases, with a message whose lease was lost while it was in work.
        """
        clock = self.client._clock
        intake = Intake(self.name, lease=lease, wait=wait, most=max, batch=batch, idle=idle, clock=clock)
        extender = self.client.extender
        while not (stop is not None and stop.is_set()) and (call := intake.poll()) is not None:
            taken = await self.client.run(call)
            waiting = [self._leased(wire, taken.lease_seconds) for wire in taken.messages]
            for message in waiting:
                message.retry_delay, message.on_lost = retry_delay, on_lost
            for message in waiting[1:]:
                extender.keep(message)
            try:
                while waiting and not (stop is not None and stop.is_set()):
                    message = waiting.pop(0)
                    extender.forget(message)
                    if not message.lost:
                        yield message
            finally:
                for message in waiting:
                    await message.give_back()
            rest = intake.took(len(taken.messages))
            if rest is None:
                break
            if rest:
                await self.client._sleep(rest)

    async def receive_one(
        self, *, lease: float | None = None, wait: float = 0.0
    ) -> AsyncLeasedMessage | None:
        """One message on a lease, or None when none came within `wait` seconds (0 to 60)."""
        messages = await self.receive_batch(max=1, lease=lease, wait=wait)
        return messages[0] if messages else None

    async def receive_batch(
        self, *, max: int, lease: float | None = None, wait: float = 0.0
    ) -> list[AsyncLeasedMessage]:
        """Up to `max` (1 to 1,000) messages in one request, each on a lease; `wait` as in `receive_one`."""
        taken = await self.client.run(calls.receive(self.name, lease=lease, wait=wait, most=max))
        return [self._leased(wire, taken.lease_seconds) for wire in taken.messages]

    async def take(self, *, max: int = 1, wait: float = 0.0) -> list[Message]:
        """Take up to `max` messages for good, without a lease.

        They are gone from the queue whether or not the answer arrives, so this is never repeated after a
        failure: AnswerLost may mean that messages are lost. Use `receive` for work that matters.
        """
        return await self.client.run(calls.take(self.name, wait=wait, most=max))

    async def handle(
        self,
        function: Callable[[AsyncLeasedMessage], Awaitable[object]],
        *,
        concurrency: int = 1,
        lease: float | None = None,
        wait: float = 20.0,
        max: int | None = None,
        idle: float | None = None,
        stop: asyncio.Event | None = None,
        retry_delay: float = 0.0,
    ) -> None:
        """Await `function` with each message, up to `concurrency` at once as tasks, until told to end.

        A message is acknowledged when `function` returns, and given back when it raises; the exception
        is logged to "windlass.client" and the loop goes on. The parameters are those of `receive`.
        """
        slots = asyncio.Semaphore(concurrency)

        async def work(message: AsyncLeasedMessage) -> None:
            try:
                async with message:
                    await function(message)
            except LeaseLost:
                log.warning("the lease of %r was lost before its work was done", message)
            except Exception:
                log.exception("the handler failed on %r; it was given back", message)
            finally:
                slots.release()

        messages = self.receive(
            lease=lease, wait=wait, max=max, idle=idle, stop=stop, retry_delay=retry_delay
        )
        async with asyncio.TaskGroup() as tasks, contextlib.aclosing(messages):
            await slots.acquire()
            async for message in messages:
                tasks.create_task(work(message))
                await slots.acquire()

    async def acknowledge(self, receipt: str, outcome: Any = UNSET) -> None:
        """Acknowledge by receipt alone; a message that is done already counts as success."""
        given = outcome is not UNSET
        await self.client.run(
            calls.acknowledge(self.name, receipt, outcome=outcome if given else None, has_outcome=given)
        )

    async def acknowledge_many(self, messages: Iterable[AsyncLeasedMessage | str]) -> list[Acknowledged]:
        """Acknowledge many messages, or receipts, at once; says what became of each, in order."""
        given = list(messages)
        leased = [message for message in given if isinstance(message, AsyncLeasedMessage)]
        receipts = [message if isinstance(message, str) else message.receipt for message in given]
        results = await self.client.follow(calls.acknowledge_many(self.name, receipts))
        for message in leased:
            self.client.extender.forget(message)
            message.settled = True
        return results

    async def extend(self, receipt: str, seconds: float) -> None:
        """Let a lease last `seconds` from now, by receipt alone."""
        await self.client.run(calls.extend(self.name, receipt, seconds))

    async def release(self, receipt: str, delay: float = 0.0) -> None:
        """Give a message back, by receipt alone."""
        await self.client.run(calls.release(self.name, receipt, delay))

    # Looking

    async def peek(self, *, max: int = 10, state: PeekState = "ready") -> list[Message]:
        """The first messages of a state, without taking them."""
        return await self.client.run(calls.peek(self.name, most=max, state=state))

    async def message(self, message_id: str) -> MessageRecord:
        """Where a message is and what has happened to it. MessageGone when it ended too long ago."""
        return await self.client.run(calls.message(self.name, message_id))

    async def outcome(self, message_id: str, *, wait: float = 0.0) -> Any:
        """What the acknowledgement of a message carried, None when it carried nothing.

        Waits up to `wait` seconds for it; then OutcomePending. NoOutcome when it was cancelled, expired,
        removed, or is dead.
        """
        return await self.client.follow(calls.outcome(self.name, message_id, wait, self.client._clock))

    async def show(self) -> QueueStats:
        """Settings and counts."""
        return await self.client.run(calls.show(self.name))

    # Administering

    async def update(self, **settings: Unpack[QueueSettings]) -> QueueInfo:
        """Change the settings that are given."""
        return await self.client.run(calls.update(self.name, settings))

    async def cancel(self, message_id: str) -> None:
        """Remove a message that nobody holds. MessageLeased when somebody does."""
        await self.client.run(calls.cancel(self.name, message_id))

    async def purge(self) -> int:
        """Remove every message, leased ones too; how many."""
        return await self.client.run(calls.purge(self.name))

    async def redrive(self, *, max: int | None = None) -> int:
        """Make dead messages ready again, all or at most `max`; how many."""
        return await self.client.follow(calls.redrive(self.name, max))

    async def pause(self) -> QueueInfo:
        """Hand out nothing until `resume`; sends go on."""
        return await self.client.run(calls.pause(self.name))

    async def resume(self) -> QueueInfo:
        """Hand out messages again."""
        return await self.client.run(calls.resume(self.name))

    async def delete(self) -> None:
        """Delete the queue and all its messages. QueueInUse when another names it as its dead letters."""
        await self.client.run(calls.delete(self.name))

    def _leased(self, wire: WireMessage, lease_seconds: float) -> AsyncLeasedMessage:
        return AsyncLeasedMessage(self.client, self.name, wire, lease_seconds)
