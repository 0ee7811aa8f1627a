"""The receive loop's decisions: what to ask next, and when to stop. No IO."""

from __future__ import annotations

import time
from collections.abc import Callable

from windlass.client import calls
from windlass.client.call import Call
from windlass.client.calls import Received
from windlass.client.errors import NotSent

_HASTY = 0.5
"""Seconds to rest after a long poll that came back empty at once, as a stopping server answers it."""


class Intake:
    """One run of `Queue.receive`; see there for what the parameters mean."""

    def __init__(
        self,
        queue: str,
        *,
        lease: float | None,
        wait: float,
        most: int | None,
        batch: int,
        idle: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= batch <= calls.MAX_BATCH_MESSAGES:
            raise NotSent(f"batch is 1 to {calls.MAX_BATCH_MESSAGES}, not {batch}")
        self._queue = queue
        self._lease = lease
        self._wait = wait
        self._left = most
        self._batch = batch
        self._idle = idle if idle is not None or wait > 0 else 0.0
        self._clock = clock
        self._quiet_since = clock()
        self._asked_at = 0.0
        self._held = 0.0

    def poll(self) -> Call[Received] | None:
        """The next request, or None when the loop has come to its end."""
        if self._left is not None and self._left <= 0:
            return None
        now = self._clock()
        wait = self._wait
        if self._idle is not None:
            wait = min(wait, max(0.0, self._quiet_since + self._idle - now))
        most = self._batch if self._left is None else min(self._batch, self._left)
        self._asked_at, self._held = now, wait
        return calls.receive(self._queue, lease=self._lease, wait=wait, most=most)

    def took(self, count: int) -> float | None:
        """Note that `count` messages came and are dealt with, so that it is quiet from now on.

        Gives the seconds to rest before the next poll, None when the loop has come to its end.
        """
        now = self._clock()
        if count:
            self._quiet_since = now
            self._left = None if self._left is None else self._left - count
            return 0.0
        if self._idle is not None and now >= self._quiet_since + self._idle:
            return None
        early = now - self._asked_at < self._held / 2
        return min(_HASTY, self._held) if early else 0.0
