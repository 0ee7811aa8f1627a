"""What SQS must do: what the engine's model does, and what this protocol makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.contract.model import Item, Model
from windlass.message import Options, QueueSettings, State
from windlass.server.sqs.names import FIFO, arn_of, name_of_arn

RETENTION = 345_600
LONGEST = 43_200_000
"""How long a message may be invisible from its receipt on, ms."""
REMEMBERED = 300_000
"""How long an attempt at a receive is, ms."""
PURGE_EVERY = 60_000

Attributes = dict[str, dict[str, str]]
Receipt = tuple[str, int, int]
"""(queue, number, delivery)"""


@dataclass
class Told:
    """What a client knows of a message that was sent, and is told again when it receives it."""

    id: str
    body: str
    attributes: Attributes
    group: str | None
    dedup_id: str | None
    received: int = 0
    """When it was first, ms; 0: not yet."""
    since: int = 0
    """When it was last, ms."""


@dataclass
class Queue:
    """What SQS keeps of a queue beside the engine's settings. Seconds."""

    visibility: int = 30
    delay: int = 0
    by_content: bool = False
    by_group: bool = False
    purged: int = -PURGE_EVERY
    """When it was, ms."""
    attempts: dict[str, tuple[int, list[Receipt]]] = field(default_factory=dict)
    """Attempt -> until when it is remembered, ms, and what it was given."""


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of(attributes: Attributes) -> str:
    """As clients compute it, of attributes that are text."""
    packed = b""
    for name, value in sorted(attributes.items()):
        for mark, part in ((b"", name), (b"", value["DataType"]), (b"\1", value["StringValue"])):
            packed += mark + len(part.encode()).to_bytes(4) + part.encode()
    return hashlib.md5(packed, usedforsecurity=False).hexdigest()


