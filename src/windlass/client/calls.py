"""Every request the client knows, described once and without any IO.

A `Call` (call.py) says what to ask, how to read the answer, and whether asking again can do harm. A plan is a
generator of calls that belong together (the chunks of a long batch). `Client` and `AsyncClient` only
carry them out, so the two cannot differ in what they say to the server.

Whether a call may be repeated when its answer was lost, or when the server was too busy:

    looking (status, show, peek, message)   yes
    create, update, pause, resume           yes: the second time changes nothing
    acknowledge, extend, release            yes: the receipt is good for one delivery only
    delete, cancel                          yes: "not there" on a repeat means that the first one did it
    send                                    yes, because of its Idempotency-Key; without a key, never
    receive with a lease                    yes: what a lost answer held comes back when the lease ends
    take (plain removal)                    never: the message of the lost answer is gone already
    purge, redrive                          never: a repeat could meet messages that came later
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from windlass.client.call import Answer, Call, Plan, nothing, reader
from windlass.client.errors import BadAnswer, NoOutcome, NotSent, OutcomePending, WindlassError
from windlass.client.values import (
    Acknowledged,
    Message,
    MessageRecord,
    NewMessage,
    PeekState,
    QueueInfo,
    QueueSettings,
    QueueStats,
    Redriven,
    Sent,
    ServerStatus,
    WireMessage,
    WireRecord,
    to_json,
)

T = TypeVar("T")

MAX_BATCH_MESSAGES = 1000
MAX_BATCH_BYTES = 16 * 1024 * 1024
LONGEST_WAIT = 60.0
"""Seconds the server holds one request at most."""


class Received(NamedTuple):
    """The messages of one receive, and for how many seconds they are leased."""

    messages: list[WireMessage]
    lease_seconds: float


# The server


def status() -> Call[ServerStatus]:
    return Call(method="GET", path="/status", parse=reader(ServerStatus), repeatable=True)


# Queues


def create_queue(name: str, settings: QueueSettings) -> Call[QueueInfo]:
    if not isinstance(name, str):
        raise NotSent(f"a queue's name is text, not {type(name).__name__}")
    body = to_json({"name": name, **settings})
    return Call(method="POST", path="/queues", body=body, parse=reader(QueueInfo), repeatable=True)


def queues(prefix: str, page: int = 1000) -> Plan[list[QueueInfo]]:
    """All queues whose name begins with `prefix`, by name, page after page."""
    found: list[QueueInfo] = []
    query = {"limit": str(page)} | ({"prefix": prefix} if prefix else {})
    while True:
        answer: _QueuePage = yield Call(
            method="GET", path="/queues", query=query, parse=reader(_QueuePage), repeatable=True
        )
        found += answer.queues
        if answer.next is None:
            return found
        query = {**query, "after": answer.next}


def show(queue: str) -> Call[QueueStats]:
    return Call(method="GET", path=_path(queue), parse=reader(QueueStats), repeatable=True)


def update(queue: str, settings: QueueSettings) -> Call[QueueInfo]:
    body = to_json(settings)
    return Call(method="PATCH", path=_path(queue), body=body, parse=reader(QueueInfo), repeatable=True)


def delete(queue: str) -> Call[None]:
    return Call(
        method="DELETE",
        path=_path(queue),
        parse=nothing,
        repeatable=True,
        done_on_repeat=frozenset({"queue_not_found"}),
    )


def pause(queue: str) -> Call[QueueInfo]:
    path = _path(queue, "pause")
    return Call(method="POST", path=path, body="{}", parse=reader(QueueInfo), repeatable=True)


def resume(queue: str) -> Call[QueueInfo]:
    path = _path(queue, "resume")
    return Call(method="POST", path=path, body="{}", parse=reader(QueueInfo), repeatable=True)


def purge(queue: str) -> Call[int]:
    read = reader(_Purged)
    path = _path(queue, "purge")
    return Call(method="POST", path=path, body="{}", parse=lambda answer: read(answer).purged)


def redrive(queue: str, limit: int | None) -> Plan[int]:
    """Redrive until the server says that there are no more, or `limit` have moved; how many did."""
    moved = 0
    while True:
        body = {} if limit is None else {"max": limit - moved}
        step: Redriven = yield Call(
            method="POST", path=_path(queue, "redrive"), body=to_json(body), parse=reader(Redriven)
        )
        moved += step.redriven
        if step.done or (limit is not None and moved >= limit):
            return moved


# Sending


def send(queue: str, message: NewMessage, *, key: str | None, make_key: bool) -> Call[Sent]:
    """`key`: the user's own Idempotency-Key; without one, `make_key` says whether to make one up."""
    return _keyed(queue, message.to_json(), reader(Sent), key, make_key)


