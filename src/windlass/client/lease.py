"""Leases of messages under work: whose turn it is to be extended, without any IO."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

from windlass.client.errors import Conflict, Gone, NotFound
from windlass.client.values import Message, WireMessage

Clock = Callable[[], float]

UNSET: Any = object()
"""Marks an outcome that was not given; None is an outcome like any other."""


class Leased(Message):
    """A message with a lease; `LeasedMessage` and `AsyncLeasedMessage` add the verbs.

    `receipt`: good for this one delivery. `lease_until`: the server's time at which the lease ends.
    `lost`: the lease is not ours any more; somebody else may get the message, so stop the work.
    `settled`: it was acknowledged or released here.
    """

    def __init__(self, queue: str, wire: WireMessage, lease_seconds: float, clock: Clock) -> None:
        super().__init__(queue, wire)
        assert wire.receipt is not None
        assert wire.lease_until is not None
        self.receipt = wire.receipt
        self.lease_until = wire.lease_until
        self.lease_seconds = lease_seconds
        self.lost = False
        self.settled = False
        self._clock = clock
        self._leased_at = clock()

    @property
    def extension_due(self) -> float:
        """The client's clock at which the next extension is due: a third into the lease."""
        return self._leased_at + self.lease_seconds / 3

    @property
    def ran_out(self) -> bool:
        """Whether the lease has ended by the client's own clock."""
        return self._clock() >= self._leased_at + self.lease_seconds

    def extended(self, until: datetime, seconds: float) -> None:
        """Note that the server has just extended the lease by `seconds` from now."""
        self.lease_until = until
        self.lease_seconds = seconds
        self._leased_at = self._clock()


L = TypeVar("L", bound=Leased)


class Watch(Generic[L]):
    """The messages whose leases are being kept alive."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, tuple[float, L]] = {}

    def add(self, message: L) -> None:
        self._due[message.receipt] = (message.extension_due, message)

    def remove(self, message: L) -> None:
        self._due.pop(message.receipt, None)

    def __len__(self) -> int:
        return len(self._due)

    def seconds_left(self) -> float | None:
        """Seconds until something is due, 0 when something is; None when nothing is watched."""
        if not self._due:
            return None
        return max(0.0, min(due for due, _ in self._due.values()) - self._clock())

    def due(self) -> list[L]:
        """The messages to extend now, the most urgent first."""
        now = self._clock()
        ripe = sorted((due, receipt) for receipt, (due, _) in self._due.items() if due <= now)
        return [self._due[receipt][1] for _, receipt in ripe]

    def extended(self, message: L, until: datetime, seconds: float) -> None:
        """An extension came through; the message is due again a third into its new lease."""
        message.extended(until, seconds)
        if message.receipt in self._due:
            self.add(message)

    def failed(self, message: L, error: Exception) -> bool:
        """An extension failed. True when the lease is lost by that, and the message watched no more.

        A message that was settled meanwhile is no loss: its receipt has just been used up. After a
        failure that may pass, the extension is due again soon, until the lease has run out here too.
        """
        if message.receipt not in self._due:
            return False
        if isinstance(error, (Conflict, Gone, NotFound)) or message.ran_out:
            self.remove(message)
            message.lost = True
            return True
        self._due[message.receipt] = (self._clock() + min(1.0, message.lease_seconds / 10), message)
        return False
