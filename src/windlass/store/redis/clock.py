"""The time of the servers on which the store lies, carried on between their answers by a clock of our own."""

from __future__ import annotations

import time


class ServerClock:
    """Leases end by Redis's clock; whoever plans by it has to know it. Right to the time of a round trip."""

    def __init__(self) -> None:
        self._offset = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000

    def now(self) -> int:
        return self._offset + time.monotonic_ns() // 1_000_000

    def heard(self, now: int) -> None:
        """A server says what time it is."""
        self._offset = now - time.monotonic_ns() // 1_000_000

    def not_before(self, moment: int) -> None:
        """Nothing: the servers keep the time."""
