"""Queues over plain HTTP, the hot routes: send, receive, acknowledge, extend, release.

Each handler takes a request that has arrived whole (lane.py), calls one verb, and says how its answer is
made of what the verb brings. They are described in `/openapi.json` by queue_docs.py, and a test holds the
two together. All other routes are FastAPI's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import msgspec

from windlass.clock import rfc3339
from windlass.errors import QueueNotFound, ReceiptGone, ReceiptStale, ReceiptUnknown
from windlass.message import Acknowledgement, Extension, Message, Sent, Settled
from windlass.queues import Queues
from windlass.server.auth import RECEIVE, SEND
from windlass.server.lane import Answer, Begun, Handler, Request
from windlass.server.queue_bodies import (
    once_of,
    parse_acks,
    parse_lease,
    parse_messages,
    parse_outcome,
    parse_receive,
    parse_receive_query,
)

_encode = msgspec.json.Encoder().encode
_STATUSES = ("acknowledged", "stale", "gone")


class QueueApi:
    """The hot routes."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._store = queues.store
        self._ids = queues.ids
        self.routes: dict[tuple[str, str], Handler] = {
            ("POST", "/queues/{name}/messages"): self.send,
            ("GET", "/queues/{name}/messages"): self.get,
            ("POST", "/queues/{name}/receive"): self.post_receive,
            ("DELETE", "/queues/{name}/receipts/{receipt}"): self.acknowledge,
            ("PATCH", "/queues/{name}/receipts/{receipt}"): self.extend,
            ("POST", "/queues/{name}/acks"): self.acknowledge_many,
        }
        """(method, path) -> handler."""

    # --- send -------------------------------------------------------------------------------------

    def send(self, request: Request) -> Begun:
        principal, queue, body = request.principal, request.queue, request.body
        principal.demand(SEND, queue)
        contents, options, single = parse_messages(body)
        once = None
        if b"idempotency-key" in request.headers:
            key = request.headers[b"idempotency-key"]
            once = once_of(key, principal.name, request.method, request.path, body)
        sent = asyncio.ensure_future(self._store.send(queue, contents, options, once))
        return sent, self._sent_one if single else self._sent_many

    def _sent_one(self, sent: Sent) -> Answer:
        one = self._ids.message(sent.queue, sent.numbers[0])
        duplicate = sent.duplicates is not None and sent.duplicates[0]
        return (200, _DUPLICATE % one) if duplicate else (201, _SENT % one)

    def _sent_many(self, sent: Sent) -> Answer:
        ids = self._ids.messages(sent.queue, sent.numbers)
        if sent.duplicates is None:
            return (
                201,
                b'{"messages":[{"id":"%b","duplicate":false}]}' % b'","duplicate":false},{"id":"'.join(ids),
            )
        parts = [
            (_DUPLICATE if known else _SENT) % one for one, known in zip(ids, sent.duplicates, strict=True)
        ]
        return 201, b'{"messages":[%b]}' % b",".join(parts)

    # --- receive ----------------------------------------------------------------------------------

    def get(self, request: Request) -> Begun:
        query = request.query
        return self._receive(request, *(parse_receive_query(query) if query else (None, 0, None)))

    def post_receive(self, request: Request) -> Begun:
        return self._receive(request, *parse_receive(request.body))

    def _receive(self, request: Request, lease: int | None, wait: float, limit: int | None) -> Begun:
        principal, queue, client = request.principal, request.queue, request.client
        principal.demand(RECEIVE, queue)
        holder = principal.name or request.address
        gone = client.gone() if wait else None
        received = self._queues.receive(queue, limit or 1, lease, wait, holder, client, gone)
        return asyncio.ensure_future(received), partial(self._received, queue, limit is None)

    def _received(self, queue: str, single: bool, messages: Sequence[Message]) -> Answer:
        if not messages:
            return 204, b""
        texts = self._render(messages, queue)
        return (200, texts[0]) if single else (200, b'{"messages":[%b]}' % b",".join(texts))

    def _render(self, messages: Sequence[Message], queue: str) -> list[bytes]:
        first = messages[0]
        leased = self._store.queue_number(queue) if first.delivery else 0
        if len(messages) > 1 and all(message.queue == first.queue for message in messages):
            ids = self._ids.messages(first.queue, [message.number for message in messages])
        else:
            ids = [self._ids.message(message.queue, message.number) for message in messages]
        texts = [render(message, one) for message, one in zip(messages, ids, strict=True)]
        if not leased:
            return texts
        return [
            b'%b,"receipt":"%b","lease_until":"%b"}'
            % (
                text[:-1],
                self._ids.receipt(leased, message.number, message.delivery),
                rfc3339(message.lease_until),
            )
            for text, message in zip(texts, messages, strict=True)
        ]

    # --- settle -----------------------------------------------------------------------------------

    def acknowledge(self, request: Request) -> Begun:
        request.principal.demand(RECEIVE, request.queue)
        outcome = parse_outcome(request.body) if request.body else None
        number, delivery = self._parse(request, request.rest)
        settled = self._store.acknowledge(request.queue, [Acknowledgement(number, delivery, outcome)])
        return asyncio.ensure_future(settled), _acknowledged

    def extend(self, request: Request) -> Begun:
        queue = request.queue
        request.principal.demand(RECEIVE, queue)
        lease, delay = parse_lease(request.body)
        number, delivery = self._parse(request, request.rest)
        if lease:
            extended = self._store.extend(queue, [Extension(number, lease, delivery)])
            return asyncio.ensure_future(extended), _extended
        return asyncio.ensure_future(self._store.release(queue, number, delivery, delay)), _nothing

    def acknowledge_many(self, request: Request) -> Begun:
        queue = request.queue
        request.principal.demand(RECEIVE, queue)
        acks = parse_acks(request.body)
        self._store.queue_number(queue)
        parsed: list[Acknowledgement | str] = []
        for receipt, outcome in acks:
            try:
                number, delivery = self._parse(request, receipt)
                parsed.append(Acknowledgement(number, delivery, outcome))
            except ReceiptUnknown:
                parsed.append("unknown")
            except ReceiptGone:
                parsed.append("gone")

        def answer(results: Sequence[Settled]) -> Answer:
            settled = iter(results)
            listed = [
                {"receipt": receipt, "status": one if isinstance(one, str) else _STATUSES[next(settled)]}
                for (receipt, _), one in zip(acks, parsed, strict=True)
            ]
            return 200, _encode({"results": listed})

        known = [ack for ack in parsed if not isinstance(ack, str)]
        return asyncio.ensure_future(self._store.acknowledge(queue, known)), answer

    def _parse(self, request: Request, receipt: str) -> tuple[int, int]:
        """(number, delivery) of this queue's receipt. Raises QueueNotFound, ReceiptUnknown, ReceiptGone."""
        parsed = self._ids.parse_receipt(receipt)
        number = self._store.queue_number(request.queue)
        if parsed is None:
            raise ReceiptUnknown
        if parsed[0] != number:
            if self._store.has_queue_number(parsed[0]):
                raise ReceiptUnknown("This receipt is of another queue.")
            if self._store.shared and not request.tried:
                raise QueueNotFound  # unknown here; the queue may have been made anew under its name
            raise ReceiptGone
        return parsed[1], parsed[2]


def _acknowledged(results: Sequence[Settled]) -> Answer:
    if results[0] is Settled.ACKNOWLEDGED:
        return 204, b""
    raise ReceiptStale if results[0] is Settled.STALE else ReceiptGone


def _extended(results: Sequence[int | Settled]) -> Answer:
    (until,) = results
    if isinstance(until, Settled):
        return _acknowledged([until])
    return 200, b'{"lease_until":"%b"}' % rfc3339(until)


def _nothing(_: None) -> Answer:
    return 204, b""


_SENT = b'{"id":"%b","duplicate":false}'
_DUPLICATE = b'{"id":"%b","duplicate":true}'


def render(message: Message, one: bytes) -> bytes:
    """A message as JSON, `one` being its id; its content as it came, left out where it is no longer kept."""
    group = message.group
    return b'{"id":"%b",%b"enqueued_at":"%b","deliveries":%d,"priority":%d,"group":%b,"headers":%b}' % (
        one,
        b'"content":%b,' % message.content if message.content else b"",
        rfc3339(message.enqueued_at),
        message.deliveries,
        message.priority,
        b"null" if group is None else _encode(group),
        message.headers or b"{}",
    )
