"""Messages go from a queue to another one: each once, in order, and at no moment in neither."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from hashlib import blake2b

from windlass.errors import QueueFull, QueueNotFound, TooLarge
from windlass.message import Acknowledgement, Life, Message, Once, Options, QueueInfo, Sent, Settled
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

    async def carry(self, source: str, task: Task, most: int, *, begun: bool = False) -> bool:
        """Move up to `most` messages, and count them in the task; True: there was none to be moved.

        With `begun` those only that a step took before and did not finish. A step is never cut short: who
        is cancelled waits for its end. Raises QueueNotFound where the source is gone, Hopeless, and what
        keeps the destination from taking a message: then that one and those behind it are where they were.
        """
        step = asyncio.ensure_future(self._carry(source, task, most, begun))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])
            if not step.cancelled():
                step.exception()
            raise

    async def _carry(self, source: str, task: Task, most: int, begun: bool) -> bool:
        assert task.destination is not None
        target = await self._look(task.destination)
        room = target.settings.max_length
        if room is not None:
            if target.length >= room:
                raise QueueFull(f"Queue {target.name!r} is full.", retry_after=1)
            most = 1  # or one for which there is no room would be overtaken by those for which there is
        holder = f"move {task.id}"
        messages = await self._store.receive(source, most, LEASE, holder)
        if not messages:
            return True
        wanted = await self._begun(messages, holder) if begun else messages
        sending = [self._send(target.name, task, message) for message in wanted]
        sent = await asyncio.gather(*sending, return_exceptions=True)
        done = [message for message, result in zip(wanted, sent, strict=True) if isinstance(result, Sent)]
        if done:
            acks = [Acknowledgement(message.number, message.delivery) for message in done]
            settled = await self._store.acknowledge(source, acks)
            # One that is stale will be taken once more, and counted then.
            task.moved += sum(each is not Settled.STALE for each in settled)
        await self._give_back(source, [message for message in messages if message not in done])
        for error in sent:
            if isinstance(error, QueueNotFound):
                raise Hopeless(NO_DESTINATION)
            if isinstance(error, TooLarge):
                raise Hopeless(error.detail)
            if isinstance(error, BaseException):
                raise error
        return not wanted

    async def _look(self, name: str) -> QueueInfo:
        """The destination. Raises Hopeless."""
        try:
            return await self._store.queue(name)
        except QueueNotFound:
            if not await self._store.learn(name):
                raise Hopeless(NO_DESTINATION) from None
        try:
            return await self._store.queue(name)
        except QueueNotFound:
            raise Hopeless(NO_DESTINATION) from None

    def _send(self, target: str, task: Task, message: Message) -> Awaitable[Sent]:
        """A key of task and message: who sends it again after a crash sends nothing."""
        key = blake2b(f"move {task.id} {message.number}".encode(), digest_size=32).digest()
        options = Options(priority=message.priority, group=message.group, headers=message.headers)
        return self._store.send(target, [message.content], [options], Once(key, key))

    async def _begun(self, messages: Sequence[Message], holder: str) -> list[Message]:
        """Those that were leased to this holder once before."""
        lives = await asyncio.gather(*(self._store.find(message.number) for message in messages))
        return [
            message
            for message, life in zip(messages, lives, strict=True)
            if life and _times(life, holder) > 1
        ]

    async def _give_back(self, source: str, messages: Sequence[Message]) -> None:
        """Whatever goes wrong here is mended by the end of the lease."""
        given = [
            self._store.release(source, message.number, message.delivery, counts=False)
            for message in messages
        ]
        await asyncio.gather(*given, return_exceptions=True)


def _times(life: Life, holder: str) -> int:
    return sum(event["event"] == "leased" and event.get("by") == holder for event in life.events)
