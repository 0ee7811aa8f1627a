"""Receives of FIFO queues that may be repeated: what an attempt id was given, for five minutes.

It is this server's memory: a repeat that comes to another one is a receive of its own, and gets what follows
once the leases of the first have run out. What is too much to be remembered is forgotten, oldest first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cachetools import TTLCache

from windlass.clock import Clock
from windlass.message import Message

_KEPT = 300_000
"""ms."""
_MOST = 64 * 1024 * 1024
"""Bytes of all that is remembered, about."""
_EACH = 500
"""Bytes of an attempt and of a message beside its texts, about."""


class Attempts:
    """(queue's number, attempt id) -> the messages."""

    def __init__(self, clock: Clock) -> None:
        self._given: TTLCache[tuple[int, str], Sequence[Message]] = TTLCache(
            _MOST, _KEPT, timer=clock.now, getsizeof=_size
        )

    def put(self, queue: int, attempt: str, messages: Sequence[Message]) -> None:
        with contextlib.suppress(ValueError):  # it is too much on its own
            self._given[queue, attempt] = messages

    def get(self, queue: int, attempt: str) -> Sequence[Message]:
        return self._given.get((queue, attempt), ())


def _size(messages: Sequence[Message]) -> int:
    return _EACH + sum(_EACH + len(each.content) + len(each.headers or b"") for each in messages)
