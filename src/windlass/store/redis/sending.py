"""send: the call that it is, and what comes of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from windlass.errors import IdempotencyFull, IdempotencyKeyReused, QueueFull, TooLarge, WindlassError
from windlass.ids import PLACE_BITS
from windlass.message import Once, Options, Sent
from windlass.store.redis import library
from windlass.store.redis.call import Argument, Call, new_future, whole
from windlass.store.redis.memory import Memory
from windlass.store.redis.records import encode


def call_of(
    memory: Memory,
    queue: str,
    contents: Sequence[bytes],
    options: Sequence[Options] | None,
    once: Once | None,
) -> Call:
    """Raises QueueNotFound; ValueError or TypeError for what cannot be said to Redis."""
    size = sum(map(len, contents))
    number = memory.number(queue)
    if options is None and once is None:
        amount = len(contents)
        call = Call(new_future(), "send", number, contents, whole, parts=1, label=amount, size=size)
        call.decode = partial(_sent, call, queue, amount)
    else:
        args: list[Argument] = [once.key, once.fingerprint] if once is not None else ["", ""]
        for content, each in zip(contents, options or [Options()] * len(contents), strict=True):
            args += [content, _packed(each)]
        call = Call(new_future(), "send_with", number, args, whole)
        call.decode = partial(_sent_with, call, queue)
    return call


def _packed(options: Options) -> bytes:
    return encode(
        (
            options.delay,
            False if options.ttl is None else options.ttl,
            options.priority,
            False if options.group is None else options.group,
            False if options.dedup_id is None else options.dedup_id,
            False if options.headers is None else options.headers.decode(),
        )
    )


def _sent(call: Call, queue: str, amount: int, parts: Sequence[Any]) -> Sent | None:
    (first,) = parts
    if isinstance(first, list):
        call.error = _refusal(queue, first)
        return None
    start = call.number << PLACE_BITS | int(first)
    return Sent(call.number, range(start, start + amount))


def _sent_with(call: Call, queue: str, reply: Any) -> Sent | None:
    answer = reply[0]
    if answer[0] != b"sent":
        call.error = _refusal(queue, answer)
        return None
    numbers = [call.number << PLACE_BITS | int(place) for place in answer[1]]
    duplicates = [bool(known) for known in answer[2]]
    return Sent(call.number, numbers, duplicates if any(duplicates) else None)


def _refusal(queue: str, answer: Sequence[Any]) -> WindlassError:
    """Why a send was not taken."""
    if answer[0] == b"full":
        return QueueFull(
            f"Queue {queue!r} holds {answer[1]:,} messages, and there is no room for these (max_length)."
            " Try again when some have left.",
            retry_after=1,
        )
    if answer[0] == b"large":
        return TooLarge(
            f"The content has {answer[1]:,} bytes; queue {queue!r} takes fewer (max_message_bytes).",
            field="content",
        )
    if answer[0] == b"reused":
        return IdempotencyKeyReused(field="Idempotency-Key")
    return IdempotencyFull(
        f"{library.MAX_ANSWERS:,} Idempotency-Keys of this queue are remembered, the most there may be;"
        " each is kept 24 h.",
        retry_after=60,
    )
