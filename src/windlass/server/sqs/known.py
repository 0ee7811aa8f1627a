"""What the hot actions have to know of a queue before they touch it: its number, and what SQS keeps of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic

import msgspec

from windlass.errors import QueueNotFound
from windlass.message import QueueInfo
from windlass.server.sqs.attributes import maximum_size
from windlass.server.sqs.call import Begun, Call, Result, as_it_is
from windlass.server.sqs.names import FIFO
from windlass.store import Store

KNOWN_FOR = 1.0
"""Seconds after which a queue is looked at anew: what another server changed counts here no later."""
_MOST = 10_000
_PAGE = 1_000


class Known(msgspec.Struct, frozen=True, gc=False):
    """A queue, as it was a moment ago."""

    name: str
    number: int
    fifo: bool
    delay: int
    """DelaySeconds."""
    wait: int
    """ReceiveMessageWaitTimeSeconds."""
    lease: int
    """ms; -1: the queue's own."""
    own_lease: int
    """That one, ms."""
    most: int
    """MaximumMessageSize: bytes of Body and attributes."""
    most_text: int
    """Bytes of the Body as JSON."""
    by_content: bool
    """ContentBasedDeduplication."""
    by_group: bool
    """Whether DeduplicationScope is messageGroup."""
    until: float


def _known(number: int, info: QueueInfo) -> Known:
    sqs: Mapping[str, str] = info.settings.sqs
    return Known(
        info.name,
        number,
        info.name.endswith(FIFO),
        int(sqs.get("DelaySeconds", 0)),
        int(sqs.get("ReceiveMessageWaitTimeSeconds", 0)),
        0 if sqs.get("VisibilityTimeout") == "0" else -1,
        round(info.settings.lease_seconds * 1000),
        maximum_size(info.settings),
        info.settings.max_message_bytes,
        sqs.get("ContentBasedDeduplication") == "true",
        sqs.get("DeduplicationScope") == "messageGroup",
        monotonic() + KNOWN_FOR,
    )


async def info_of(store: Store, name: str) -> QueueInfo:
    """A queue, also one that another server made a moment ago. Raises QueueNotFound."""
    try:
        return await store.queue(name)
    except QueueNotFound:
        if not await store.learn(name):
            raise
    return await store.queue(name)


async def queues_of(store: Store) -> AsyncIterator[QueueInfo]:
    """All queues, by name, a page at a time."""
    after = ""
    while True:
        page = await store.queues("", after, _PAGE)
        for info in page:
            yield info
        if len(page) < _PAGE:
            return
        after = page[-1].name


class Knowledge:
    """The queues that were looked at lately."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queues: dict[str, Known] = {}
        self._forgotten = 0
        """How often anything was: what was read before may be of before a change."""

    def of(self, name: str) -> Known | None:
        """A queue as far as is known now; None: look. Raises QueueNotFound."""
        number = self._store.queue_number(name)
        known = self._queues.get(name)
        if known is None or known.number != number or known.until < monotonic():
            return None
        return known

    def begin(self, call: Call, action: Callable[[Call, Known], Begun]) -> Begun:
        """Begin a hot action that has to know its queue: at once where that is known, else behind a look."""
        known = self.of(call.queue)
        if known is None:
            return asyncio.ensure_future(self._look_and_do(call, action)), as_it_is
        return action(call, known)

    async def _look_and_do(self, call: Call, action: Callable[[Call, Known], Begun]) -> Result:
        future, finish = action(call, await self.look(call.queue))
        return finish(await future)

    async def look(self, name: str) -> Known:
        """Raises QueueNotFound, StoreUnavailable."""
        # The number first: settings of a queue that is deleted meanwhile are no news of the next one.
        number, forgotten = self._store.queue_number(name), self._forgotten
        known = _known(number, await self._store.queue(name))
        if forgotten == self._forgotten:
            if len(self._queues) >= _MOST:
                self._queues.clear()
            self._queues[name] = known
        return known

    def forget(self, name: str) -> None:
        """Its settings are changed here."""
        self._forgotten += 1
        self._queues.pop(name, None)
