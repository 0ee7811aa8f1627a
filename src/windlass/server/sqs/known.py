"""What the hot actions have to know of a queue before they touch it: its number, and what SQS keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

import msgspec

from windlass.message import QueueInfo, QueueSettings
from windlass.server.sqs.names import FIFO
from windlass.store import Store

KNOWN_FOR = 1.0
"""Seconds after which a queue is looked at anew: what another server changed counts here no later."""
_MOST = 10_000
MAX_SIZE = 1024 * 1024
"""Bytes that a message may have, and a batch."""


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


def maximum_size(settings: QueueSettings) -> int:
    """What MaximumMessageSize says of a queue."""
    kept = settings.sqs.get("MaximumMessageSize")
    return int(kept) if kept else min(settings.max_message_bytes, MAX_SIZE)


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


class Knowledge:
    """The queues that were looked at lately."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queues: dict[str, Known] = {}

    def of(self, name: str) -> Known | None:
        """A queue as far as is known now; None: look. Raises QueueNotFound."""
        number = self._store.queue_number(name)
        known = self._queues.get(name)
        if known is None or known.number != number or known.until < monotonic():
            return None
        return known

    async def look(self, name: str) -> Known:
        """Raises QueueNotFound, StoreUnavailable."""
        info = await self._store.queue(name)
        known = _known(self._store.queue_number(name), info)
        if len(self._queues) >= _MOST:
            self._queues.clear()
        self._queues[name] = known
        return known

    def forget(self, name: str) -> None:
        """Its settings are changed here."""
        self._queues.pop(name, None)
