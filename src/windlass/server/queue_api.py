"""Queues over plain HTTP, the hot routes: send, receive, acknowledge, extend, release.

Bare ASGI functions: parse, call one verb, answer. They are described in `/openapi.json` by
queue_docs.py, and a test holds the two together. All other routes are FastAPI's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from windlass.clock import rfc3339
from windlass.errors import Invalid, ReceiptGone, ReceiptStale, ReceiptUnknown, TooLarge
from windlass.message import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MAX_DELAY,
    MAX_LEASE,
    MAX_SECONDS,
    MAX_WAIT,
    Acknowledgement,
    Message,
    Once,
    Options,
    Settled,
)
from windlass.queues import Queues
from windlass.server.auth import RECEIVE, SEND, Principal
from windlass.server.body import MAX_DEPTH, Reading, check_depth, check_text, decode

Scope = MutableMapping[str, Any]
ReceiveEvent = Callable[[], Awaitable[Any]]
SendEvent = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[bytes, bytes]
Answer = tuple[int, bytes]

Label = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class PlainBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message with nothing but a content."""

    content: Raw


class PlainBatch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: Annotated[list[PlainBody], Meta(min_length=1, max_length=MAX_BATCH)]


class MessageBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message to send."""

    content: Raw
    delay: Annotated[float, Meta(ge=0, le=MAX_DELAY, description="Seconds until it is ready.")] = 0
    ttl: Annotated[float, Meta(gt=0, le=MAX_SECONDS, description="Seconds until it expires.")] | None = None
    priority: Annotated[int, Meta(ge=0, le=9, description="9 leaves first.")] = 0
    group: Label | None = None
    dedup_id: Label | None = None
    headers: dict[str, str] | None = None


class BatchBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Messages to send, all or none."""

    messages: Annotated[list[MessageBody], Meta(min_length=1, max_length=MAX_BATCH)]


class _Kind(msgspec.Struct, gc=False):
    """Tells a batch from a single message, whatever the order of the fields."""

    messages: Raw | UnsetType = UNSET


class ReceiveBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """How to receive. Without `lease` messages are removed; `true` takes the queue's lease_seconds."""

    lease: Annotated[float, Meta(ge=0, le=MAX_LEASE)] | bool | None = None
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = 0
    max: Annotated[int, Meta(ge=1, le=MAX_BATCH)] | None = None


class OutcomeBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What came of the message: any JSON."""

    outcome: Raw | UnsetType = UNSET


class AckBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    receipt: Annotated[str, Meta(max_length=200)]
    outcome: Raw | UnsetType = UNSET


class AcksBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Receipts to acknowledge."""

    acks: Annotated[list[AckBody], Meta(max_length=MAX_BATCH)]


class LeaseBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A lease from now, in seconds; 0 gives the message back, ready after `delay` seconds."""

    lease: Annotated[float, Meta(ge=0, le=MAX_LEASE)]
    delay: Annotated[float, Meta(ge=0, le=MAX_DELAY)] = 0


_plain = msgspec.json.Decoder(PlainBody)
_plain_batch = msgspec.json.Decoder(PlainBatch)
_kind = msgspec.json.Decoder(_Kind)
_single = msgspec.json.Decoder(MessageBody)
_batch = msgspec.json.Decoder(BatchBody)
_receive = msgspec.json.Decoder(ReceiveBody)
_outcome = msgspec.json.Decoder(OutcomeBody)
_acks = msgspec.json.Decoder(AcksBody)
_lease = msgspec.json.Decoder(LeaseBody)
_encode = msgspec.json.Encoder().encode

_LENGTHS = [b"%d" % n for n in range(4096)]
_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")
_EMPTY = {"type": "http.response.body", "body": b""}
_START_204 = {"type": "http.response.start", "status": 204, "headers": [_NO_STORE]}
_STATUSES = ("acknowledged", "stale", "gone")


class Hangup:
    """A client watched while it waits: gone once its connection says so."""

    __slots__ = ("gone",)

    def __init__(self, receive: ReceiveEvent) -> None:
        self.gone = asyncio.ensure_future(_until_disconnect(receive))

    @property
    def disconnected(self) -> bool:
        return self.gone.done()


async def _until_disconnect(receive: ReceiveEvent) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class QueueApi:
    """The hot routes. Each takes (scope, receive, headers, principal, queue name, rest of the path)."""

    def __init__(self, queues: Queues, reading: Reading) -> None:
        self._queues = queues
        self._store = queues.store
        self._ids = queues.ids
        self._reading = reading
        handler = Callable[[Scope, ReceiveEvent, Headers, Principal, str, str], Awaitable[Answer]]
        self.routes: dict[tuple[str, str], handler] = {
            ("POST", "messages"): self.send,
            ("GET", "messages"): self.get,
            ("POST", "receive"): self.post_receive,
            ("DELETE", "receipts/"): self.acknowledge,
            ("PATCH", "receipts/"): self.extend,
            ("POST", "acks"): self.acknowledge_many,
        }
        """(method, part after the queue's name) -> handler; a slash at the end takes one part more."""

    # --- send -------------------------------------------------------------------------------------

    async def send(
        self, scope: Scope, receive: ReceiveEvent, headers: Headers, principal: Principal, queue: str, _: str
    ) -> Answer:
        principal.demand(SEND, queue)
        body = await self._reading.read(receive)
        check_text(body)
        contents, options, single = parse_messages(body)
        once = None
        if b"idempotency-key" in headers:
            once = once_of(headers[b"idempotency-key"], scope, principal, body)
        sent = await self._store.send(queue, contents, options, once)
        if single:
            duplicate = sent.duplicates is not None and sent.duplicates[0]
            return (
                (200, _DUPLICATE % self._ids.message(sent.queue, sent.numbers[0]))
                if duplicate
                else (
                    201,
                    _SENT % self._ids.message(sent.queue, sent.numbers[0]),
                )
            )
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

    async def get(
        self, scope: Scope, receive: ReceiveEvent, _: Headers, principal: Principal, queue: str, __: str
    ) -> Answer:
        query = scope["query_string"]
        if not query:
            return await self._receive(scope, receive, principal, queue, None, 0, None)
        lease, wait, limit = parse_receive_query(query)
        return await self._receive(scope, receive, principal, queue, lease, wait, limit)

    async def post_receive(
        self, scope: Scope, receive: ReceiveEvent, _: Headers, principal: Principal, queue: str, __: str
    ) -> Answer:
        body = await self._reading.read(receive)
        check_text(body)
        wanted = decode(_receive, body) if body.strip() else ReceiveBody()
        lease: int | None = None
        if wanted.lease is True:
            lease = -1
        elif wanted.lease is not None and wanted.lease is not False:
            lease = round(wanted.lease * 1000)
        return await self._receive(scope, receive, principal, queue, lease, wanted.wait, wanted.max)

    async def _receive(
        self,
        scope: Scope,
        receive: ReceiveEvent,
        principal: Principal,
        queue: str,
        lease: int | None,
        wait: float,
        limit: int | None,
    ) -> Answer:
        principal.demand(RECEIVE, queue)
        holder = principal.name or (scope.get("client") or ("",))[0]
        if wait:
            hangup = Hangup(receive)
            try:
                messages = await self._queues.receive(
                    queue, limit or 1, lease, wait, holder, hangup, hangup.gone
                )
            finally:
                hangup.gone.cancel()
        else:
            # uvicorn's own record of the connection, where that is the server: no task for a short wait
            cycle = getattr(receive, "__self__", None)
            caller = cycle if hasattr(cycle, "disconnected") else None
            messages = await self._queues.receive(queue, limit or 1, lease, 0, holder, caller)
        if not messages:
            return 204, b""
        texts = self._render(messages, queue)
        return (200, texts[0]) if limit is None else (200, b'{"messages":[%b]}' % b",".join(texts))

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

    async def acknowledge(
        self,
        _: Scope,
        receive: ReceiveEvent,
        headers: Headers,
        principal: Principal,
        queue: str,
        receipt: str,
    ) -> Answer:
        principal.demand(RECEIVE, queue)
        outcome = None
        if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            body = await self._reading.read(receive)
            if body.strip():
                check_text(body)
                outcome = _raw(decode(_outcome, body).outcome, "outcome")
        number, delivery = self._parse(queue, receipt)
        result = (await self._store.acknowledge(queue, [Acknowledgement(number, delivery, outcome)]))[0]
        if result is Settled.ACKNOWLEDGED:
            return 204, b""
        raise ReceiptStale if result is Settled.STALE else ReceiptGone

    async def extend(
        self, _: Scope, receive: ReceiveEvent, __: Headers, principal: Principal, queue: str, receipt: str
    ) -> Answer:
        principal.demand(RECEIVE, queue)
        body = await self._reading.read(receive)
        check_text(body)
        wanted = decode(_lease, body)
        if wanted.lease and wanted.delay:
            raise Invalid("A delay goes with a lease of 0: it gives the message back.", field="delay")
        number, delivery = self._parse(queue, receipt)
        if wanted.lease:
            until = await self._store.extend(queue, number, delivery, round(wanted.lease * 1000))
            return 200, b'{"lease_until":"%b"}' % rfc3339(until)
        await self._store.release(queue, number, delivery, round(wanted.delay * 1000))
        return 204, b""

    async def acknowledge_many(
        self, _: Scope, receive: ReceiveEvent, __: Headers, principal: Principal, queue: str, ___: str
    ) -> Answer:
        principal.demand(RECEIVE, queue)
        body = await self._reading.read(receive)
        check_text(body)
        acks = decode(_acks, body).acks
        self._store.queue_number(queue)
        parsed: list[Acknowledgement | str] = []
        for index, ack in enumerate(acks):
            outcome = _raw(ack.outcome, f"acks[{index}].outcome")
            try:
                number, delivery = self._parse(queue, ack.receipt)
                parsed.append(Acknowledgement(number, delivery, outcome))
            except ReceiptUnknown:
                parsed.append("unknown")
            except ReceiptGone:
                parsed.append("gone")
        settled = iter(
            await self._store.acknowledge(queue, [ack for ack in parsed if not isinstance(ack, str)])
        )
        results = [
            {"receipt": ack.receipt, "status": one if isinstance(one, str) else _STATUSES[next(settled)]}
            for ack, one in zip(acks, parsed, strict=True)
        ]
        return 200, _encode({"results": results})

    def _parse(self, queue: str, receipt: str) -> tuple[int, int]:
        """(number, delivery) of this queue's receipt. Raises QueueNotFound, ReceiptUnknown, ReceiptGone."""
        parsed = self._ids.parse_receipt(receipt)
        number = self._store.queue_number(queue)
        if parsed is None:
            raise ReceiptUnknown
        if parsed[0] != number:
            if self._store.has_queue_number(parsed[0]):
                raise ReceiptUnknown("This receipt is of another queue.")
            raise ReceiptGone
        return parsed[1], parsed[2]


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


def parse_messages(body: bytes) -> tuple[list[bytes], list[Options] | None, bool]:
    """(contents, their options or None, whether it was one message) of a send's checked body."""
    try:
        # Most messages are plain: a decoder that knows only a content finds out at once, and is cheapest.
        if body.startswith(b'{"messages"'):
            contents = [bytes(message.content) for message in _plain_batch.decode(body).messages]
            _check_batch(contents, body)
            return contents, None, False
        content = bytes(_plain.decode(body).content)
    except (msgspec.DecodeError, RecursionError):
        return _parse_full(body)
    check_depth(content, "content")
    return [content], None, True


def _parse_full(body: bytes) -> tuple[list[bytes], list[Options] | None, bool]:
    single = decode(_kind, body).messages is UNSET
    messages = [decode(_single, body)] if single else decode(_batch, body).messages
    contents = [bytes(message.content) for message in messages]
    _check_batch(contents, body)
    return contents, [_options(message) for message in messages], single


def _check_batch(contents: Sequence[bytes], body: bytes) -> None:
    if sum(map(len, contents)) > MAX_BATCH_BYTES:
        raise TooLarge(f"A batch may carry {MAX_BATCH_BYTES:,} bytes of content.", field="messages")
    # Two brackets and one a message are the body's own: with hardly more, nothing is nested deep.
    if body.count(b"[") + body.count(b"{") <= len(contents) + MAX_DEPTH:
        return
    for index, content in enumerate(contents):
        if content[0] in b"[{":
            check_depth(content, "content" if len(contents) == 1 else f"messages[{index}].content")


def _options(body: MessageBody) -> Options:
    return Options(
        delay=round(body.delay * 1000),
        ttl=max(1, round(body.ttl * 1000)) if body.ttl is not None else None,
        priority=body.priority,
        group=body.group,
        dedup_id=body.dedup_id,
        headers=_encode(body.headers) if body.headers else None,
    )


def _raw(outcome: Raw | UnsetType, field: str) -> bytes | None:
    if outcome is UNSET:
        return None
    text = bytes(outcome)
    check_depth(text, field)
    return text


def once_of(key: bytes, scope: Scope, principal: Principal, body: bytes) -> Once:
    """The Idempotency-Key of a request, scoped to caller, method and path. Raises Invalid."""
    if not 1 <= len(key) <= 255 or not all(32 <= byte < 127 for byte in key):
        raise Invalid("An Idempotency-Key has 1 to 255 printable ASCII characters.", field="Idempotency-Key")
    where = f"{principal.name}\n{scope['method']}\n{scope['path']}\n".encode("utf-8", "surrogateescape")
    return Once(blake2b(where + key, digest_size=24).digest(), blake2b(body, digest_size=24).digest())


@lru_cache(maxsize=256)  # a consumer asks the same question again and again
def parse_receive_query(query: bytes) -> tuple[int | None, float, int | None]:
    """(lease in ms, -1: the queue's, None: none; wait in s; max) of a GET's query. Raises Invalid."""
    lease: int | None = None
    wait, limit = 0.0, None
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=10)
    except (ValueError, UnicodeDecodeError):
        raise Invalid("The query cannot be read: use lease, wait and max.", field="query") from None
    for name, text in pairs:
        if name == "lease":
            lease = -1 if text == "" else round(_number(name, text, MAX_LEASE) * 1000)
        elif name == "wait":
            wait = _number(name, text, MAX_WAIT)
        elif name == "max":
            limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
            if not 1 <= limit <= MAX_BATCH:
                raise Invalid(f"max is a whole number from 1 to {MAX_BATCH}.", field="max")
        else:
            raise Invalid(f"There is no parameter {name[:50]!r}: use lease, wait and max.", field=name[:50])
    return lease, wait, limit


def _number(name: str, text: str, most: float) -> float:
    try:
        value = float(text) if text.isascii() and len(text) <= 32 and "_" not in text else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:  # NaN is not
        raise Invalid(f"{name} is a number of seconds from 0 to {most:,}.", field=name)
    return value


async def reply(send: SendEvent, method: str, status: int, body: bytes) -> None:
    """Send one answer of a hot route. What a GET took may not be kept by anything on the way."""
    if status == 204:
        await send(_START_204)
        await send(_EMPTY)
        return
    size = len(body)
    length = _LENGTHS[size] if size < 4096 else b"%d" % size
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [_JSON, (b"content-length", length), _NO_STORE]
            if method == "GET"
            else [_JSON, (b"content-length", length)],
        }
    )
    await send({"type": "http.response.body", "body": body})
