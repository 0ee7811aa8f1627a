"""What the storm asks of a server in whichever protocol: each of its requests, and what answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from windlass.torture.records import Received
from windlass.torture.wire import Answer, Asked


class Queues(NamedTuple):
    """The names of the four queues (storm.py says what each shows)."""

    leased: str
    grouped: str
    ordered: str
    plain: str


class Face(Protocol):
    """One protocol. What reads an answer returns None for one that no client has earned."""

    queues: Queues
    plain: bool
    """Whether there are receives without a lease."""
    whole_groups: bool
    """Whether one receive may lease several messages of a group."""
    batch: int
    """Most messages in one send."""
    limits: Sequence[int | None]
    """What receives may ask for; None is the protocol's own: one."""
    waits: Sequence[float]
    """Seconds that receives may wait for."""

    def create(self, queue: str, lease: float) -> Asked: ...
    def created(self, answer: Answer) -> bool: ...

    def count(self, queue: str) -> Asked: ...
    def counted(self, answer: Answer) -> Mapping[str, int] | None:
        """State -> how many messages are in it."""

    def ways(self, queue: str, /) -> Sequence[str]:
        """How a send may be made safe to repeat; "none" stands for one that is not."""

    def send(self, queue: str, messages: Mapping[str, str], group: str, way: str, *, batch: bool) -> Asked:
        """`messages` is token -> content, with one message where it is no batch."""

    def sent(self, answer: Answer) -> Sequence[str] | None:
        """The ids."""

    def receive(
        self, queue: str, limit: int | None, lease: float | None, wait: float, *, otherwise: bool
    ) -> Asked:
        """`otherwise`: the other one of two ways to ask for it."""

    def received(self, answer: Answer) -> Sequence[Received] | None: ...

    def acknowledge(self, queue: str, receipt: str) -> Asked: ...
    def acknowledged(self, answer: Answer) -> str | None:
        """One of "acknowledged", "stale", "gone"; or "deleted", if the protocol does not tell these apart."""

    def acknowledge_all(self, queue: str, receipts: Sequence[str]) -> Asked: ...
    def all_acknowledged(self, answer: Answer) -> Sequence[str] | None:
        """The same of each receipt, in their order."""

    def extend(self, queue: str, receipt: str, lease: float) -> Asked:
        """With a lease of 0 the message is given back."""

    def extended(self, answer: Answer) -> str | None:
        """One of "extended", "stale" and "gone"."""

    def fault(self, answer: Answer) -> str:
        """What an answer that is an error says it is, in one word."""
