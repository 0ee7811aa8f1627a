"""ReceiveMessage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from functools import lru_cache, partial
from hashlib import md5
from typing import Any

import msgspec

from windlass.message import Extension, Life, Message
from windlass.queues import Queues
from windlass.server.auth import RECEIVE
from windlass.server.sqs import message_attributes
from windlass.server.sqs.attempts import Attempts
from windlass.server.sqs.call import Begun, Call, Hot, Result, as_it_is
from windlass.server.sqs.errors import XML_CANNOT, SqsError, invalid
from windlass.server.sqs.known import Knowledge, Known
from windlass.server.sqs.names import ACCOUNT, arn_of
from windlass.server.sqs.requests import ReceiveMessage
from windlass.server.sqs.sending import check_id, sequence_number

MAX_LEASE = 43_200
MAX_WAIT = 20
_MOST = 10
_SYSTEM = (
    "AWSTraceHeader",
    "ApproximateFirstReceiveTimestamp",
    "ApproximateReceiveCount",
    "DeadLetterQueueSourceArn",
    "MessageDeduplicationId",
    "MessageGroupId",
    "SenderId",
    "SentTimestamp",
    "SequenceNumber",
)
_NOTHING: frozenset[str] = frozenset()
_KNOWN = frozenset({"All", "SqsManagedSseEnabled", *_SYSTEM})
"""What may be asked for; the API reference lists an attribute of queues as well, which no message has."""
_OF_ITS_LIFE = frozenset({"ApproximateFirstReceiveTimestamp", "DeadLetterQueueSourceArn"})
"""What only a look at a message's life tells, once it was received before or comes from another queue."""
_text = msgspec.json.Decoder(str).decode


class Receiving:
    """The action, bound to the queues."""

    def __init__(self, queues: Queues, knowledge: Knowledge) -> None:
        self._queues = queues
        self._store = queues.store
        self._ids = queues.ids
        self._knowledge = knowledge
        self._attempts = Attempts(queues.clock)
        self.actions: dict[str, Hot] = {"ReceiveMessage": self.receive}

    def receive(self, call: Call) -> Begun:
        call.request.principal.demand(RECEIVE, call.queue)
        return self._knowledge.begin(call, self._begin)

    def _begin(self, call: Call, known: Known) -> Begun:
        body: ReceiveMessage = call.body
        limit, lease, wait = _wanted(body, known)
        names = (body.attribute_names or []) + (body.message_system_attribute_names or [])
        system = _system(frozenset(names)) if names else _NOTHING
        if body.receive_request_attempt_id is not None or call.query or system & _OF_ITS_LIFE:
            return asyncio.ensure_future(
                self._receive_slowly(call, known, limit, lease, wait, system)
            ), as_it_is
        received = self._receive(call, known, limit, lease, wait)
        return asyncio.ensure_future(received), partial(self._answer, body, known, system, {}, lease)

    def _receive(
        self, call: Call, known: Known, limit: int, lease: int, wait: float
    ) -> Awaitable[list[Message]]:
        request = call.request
        holder = request.principal.name or request.address
        gone = request.client.gone() if wait else None
        return self._queues.receive(
            call.queue, limit, lease, wait, holder, request.client, gone, whole_groups=known.fifo
        )

    # --- with more to do than to receive ------------------------------------------------------------

    async def _receive_slowly(
        self, call: Call, known: Known, limit: int, lease: int, wait: float, system: frozenset[str]
    ) -> Result:
        attempt = call.body.receive_request_attempt_id
        messages = await self._again(known, attempt, lease) if attempt is not None else []
        if not messages:
            messages = await self._receive(call, known, limit, lease, wait)
            if attempt is not None and messages:
                self._attempts.put(known.number, attempt, messages)
        if call.query:
            messages = await self._what_xml_carries(call, messages)
        lives: dict[int, Life] = {}
        if system & _OF_ITS_LIFE:
            for message in messages:
                if message.deliveries > 1 or message.queue != known.number or attempt is not None:
                    life = await self._store.find(message.number)
                    if life is not None:
                        lives[message.number] = life
        return self._answer(call.body, known, system, lives, lease, messages)

    async def _again(self, known: Known, attempt: str, lease: int) -> list[Message]:
        """What the same attempt was given already and still has, its leases counted from now on."""
        before = self._attempts.get(known.number, attempt)
        if not before:
            return []
        if lease < 0:
            lease = known.own_lease
        extensions = [Extension(message.number, lease, message.delivery) for message in before]
        results = await self._store.extend(known.name, extensions)
        return [
            msgspec.structs.replace(message, lease_until=until)
            for message, until in zip(before, results, strict=True)
            if type(until) is int  # else it is settled, or somebody else's
        ]

    async def _what_xml_carries(self, call: Call, messages: list[Message]) -> list[Message]:
        """Those that can be answered in XML; the others are given back, and with one of a group those behind
        it. Raises SqsError if none is left."""
        good: list[Message] = []
        held_up: set[str] = set()
        for message in messages:
            if message.group not in held_up and not _cannot(message):
                good.append(message)
            elif message.group is not None:
                held_up.add(message.group)
        if len(good) < len(messages):
            for message in messages:
                if message not in good:
                    await self._store.release(call.queue, message.number, message.delivery, counts=False)
            if not good:
                raise SqsError(
                    "InvalidMessageContents",
                    "The next message has characters that XML cannot carry. It stays in the queue: receive it"
                    " with a client that speaks JSON, or over HTTP.",
                )
        return good

    # --- the answer -------------------------------------------------------------------------------

    def _answer(
        self,
        wanted: ReceiveMessage,
        known: Known,
        system: frozenset[str],
        lives: dict[int, Life],
        lease: int,
        messages: Sequence[Message],
    ) -> Result:
        if not messages:
            return {}
        number = self._store.queue_number(known.name)
        given = known.own_lease if lease < 0 else lease
        return {
            "Messages": [self._one(wanted, known, number, system, lives, given, each) for each in messages]
        }

    def _one(
        self,
        wanted: ReceiveMessage,
        known: Known,
        queue: int,
        system: frozenset[str],
        lives: dict[int, Life],
        lease: int,
        message: Message,
    ) -> Result:
        body = body_of(message.content)
        result: Result = {
            "MessageId": self._ids.uuid(message.queue, message.number),
            "ReceiptHandle": self._ids.receipt(queue, message.number, message.delivery).decode(),
            "MD5OfBody": md5(body.encode(), usedforsecurity=False).hexdigest(),
            "Body": body,
        }
        if not (system or wanted.message_attribute_names):
            return result
        attributes, own = message_attributes.of_headers(message.headers)
        if system:
            result["Attributes"] = self._system(known, system, message, own, lives.get(message.number), lease)
        if wanted.message_attribute_names and attributes:
            chosen = message_attributes.selected(attributes, wanted.message_attribute_names)
            if chosen:
                result["MD5OfMessageAttributes"] = message_attributes.md5(chosen)
                result["MessageAttributes"] = message_attributes.result(chosen)
        return result

    def _system(
        self,
        known: Known,
        wanted: frozenset[str],
        message: Message,
        own: dict[str, str],
        life: Life | None,
        lease: int,
    ) -> dict[str, str]:
        """The system attributes that were asked for and are there."""
        leased_at = message.lease_until - lease
        found: dict[str, str | None] = {
            "SenderId": ACCOUNT,
            "SentTimestamp": str(message.enqueued_at),
            "ApproximateReceiveCount": str(message.deliveries),
            "AWSTraceHeader": own.get(message_attributes.TRACE),
            "MessageGroupId": message.group or own.get(message_attributes.GROUP),
        }
        if "ApproximateFirstReceiveTimestamp" in wanted:
            found["ApproximateFirstReceiveTimestamp"] = str(_first_received(life) or leased_at)
        if known.fifo:
            found["SequenceNumber"] = sequence_number(message.number)
            found["MessageDeduplicationId"] = own.get(message_attributes.DEDUPLICATION)
        source = _dead_lettered_from(life)
        if source is not None:
            found["DeadLetterQueueSourceArn"] = arn_of(source)
        return {name: value for name, value in found.items() if value is not None and name in wanted}


