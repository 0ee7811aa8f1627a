"""receive: the call that it is, and the messages that it brings."""

from __future__ import annotations

from functools import partial
from typing import Any

from windlass.message import Message
from windlass.store.base import Caller
from windlass.store.redis.call import Argument, Call, new_future
from windlass.store.redis.memory import Memory
from windlass.store.redis.records import message_of

_ROOM = 8 * 1024
"""Bytes that a message is taken to have when requests are put together."""


def call_of(
    memory: Memory,
    queue: str,
    limit: int,
    lease: int | None,
    holder: str,
    caller: Caller | None,
    claim: str | None,
    whole_groups: bool,
) -> Call:
    """Raises QueueNotFound."""
    number, future = memory.number(queue), new_future()
    args: list[Argument] = [
        limit, "" if lease is None else lease, holder, claim or "", "1" if whole_groups else ""
    ]  # fmt: skip

    def abandoned() -> bool:
        return future.cancelled() or (caller is not None and caller.disconnected)

    decode = partial(_received, number)
    return Call(future, "receive", number, args, decode, parts=1, size=limit * _ROOM, abandoned=abandoned)


def _received(queue: int, answer: Any) -> list[Message]:
    (taken,) = answer
    return [
        message_of(queue, member, raw, deliveries, delivery, int(until))
        for member, raw, delivery, deliveries, until in taken
    ]
