"""Time for the whole of Windlass: milliseconds since 1970, from a clock that never jumps.

The wall clock is read once, when the clock is made; from then on the monotonic clock carries it
forward. A wall clock that is set an hour either way therefore moves no lease, delay or ttl. What a
store remembers of an earlier process's time is the least that a new clock starts from, so time never
runs backwards across a restart either.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where the store and the rules above it take the time from. Tests bring their own."""

    def now(self) -> int:
        """Milliseconds since the epoch; never less than an earlier answer."""
        ...

    def not_before(self, moment: int) -> None:
        """Move the clock forward to `moment` (ms) if it is behind."""
        ...


class SystemClock:
    """The wall clock at the start, carried on by the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        return (self._offset + time.monotonic_ns()) // 1_000_000

    def not_before(self, moment: int) -> None:
        behind = moment - self.now()
        if behind > 0:
            self._offset += behind * 1_000_000

    def drift(self) -> float:
        """Seconds by which the wall clock is ahead of this one: it was set, or the machine slept."""
        return (time.time_ns() - time.monotonic_ns() - self._offset) / 1e9


class ManualClock:
    """A clock that stands still until it is told to move. For tests."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def not_before(self, moment: int) -> None:
        self._now = max(self._now, moment)

    def advance(self, seconds: float) -> None:
        self._now += round(seconds * 1000)


@lru_cache(maxsize=1024)
def _second(seconds: int) -> bytes:
    """A second's text, kept: messages are written in runs of a second, and leases end in others."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def rfc3339(moment: int) -> bytes:
    """`moment` (ms since the epoch) as RFC 3339 in UTC with milliseconds, ASCII."""
    seconds, millis = divmod(moment, 1000)
    return b"%b.%03dZ" % (_second(seconds), millis)