class SqsModel(Model):
    """Queues of SQS, made one after the other with the attributes that they have."""

    def __init__(
        self, queues: Mapping[str, Mapping[str, str]], now: int, numbers: dict[str, int] | None
    ) -> None:
        super().__init__({name: QueueSettings(retention_seconds=RETENTION) for name in queues}, now, numbers)
        self.queues = {name: Queue() for name in queues}
        self.told: dict[int, Told] = {}
        for name, attributes in queues.items():
            self.set(name, attributes)

    def set(self, queue: str, attributes: Mapping[str, str]) -> None:
        """SetQueueAttributes."""
        known = self.queues[queue]
        changes: dict[str, Any] = {}
        for name, value in attributes.items():
            match name:
                case "VisibilityTimeout":
                    known.visibility = int(value)
                case "DelaySeconds":
                    known.delay = int(value)
                case "ContentBasedDeduplication":
                    known.by_content = value == "true"
                case "DeduplicationScope":
                    known.by_group = value == "messageGroup"
                case "MessageRetentionPeriod":
                    changes["retention_seconds"] = int(value)
                case "RedrivePolicy":
                    policy = msgspec.json.decode(value) if value else {}
                    arn = policy.get("deadLetterTargetArn")
                    changes["dead_letter"] = arn and name_of_arn(arn, name)
                    changes["max_deliveries"] = policy.get("maxReceiveCount")
        self.settings[queue] = msgspec.structs.replace(self.settings[queue], **changes)

    def attributes(self, queue: str) -> dict[str, str]:
        """What GetQueueAttributes says of it, of what changes here."""
        known, counts = self.queues[queue], self.counts(queue)
        found = {
            "ApproximateNumberOfMessages": counts.get("ready", 0) + counts.get("blocked", 0),
            "ApproximateNumberOfMessagesNotVisible": counts.get("leased", 0),
            "ApproximateNumberOfMessagesDelayed": counts.get("delayed", 0),
            "VisibilityTimeout": known.visibility,
            "DelaySeconds": known.delay,
            "MessageRetentionPeriod": self.settings[queue].retention_seconds,
        }
        return {name: str(value) for name, value in found.items()}

    # --- in -----------------------------------------------------------------------------------------

    def options(self, queue: str, body: str, sent: Mapping[str, Any]) -> Options:
        """How a message is handled that is sent with these parameters."""
        known = self.queues[queue]
        delay = sent.get("DelaySeconds", known.delay) * 1000
        if not queue.endswith(FIFO):
            return Options(delay=delay)
        group = sent["MessageGroupId"]
        dedup_id = sent.get("MessageDeduplicationId") or hashlib.sha256(body.encode()).hexdigest()
        return Options(
            delay=delay, group=group, dedup_id=f"{group}\n{dedup_id}" if known.by_group else dedup_id
        )

    def send(self, queue: str, number: int, message_id: str, sent: Mapping[str, Any]) -> None:
        """A message that is new."""
        body, group = sent["MessageBody"], sent.get("MessageGroupId")
        dedup_id = None
        if queue.endswith(FIFO):
            dedup_id = sent.get("MessageDeduplicationId") or hashlib.sha256(body.encode()).hexdigest()
        attributes = sent.get("MessageAttributes", {})
        self.told[number] = Told(message_id, body, attributes, group, dedup_id)
        self.put(queue, number, body.encode(), self.options(queue, body, sent))

    # --- out ----------------------------------------------------------------------------------------

    def take(self, queue: str, limit: int, visibility: int | None, attempt: str | None) -> list[Item]:
        """What a receive gets."""
        known = self.queues[queue]
        lease = (known.visibility if visibility is None else visibility) * 1000
        until, given = known.attempts.get(attempt or "", (0, []))
        held = [self.holder(*receipt) for receipt in given] if until > self.now else []
        again = [item for item in held if isinstance(item, Item)]
        for item in again:
            item.due = self.now + lease
        if again:
            return again
        taken = self.receive(queue, limit, lease, whole_groups=queue.endswith(FIFO))
        for item in taken:
            told = self.told[item.number]
            told.received, told.since = told.received or self.now, self.now
        if attempt is not None and taken:
            receipts = [(queue, item.number, item.token) for item in taken]
            known.attempts[attempt] = (self.now + REMEMBERED, receipts)
        return taken

    def received(self, queue: str, item: Item) -> dict[str, Any]:
        """What is told of a message that is received, but for its receipt."""
        told = self.told[item.number]
        system = {
            "SenderId": "000000000000",
            "SentTimestamp": str(item.at),
            "ApproximateReceiveCount": str(item.count),
            "ApproximateFirstReceiveTimestamp": str(told.received),
        }
        if told.group is not None:
            system["MessageGroupId"] = told.group
        if queue.endswith(FIFO):
            system["SequenceNumber"] = f"{item.number:020d}"
            system["MessageDeduplicationId"] = str(told.dedup_id)
        if item.origin is not None:
            system["DeadLetterQueueSourceArn"] = arn_of(item.origin)
        message: dict[str, Any] = {
            "MessageId": told.id, "Body": told.body, "MD5OfBody": md5(told.body), "Attributes": system
        }  # fmt: skip
        if told.attributes:
            message["MessageAttributes"] = told.attributes
            message["MD5OfMessageAttributes"] = md5_of(told.attributes)
        return message

    def delete(self, receipt: Receipt) -> None:
        """One that is stale removes nothing; in a standard queue the latest is good after its lease, too."""
        item = self.holder(*receipt, late=not receipt[0].endswith(FIFO))
        if isinstance(item, Item):
            self.end(item, "acknowledged")

    def hide(self, receipt: Receipt, seconds: int) -> str | None:
        """ChangeMessageVisibility; the code of what is wrong with it."""
        item = self.holder(*receipt)
        if isinstance(item, str):
            return "InvalidParameterValue" if item == "gone" else "AWS.SimpleQueueService.MessageNotInflight"
        if seconds:
            item.due = min(self.now + seconds * 1000, self.told[item.number].since + LONGEST)
        else:
            self.fail(item)
        return None

    def purge(self, queue: str) -> bool:
        """False: the last one was a moment ago."""
        known = self.queues[queue]
        if self.now < known.purged + PURGE_EVERY:
            return False
        known.purged = self.now
        self.items = [item for item in self.items if item.queue != queue]
        return True

    # --- time, and moves ----------------------------------------------------------------------------

    def over(self) -> Iterator[Item]:
        """Messages that something is to happen to at this moment."""
        for item in self.items:
            if item.state in (State.LEASED, State.DELAYED):
                if item.due <= self.now:
                    yield item
            elif self.old(item) and self.place(item) is State.READY:
                yield item

    def tick(self, now: int) -> None:
        super().tick(now)
        while over := [*self.over()]:
            for item in over:
                self.end(item, "expired")

    def letters(self) -> list[str]:
        """The queues that hold dead letters."""
        return sorted({item.queue for item in self.items if item.origin is not None})

    def move_back(self, source: str) -> tuple[int, int, bool]:
        """A move task without a destination: (moved, how many there were, whether some have no way back)."""
        there = len(self.at_place(source, State.READY)) + len(self.at_place(source, State.BLOCKED))
        before = [item for item in self.living(source) if item.origin is not None]
        moved = self.redrive(source, there)
        for item in before:
            if item.origin is None:
                self.told[item.number].received = 0
        return moved, there, moved < there and bool(self.at_place(source, State.READY))
