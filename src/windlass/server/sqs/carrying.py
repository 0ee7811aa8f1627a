"""Messages go from a queue to another one: each once, in order, and at no moment in neither."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from hashlib import blake2b
from typing import Any

from windlass.errors import QueueFull, QueueNotFound, TooLarge
from windlass.message import Acknowledgement, Life, Message, Once, Options, QueueInfo, Sent, Settled
from windlass.server.sqs.known import info_of
from windlass.server.sqs.move_tasks import Task
from windlass.store import Store

LEASE = 30_000
"""How long a message is leased on its way, ms."""
NO_DESTINATION = "AWS.SimpleQueueService.NonExistentQueue"


class Hopeless(Exception):  # noqa: N818 - it ends a task, and says why
    """It will never be possible to go on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Carrier:
    """Takes steps, each of some messages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def carry(self, source: str, task: Task, most: int) -> bool:
        """Move up to `most` messages, and count them in the task; True: there was none to be moved.

        Raises QueueNotFound where the source is gone, Hopeless, and what keeps the destination from taking
        a message: then that one and those behind it are where they were.
        """
        return await _whole(self._carry(source, task, most))

    async def finish(self, source: str, task: Task, most: int) -> bool:
        """Take those out of the source that were sent, or may have been, and not acknowledged; True: all.

        What the destination does not have and does not take either stays. Raises as `carry` does.
        """
        return await _whole(self._finish(source, task, most))

    async def _carry(self, source: str, task: Task, most: int) -> bool:
        assert task.destination is not None
        target = await self._look(task.destination)
        room = target.settings.max_length
        if room is not None:
            if target.length >= room:
                raise QueueFull(f"Queue {target.name!r} is full.", retry_after=1)
            most = 1  # or one for which there is no room would be overtaken by those for which there is
        messages = await self._store.receive(source, most, LEASE, _holder(task))
        for error in (await self._send_all(source, task, messages, messages))[0]:
            if isinstance(error, QueueNotFound):
                raise Hopeless(NO_DESTINATION)
            if isinstance(error, TooLarge):
                raise Hopeless(error.detail)
            raise error
        return not messages

    async def _finish(self, source: str, task: Task, most: int) -> bool:
        assert task.destination is not None
        await self._look(task.destination)
        messages = await self._store.receive(source, most, LEASE, f"end of {_holder(task)}")
        lives = await asyncio.gather(*(self._store.find(message.number) for message in messages))
        begun = [message for message, life in zip(messages, lives, strict=True) if _was_leased(life, task)]
        errors, stale = await self._send_all(source, task, messages, begun)
        for error in errors:
            if not isinstance(error, (QueueNotFound, QueueFull, TooLarge)):  # it was not sent, then
                raise error
        return not stale

    async def _send_all(
        self, source: str, task: Task, leased: Sequence[Message], wanted: Sequence[Message]
    ) -> tuple[list[BaseException], int]:
        """Send the wanted ones and give the others back: (what went wrong, how many of them are sent and
        nevertheless still there)."""
        assert task.destination is not None
        sending = [self._send(task.destination, task, message) for message in wanted]
        sent = await asyncio.gather(*sending, return_exceptions=True)
        done = [message for message, result in zip(wanted, sent, strict=True) if isinstance(result, Sent)]
        settled: list[Settled] = []
        if done:
            acks = [Acknowledgement(message.number, message.delivery) for message in done]
            settled = await self._store.acknowledge(source, acks)
        stale = settled.count(Settled.STALE)
        task.moved += len(settled) - stale  # a stale one will be taken once more, and counted then
        await self._give_back(source, [message for message in leased if message not in done])
        return [result for result in sent if isinstance(result, BaseException)], stale

    async def _look(self, name: str) -> QueueInfo:
        """The destination. Raises Hopeless."""
        try:
            return await info_of(self._store, name)
        except QueueNotFound:
            raise Hopeless(NO_DESTINATION) from None

    def _send(self, target: str, task: Task, message: Message) -> Awaitable[Sent]:
        """A key of task and message: who sends it again after a crash sends nothing."""
        key = blake2b(f"move {task.id} {message.number}".encode(), digest_size=32).digest()
        options = Options(priority=message.priority, group=message.group, headers=message.headers)
        return self._store.send(target, [message.content], [options], Once(key, key))

    async def _give_back(self, source: str, messages: Sequence[Message]) -> None:
        """Whatever goes wrong here is mended by the end of the lease."""
        given = [
            self._store.release(source, message.number, message.delivery, counts=False)
            for message in messages
        ]
        await asyncio.gather(*given, return_exceptions=True)


async def _whole(step: Coroutine[Any, Any, bool]) -> bool:
    """A step is never cut short: who is cancelled waits for its end."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


def _holder(task: Task) -> str:
    return f"move {task.id}"


def _was_leased(life: Life | None, task: Task) -> bool:
    """Whether a step of the task had this message."""
    return life is not None and any(event.get("by") == _holder(task) for event in life.events)
