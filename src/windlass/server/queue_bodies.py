"""What clients send to the hot routes of queues: bodies and parameters, checked while they are parsed.

The types here are also what `/openapi.json` describes (queue_docs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from windlass.errors import Invalid, TooLarge
from windlass.message import (
    MAX_BATCH,
    MAX_BATCH_BYTES,
    MAX_DELAY,
    MAX_LEASE,
    MAX_SECONDS,
    MAX_WAIT,
    Once,
    Options,
)
from windlass.server.body import MAX_DEPTH, check_depth, check_text, decode

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


def parse_messages(body: bytes) -> tuple[list[bytes], list[Options] | None, bool]:
    """(contents, their options or None, whether it was one message) of a send's body."""
    check_text(body)
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


def parse_receive(body: bytes) -> tuple[int | None, float, int | None]:
    """(lease in ms, -1: the queue's, None: none; wait in s; max) of a receive's body."""
    check_text(body)
    wanted = decode(_receive, body) if body.strip() else ReceiveBody()
    lease: int | None = None
    if wanted.lease is True:
        lease = -1
    elif wanted.lease is not None and wanted.lease is not False:
        lease = round(wanted.lease * 1000)
    return lease, wanted.wait, wanted.max


def parse_outcome(body: bytes) -> bytes | None:
    """The outcome that an acknowledgement's body carries, if any."""
    if not body.strip():
        return None
    check_text(body)
    return _raw(decode(_outcome, body).outcome, "outcome")


def parse_acks(body: bytes) -> list[tuple[str, bytes | None]]:
    """(receipt, outcome) of each acknowledgement."""
    check_text(body)
    acks = decode(_acks, body).acks
    return [(ack.receipt, _raw(ack.outcome, f"acks[{index}].outcome")) for index, ack in enumerate(acks)]


def parse_lease(body: bytes) -> tuple[int, int]:
    """(lease in ms, 0: give it back; delay in ms)."""
    check_text(body)
    wanted = decode(_lease, body)
    if wanted.lease and wanted.delay:
        raise Invalid("A delay goes with a lease of 0: it gives the message back.", field="delay")
    return round(wanted.lease * 1000), round(wanted.delay * 1000)


def _raw(outcome: Raw | UnsetType, field: str) -> bytes | None:
    if outcome is UNSET:
        return None
    text = bytes(outcome)
    check_depth(text, field)
    return text


def once_of(key: bytes, caller: str, method: str, path: str, body: bytes) -> Once:
    """The Idempotency-Key of a request, scoped to caller, method and path. Raises Invalid."""
    if not 1 <= len(key) <= 255 or not all(32 <= byte < 127 for byte in key):
        raise Invalid("An Idempotency-Key has 1 to 255 printable ASCII characters.", field="Idempotency-Key")
    where = f"{caller}\n{method}\n{path}\n".encode("utf-8", "surrogateescape")
    return Once(blake2b(where + key, digest_size=24).digest(), blake2b(body, digest_size=24).digest())


@lru_cache(maxsize=256)  # a consumer asks the same question again and again
def parse_receive_query(query: bytes) -> tuple[int | None, float, int | None]:
    """(lease in ms, -1: the queue's, None: none; wait in s; max) of a GET's query. Raises Invalid."""
    lease: int | None = None
    wait, limit = 0.0, None
    for name, text in _pairs(query, "lease, wait and max"):
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


@lru_cache(maxsize=256)
def parse_wait(query: bytes) -> float:
    """The seconds of a query that may have a `wait` and nothing else. Raises Invalid."""
    wait = 0.0
    for name, text in _pairs(query, "wait"):
        if name != "wait":
            raise Invalid(f"There is no parameter {name[:50]!r}: use wait.", field=name[:50])
        wait = _number(name, text, MAX_WAIT)
    return wait


def _pairs(query: bytes, known: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=10)
    except (ValueError, UnicodeDecodeError):
        raise Invalid(f"The query cannot be read: use {known}.", field="query") from None


def _number(name: str, text: str, most: float) -> float:
    try:
        value = float(text) if text.isascii() and len(text) <= 32 and "_" not in text else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:  # NaN is not
        raise Invalid(f"{name} is a number of seconds from 0 to {most:,}.", field=name)
    return value
