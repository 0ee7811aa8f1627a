"""SendMessage and SendMessageBatch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from hashlib import md5, sha256
from typing import Any

import msgspec

from windlass.ids import Ids
from windlass.message import Options, Sent
from windlass.queues import Queues
from windlass.server.auth import SEND
from windlass.server.sqs import message_attributes
from windlass.server.sqs.attributes import MAX_SIZE
from windlass.server.sqs.batches import check_entries, failed
from windlass.server.sqs.call import Begun, Call, Hot, Result
from windlass.server.sqs.errors import XML_CANNOT, SqsError, invalid, missing
from windlass.server.sqs.known import Knowledge, Known
from windlass.server.sqs.requests import SendEntry, SendMessage

MAX_DELAY = 900
_ID = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,./:;<=>?@\[\\\]^_`{|}~-]{1,128}\Z")
_encode = msgspec.json.Encoder().encode
_NOT_OF_THIS_TYPE = "The request include parameter that is not valid for this queue type."


class Outgoing(msgspec.Struct, gc=False):
    """One message that may be sent."""

    content: bytes
    options: Options | None
    size: int
    answer: Result
    """MD5s, and in a batch the entry's Id."""


class Sending:
    """The actions, bound to the queues."""

    def __init__(self, queues: Queues, knowledge: Knowledge) -> None:
        self._store = queues.store
        self._ids: Ids = queues.ids
        self._knowledge = knowledge
        self.actions: dict[str, Hot] = {"SendMessage": self.send, "SendMessageBatch": self.send_batch}

    # --- one --------------------------------------------------------------------------------------

    def send(self, call: Call) -> Begun:
        call.request.principal.demand(SEND, call.queue)
        return self._knowledge.begin(call, self._send)

    def _send(self, call: Call, known: Known) -> Begun:
        one = outgoing(call.body, known)
        sent = self._store.send(call.queue, [one.content], None if one.options is None else [one.options])

        def finish(sent: Sent) -> Result:
            number = sent.numbers[0]
            return self._answer(one.answer, known, number, self._ids.uuid(sent.queue, number))

        return asyncio.ensure_future(sent), finish

    def _answer(self, answer: Result, known: Known, number: int, message_id: str) -> Result:
        answer["MessageId"] = message_id
        if known.fifo:
            answer["SequenceNumber"] = sequence_number(number)
        return answer

    # --- many -------------------------------------------------------------------------------------

    def send_batch(self, call: Call) -> Begun:
        call.request.principal.demand(SEND, call.queue)
        check_entries(call.body.entries)
        return self._knowledge.begin(call, self._send_batch)

    def _send_batch(self, call: Call, known: Known) -> Begun:
        outgoings: list[Outgoing] = []
        bad: list[Result] = []
        size = 0
        for entry in call.body.entries:
            try:
                one = outgoing(entry, known)
            except SqsError as error:
                bad.append(failed(entry.id, error))
                size += _size(entry)
            else:
                one.answer["Id"] = entry.id
                outgoings.append(one)
                size += one.size
        if size > MAX_SIZE:
            raise SqsError(
                "BatchRequestTooLong",
                f"Batch requests cannot be longer than {MAX_SIZE} bytes. You have sent {size} bytes.",
            )

        def finish(sent: Sent | None) -> Result:
            if sent is not None:
                ids = self._ids.uuids(sent.queue, sent.numbers)
                for one, number, message_id in zip(outgoings, sent.numbers, ids, strict=True):
                    self._answer(one.answer, known, number, message_id)
            return {"Successful": [one.answer for one in outgoings], "Failed": bad}

        if not outgoings:
            nothing: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing, finish
        sent = self._store.send(call.queue, [one.content for one in outgoings], _options(outgoings))
        return asyncio.ensure_future(sent), finish


def _size(entry: SendEntry) -> int:
    """The bytes that a message counts as that may not be sent."""
    return len(entry.message_body.encode()) + message_attributes.size(entry.message_attributes or {})


def _options(messages: Sequence[Outgoing]) -> list[Options] | None:
    if all(one.options is None for one in messages):
        return None
    return [one.options or _PLAIN for one in messages]


_PLAIN = Options()


def sequence_number(number: int) -> str:
    """A message's number as SQS writes it: 20 digits, growing."""
    return f"{number:020d}"


