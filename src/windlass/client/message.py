"""A message under work, for blocking code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from windlass.client import calls
from windlass.client.call import Call
from windlass.client.errors import Problem, WindlassError
from windlass.client.lease import UNSET, Leased
from windlass.client.values import WireMessage

if TYPE_CHECKING:
    from windlass.client.client import Client

log = logging.getLogger("windlass.client")


class LeasedMessage(Leased):
    """A message with a lease. In a `with` the lease is kept alive; leaving it settles the message.

        with message:
            work(message.content)

    Leaving normally acknowledges (LeaseLost when somebody else has the message by now), leaving with an
    exception gives it back. Settle it earlier with `acknowledge` or `release`, and leaving does nothing.
    """

    def __init__(self, client: Client, queue: str, wire: WireMessage, lease_seconds: float) -> None:
        super().__init__(queue, wire, lease_seconds, clock=lambda: client._clock())
        self._client = client
        self.retry_delay = 0.0
        self.on_lost: Callable[[LeasedMessage], None] | None = None

    def acknowledge(self, outcome: Any = UNSET) -> None:
        """The work is done, with this outcome if one is given. LeaseLost when the lease was not ours."""
        given = outcome is not UNSET
        self._settle(
            calls.acknowledge(
                self.queue_name, self.receipt, outcome=outcome if given else None, has_outcome=given
            )
        )

    def release(self, delay: float = 0.0) -> None:
        """Give the message back: it is ready again, at its old place, after `delay` seconds."""
        self._settle(calls.release(self.queue_name, self.receipt, delay))

    def _settle(self, call: Call[None]) -> None:
        """Whatever the server answers, the message is off our hands; without an answer it is not."""
        self._client.extender.forget(self)
        try:
            self._client.run(call)
        except Problem:
            self.settled = True
            raise
        self.settled = True

    def extend(self, seconds: float) -> None:
        """Let the lease last `seconds` from now. LeaseLost when it was not ours any more."""
        until = self._client.run(calls.extend(self.queue_name, self.receipt, seconds))
        self._client.extender.note(self, until, seconds)

    def __enter__(self) -> Self:
        self._client.extender.keep(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.extender.forget(self)
        if self.settled:
            return
        if error is None:
            self.acknowledge()
        else:
            self.give_back()

    def give_back(self) -> None:
        """Release it after `retry_delay`; a failure is only logged, as the lease runs out by itself."""
        try:
            self.release(self.retry_delay)
        except WindlassError as failure:
            log.warning("could not give back %r; its lease will run out by itself: %s", self, failure)
