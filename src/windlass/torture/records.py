"""What the ledger writes down: sends, receives, deliveries, and promises that were broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class Kind(StrEnum):
    """The promises, by what happened instead."""

    LOST = "lost"  # acknowledged by 201, and neither received nor there at the end
    RESURRECTED = "resurrected"  # acknowledged as consumed, and handed out again
    DUPLICATED = "duplicated"  # stored twice, or given to two plain receives
    SHARED = "shared"  # leased to two at once
    REORDERED = "reordered"  # a younger message left before an older one that was ready
    SPLIT = "split"  # a batch stored in part, or with a stranger inside
    INVENTED = "invented"  # received, and never sent, or refused, or changed on the way
    UNFENCED = "unfenced"  # a receipt that was no longer good was taken for good, or the other way round
    FAILED = "failed"  # an answer that no client has earned, a dropped connection, a server that ended


@dataclass(frozen=True)
class Violation:
    """One broken promise and what shows it."""

    kind: Kind
    queue: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.kind.value} in {self.queue}: {self.evidence}"


@dataclass(eq=False)
class Send:
    """One request to store messages, with all its retries under one key."""

    queue: str
    tokens: tuple[str, ...]
    began: float
    group: str = ""  # of all its messages
    ended: float = inf
    stored: bool = False  # 201 came
    refused: bool = False  # a 4xx came: nothing of it may ever be seen


@dataclass(eq=False)
class Take:
    """One request to receive at most `limit` messages; `lease` seconds, or None for a plain removal."""

    queue: str
    limit: int
    lease: float | None
    began: float
    ended: float = inf
    unanswered: bool = False  # the server died under it: a plain one may have taken `limit` with it


@dataclass(eq=False)
class Delivery:
    """One message in one answer."""

    token: str
    id: str
    number: int  # `deliveries` in the answer: 1 for the first
    receipt: str
    take: Take
    held_until: float  # certainly leased until then
    attempts: int = 0  # acknowledgements sent: with one the message may be consumed
    acknowledged: float = inf  # when the server said so


@dataclass(eq=False)
class Message:
    """One message by its token, and everything that happened to it."""

    token: str
    send: Send
    id: str = ""
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def consumed(self) -> bool:
        """Whether it may rightly be gone."""
        return any(each.take.lease is None or each.attempts for each in self.deliveries)


@dataclass(frozen=True)
class Received:
    """A message as an answer showed it."""

    token: str
    id: str
    deliveries: int = 1
    receipt: str = ""