def outgoing(body: SendMessage | SendEntry, known: Known) -> Outgoing:
    """A message as the store takes it. Raises SqsError."""
    text = body.message_body
    if not text:
        raise missing("MessageBody")
    if not text.isprintable() and XML_CANNOT.search(text):  # no printable text has any of these
        raise SqsError(
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD |"
            " #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.",
        )
    raw = text.encode()
    size = len(raw)
    content = _encode(text)
    answer: Result = {"MD5OfMessageBody": md5(raw, usedforsecurity=False).hexdigest()}
    if _is_plain(body, known) and size <= known.most and len(content) <= known.most_text:
        return Outgoing(content, None, size, answer)
    headers: message_attributes.Headers = {}
    if body.message_attributes:
        size += message_attributes.check(body.message_attributes)
        headers = message_attributes.to_headers(body.message_attributes)
        answer["MD5OfMessageAttributes"] = message_attributes.md5(body.message_attributes)
    if body.message_system_attributes:
        trace = message_attributes.check_system(body.message_system_attributes)
        if trace is not None:
            if len(trace.encode()) > known.most:  # it counts as nothing, and yet it is kept
                raise _too_long(known)
            headers[message_attributes.TRACE] = trace
            answer["MD5OfMessageSystemAttributes"] = message_attributes.md5(body.message_system_attributes)
    if size > known.most or len(content) > known.most_text:
        raise _too_long(known)
    delay = known.delay
    if body.delay_seconds is not None:
        delay = _delay(body.delay_seconds, known)
    group = dedup = None
    if known.fifo:
        group, dedup = _fifo(body, known, raw, headers)
    else:
        _check_standard(body, headers)
    if not (headers or delay or group):
        return Outgoing(content, None, size, answer)
    options = Options(
        delay=delay * 1000, group=group, dedup_id=dedup, headers=_encode(headers) if headers else None
    )
    return Outgoing(content, options, size, answer)


def _too_long(known: Known) -> SqsError:
    return SqsError(
        "InvalidParameterValue",
        f"One or more parameters are invalid. Reason: Message must be shorter than {known.most} bytes.",
    )


def _is_plain(body: SendMessage | SendEntry, known: Known) -> bool:
    """Whether there is nothing to a message but its body, as with most: nothing else has to be looked at."""
    return (
        body.message_attributes is None
        and body.delay_seconds is None
        and body.message_group_id is None
        and body.message_deduplication_id is None
        and body.message_system_attributes is None
        and not (known.fifo or known.delay)
    )


def _delay(delay: int, known: Known) -> int:
    if not 0 <= delay <= MAX_DELAY:
        raise invalid("DelaySeconds", delay, "DelaySeconds must be >= 0 and <= 900.")
    if known.fifo:
        if delay:
            raise invalid("DelaySeconds", delay, _NOT_OF_THIS_TYPE)
        return known.delay
    return delay


def _fifo(
    body: SendMessage | SendEntry, known: Known, raw: bytes, headers: message_attributes.Headers
) -> tuple[str, str]:
    """(group, dedup id) of a message in a FIFO queue."""
    group, dedup = body.message_group_id, body.message_deduplication_id
    if not group:
        raise missing("MessageGroupId")
    check_id("MessageGroupId", group)
    if dedup is not None:
        check_id("MessageDeduplicationId", dedup)
    elif known.by_content:
        dedup = sha256(raw).hexdigest()
    else:
        raise SqsError(
            "InvalidParameterValue",
            "The queue should either have ContentBasedDeduplication enabled or"
            " MessageDeduplicationId provided explicitly",
        )
    headers[message_attributes.DEDUPLICATION] = dedup
    if known.by_group:
        dedup = sha256(f"{group}\n{dedup}".encode()).hexdigest()
    return group, dedup


def _check_standard(body: SendMessage | SendEntry, headers: message_attributes.Headers) -> None:
    if body.message_deduplication_id is not None:
        raise invalid("MessageDeduplicationId", body.message_deduplication_id, _NOT_OF_THIS_TYPE)
    if body.message_group_id is not None:
        # In a standard queue a group is for fairness among tenants: it holds nothing up.
        check_id("MessageGroupId", body.message_group_id)
        headers[message_attributes.GROUP] = body.message_group_id


def check_id(parameter: str, text: str) -> None:
    """Raise SqsError for what is no id of a group, a message or an attempt."""
    if not _ID.match(text):
        raise invalid(
            parameter,
            text,
            f"{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length.",
        )
