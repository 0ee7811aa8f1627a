"""Receives of FIFO queues that may be repeated: what an attempt id was given, for five minutes.

It is this server's memory: a repeat that comes to another one is a receive of its own, and gets what follows
once the leases of the first have run out.
"""

from __future__ import annotations

from collections.abc import Sequence

from cachetools import TTLCache

from windlass.message import Message

_KEPT = 300.0
_MOST = 10_000


class Attempts:
    """(queue's number, attempt id) -> the messages."""

    def __init__(self) -> None:
        self._given: TTLCache[tuple[int, str], Sequence[Message]] = TTLCache(_MOST, _KEPT)

    def put(self, queue: int, attempt: str, messages: Sequence[Message]) -> None:
        self._given[queue, attempt] = messages

    def get(self, queue: int, attempt: str) -> Sequence[Message]:
        return self._given.get((queue, attempt), ())