def send_batch(queue: str, bodies: Sequence[str], *, make_key: bool) -> Call[list[Sent]]:
    """`bodies`: what `NewMessage.to_json` gave for each message; at most one chunk of `chunks`."""
    read = reader(_SentBatch)

    def parse(answer: Answer) -> list[Sent]:
        sent = read(answer).messages
        if len(sent) != len(bodies):
            raise BadAnswer(f"the server took {len(bodies)} messages and answered for {len(sent)}")
        return sent

    body = f'{{"messages":[{",".join(bodies)}]}}'
    return _keyed(queue, body, parse, None, make_key)


def send_many(queue: str, messages: Iterable[Any], *, make_key: bool) -> Plan[list[Sent]]:
    """Send in chunks; when one fails, the error's `sent` tells what the chunks before it achieved."""
    sent: list[Sent] = []
    try:
        for chunk in chunks(as_message(message).to_json() for message in messages):
            sent += yield send_batch(queue, chunk, make_key=make_key)
    except WindlassError as error:
        error.sent = tuple(sent)
        raise
    return sent


def as_message(message: Any) -> NewMessage:
    """A `NewMessage` as it is; anything else is the content of one."""
    return message if isinstance(message, NewMessage) else NewMessage(message)


def chunks(bodies: Iterable[str]) -> Iterable[list[str]]:
    """Cut into batches the server takes: at most 1,000 messages and 16 MiB of body.

    A message that is too large by itself travels alone, and the server says so.
    """
    frame = len('{"messages":[]}')
    chunk: list[str] = []
    size = frame
    for body in bodies:
        length = (len(body) if body.isascii() else len(body.encode())) + 1
        if chunk and (len(chunk) == MAX_BATCH_MESSAGES or size + length > MAX_BATCH_BYTES):
            yield chunk
            chunk, size = [], frame
        chunk.append(body)
        size += length
    if chunk:
        yield chunk


# Receiving


def receive(queue: str, *, lease: float | None, wait: float, most: int) -> Call[Received]:
    """Take up to `most` messages on a lease of `lease` seconds (None: the queue's own)."""
    read = reader(_Messages)

    def parse(answer: Answer) -> Received:
        messages = [] if answer.status == 204 else read(answer).messages
        if any(message.receipt is None or message.lease_until is None for message in messages):
            raise BadAnswer("the server handed out a message without a lease")
        return Received(messages, lease if lease is not None else _lease_seconds(messages, answer))

    return Call(
        method="POST",
        path=_path(queue, "receive"),
        body=to_json({"lease": True if lease is None else lease, "wait": wait, "max": most}),
        parse=parse,
        repeatable=True,
        hold=wait,
    )


def take(queue: str, *, wait: float, most: int) -> Call[list[Message]]:
    """Take up to `most` messages for good. Never repeated: they are gone with the first answer."""
    read = reader(_Messages)

    def parse(answer: Answer) -> list[Message]:
        return [] if answer.status == 204 else [Message(queue, wire) for wire in read(answer).messages]

    body = to_json({"wait": wait, "max": most})
    return Call(method="POST", path=_path(queue, "receive"), body=body, parse=parse, hold=wait)


def acknowledge(queue: str, receipt: str, *, outcome: Any, has_outcome: bool) -> Call[None]:
    return Call(
        method="DELETE",
        path=_path(queue, "receipts", receipt),
        body=to_json({"outcome": outcome}) if has_outcome else None,
        parse=nothing,
        repeatable=True,
        done_on=frozenset({"receipt_gone"}),
    )


def acknowledge_many(queue: str, receipts: Iterable[str]) -> Plan[list[Acknowledged]]:
    """Acknowledge in chunks of 1,000; one result for each receipt, in order."""
    read = reader(_Results)
    path = _path(queue, "acks")
    waiting = list(receipts)
    results: list[Acknowledged] = []
    for start in range(0, len(waiting), MAX_BATCH_MESSAGES):
        acks = [{"receipt": receipt} for receipt in waiting[start : start + MAX_BATCH_MESSAGES]]
        answer: _Results = yield Call(
            method="POST", path=path, body=to_json({"acks": acks}), parse=read, repeatable=True
        )
        results += answer.results
    return results