def _wanted(body: ReceiveMessage, known: Known) -> tuple[int, int, float]:
    """(most messages, lease in ms or -1 for the queue's, seconds to wait). Raises SqsError."""
    limit = 1 if body.max_number_of_messages is None else body.max_number_of_messages
    if not 1 <= limit <= _MOST:
        raise invalid("MaxNumberOfMessages", limit, "Must be between 1 and 10, if provided.")
    lease = known.lease
    if body.visibility_timeout is not None:
        lease = check_timeout(body.visibility_timeout) * 1000
    wait = known.wait if body.wait_time_seconds is None else body.wait_time_seconds
    if not 0 <= wait <= MAX_WAIT:
        raise invalid("WaitTimeSeconds", wait, "Must be >= 0 and <= 20, if provided.")
    attempt = body.receive_request_attempt_id
    if attempt is not None:
        if not known.fifo:
            raise invalid(
                "ReceiveRequestAttemptId",
                attempt,
                "The request include parameter that is not valid for this queue type.",
            )
        check_id("ReceiveRequestAttemptId", attempt)
    return limit, lease, wait


def check_timeout(seconds: int) -> int:
    """A VisibilityTimeout. Raises SqsError."""
    if not 0 <= seconds <= MAX_LEASE:
        raise invalid("VisibilityTimeout", seconds, "Must be between 0 and 43200, if provided.")
    return seconds


@lru_cache(maxsize=256)
def _system(names: frozenset[str]) -> frozenset[str]:
    """The system attributes that are asked for, by either parameter. Raises SqsError."""
    for name in sorted(names - _KNOWN):
        raise SqsError("InvalidAttributeName", f"Unknown Attribute {name[:256]}.")
    return frozenset(_SYSTEM) if "All" in names else names


def body_of(content: bytes) -> str:
    """A content as a Body: a string is itself, anything else its JSON text."""
    return _text(content) if content.startswith(b'"') else content.decode()


def _cannot(message: Message) -> bool:
    """Whether XML cannot carry it."""
    return bool(XML_CANNOT.search(body_of(message.content)) or XML_CANNOT.search(_headers(message)))


def _headers(message: Message) -> str:
    attributes, own = message_attributes.of_headers(message.headers)
    return "".join([*own.values(), *map(_whole, attributes.items())])


def _whole(attribute: tuple[str, Any]) -> str:
    name, value = attribute
    return f"{name}{value.data_type}{value.string_value or ''}"


def _events(life: Life | None) -> list[dict[str, Any]]:
    """What happened to a message since it was sent, or since a redrive made a new start of it."""
    events = life.events if life is not None else []
    for at in range(len(events) - 1, -1, -1):
        if events[at]["event"] == "redriven":
            return events[at:]
    return events


def _first_received(life: Life | None) -> int | None:
    for event in _events(life):
        if event["event"] == "leased":
            return round(datetime.fromisoformat(event["at"]).timestamp() * 1000)
    return None


def _dead_lettered_from(life: Life | None) -> str | None:
    """The queue out of which a message came here as a dead letter."""
    for event in reversed(_events(life)):
        if event["event"] == "dead" and "from" in event:
            source: str = event["from"]
            return source
    return None