def extend(queue: str, receipt: str, seconds: float) -> Call[datetime]:
    read = reader(_Extended)
    return Call(
        method="PATCH",
        path=_path(queue, "receipts", receipt),
        body=to_json({"lease": seconds}),
        parse=lambda answer: read(answer).lease_until,
        repeatable=True,
    )


def release(queue: str, receipt: str, delay: float) -> Call[None]:
    return Call(
        method="PATCH",
        path=_path(queue, "receipts", receipt),
        body=to_json({"lease": 0, "delay": delay} if delay else {"lease": 0}),
        parse=nothing,
        repeatable=True,
        done_on=frozenset({"receipt_gone"}),
        done_on_repeat=frozenset({"receipt_stale"}),
    )


# Looking


def peek(queue: str, *, most: int, state: PeekState) -> Call[list[Message]]:
    read = reader(_Messages)
    return Call(
        method="GET",
        path=_path(queue, "peek"),
        query={"max": str(most), "state": state},
        parse=lambda answer: [Message(queue, wire) for wire in read(answer).messages],
        repeatable=True,
    )


def message(queue: str, message_id: str, *, wait: float = 0.0) -> Call[MessageRecord]:
    read = reader(WireRecord)
    return Call(
        method="GET",
        path=_path(queue, "messages", message_id),
        query={"wait": f"{wait:g}"} if wait else {},
        parse=lambda answer: MessageRecord(read(answer)),
        repeatable=True,
        hold=wait,
    )


def cancel(queue: str, message_id: str) -> Call[None]:
    return Call(
        method="DELETE",
        path=_path(queue, "messages", message_id),
        parse=nothing,
        repeatable=True,
        done_on_repeat=frozenset({"message_gone"}),
    )


def outcome(
    queue: str, message_id: str, wait: float, clock: Callable[[], float] = time.monotonic
) -> Plan[Any]:
    """Wait up to `wait` seconds, in as many requests as it takes, for the message to be acknowledged."""
    deadline = clock() + wait
    while True:
        left = max(0.0, deadline - clock())
        record: MessageRecord = yield message(queue, message_id, wait=min(left, LONGEST_WAIT))
        if record.state == "acknowledged":
            return record.outcome
        if record.ended or record.state == "dead":
            raise NoOutcome(message_id, record.state)
        if clock() >= deadline:
            raise OutcomePending(
                f"message {message_id} has no outcome after {wait:g} s: it is {record.state}"
            )


# Reading answers


class _QueuePage(msgspec.Struct):
    queues: list[QueueInfo]
    next: str | None = None


class _SentBatch(msgspec.Struct):
    messages: list[Sent]


class _Messages(msgspec.Struct):
    messages: list[WireMessage]


class _Purged(msgspec.Struct):
    purged: int


class _Extended(msgspec.Struct):
    lease_until: datetime


class _Results(msgspec.Struct):
    results: list[Acknowledged]


def _keyed(queue: str, body: str, parse: Callable[[Answer], T], key: str | None, make_key: bool) -> Call[T]:
    made = key is None and make_key
    return Call(
        method="POST",
        path=_path(queue, "messages"),
        body=body,
        parse=parse,
        key=uuid.uuid4().hex if made else key,
        spare_key=made,
        repeatable=made or key is not None,
    )


def _path(queue: str, *parts: str) -> str:
    for part in (queue, *parts):
        if not isinstance(part, str) or not part.strip("."):
            raise NotSent(f"{part!r} cannot be a queue's name, an id or a receipt")
    return "/".join(["/queues", *(quote(part, safe="") for part in (queue, *parts))])


def _lease_seconds(messages: Sequence[WireMessage], answer: Answer) -> float:
    """How long the queue's own lease is, by the server's own clock so that a skew does not matter."""
    if not messages or messages[0].lease_until is None:
        return 0.0
    try:
        now = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        now = datetime.now(UTC)
    # The Date header is cut to whole seconds, which makes the lease look longer; so is this.
    return max(1.0, float(math.floor((messages[0].lease_until - now).total_seconds())))
