"""What a store holds, as it goes from one backend to another: records that belong to neither.

A backend that can be copied has a Source, which reads these records one after the other, and a Target, which
writes them in batches. Neither holds more of them in memory than a batch. Times are in ms since 1970.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from windlass.message import QueueSettings, State
from windlass.store.base import Key, Runner

BATCH = 1_000
"""Records of one batch at most."""
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of content of one batch at most; one record may have more."""

ORDER = ("event", "at", "until", "by", "reason", "counts", "deliveries", "from", "to", "omitted")
"""In which order an event's members are written."""


class Queue(msgspec.Struct, frozen=True):
    """A queue itself."""

    number: int
    name: str
    settings: QueueSettings
    paused: bool
    created_at: int


class Installation(msgspec.Struct, frozen=True):
    """What there is once, and few of."""

    secret: bytes
    queues: Sequence[Queue]
    keys: Sequence[Key]
    runners: Sequence[Runner]
    last_queue: int
    """The highest number that a queue ever had."""
    last_runner: int
    last_number: int
    """No message has, or ever had, a higher number or place."""


class Past(msgspec.Struct, frozen=True, gc=False):
    """What deliveries, or a delay, have left of a message."""

    due: int | None
    """End of the lease or delay; where it is dead, when it is to be forgotten."""
    token: int
    """Number of the last delivery."""
    count: int
    base: int
    """`count` when it came into this queue."""
    since: int | None
    """When its lease began."""
    holder: str | None
    lapsed: bool
    """Its ttl ran out during the lease."""
    events: Sequence[Mapping[str, Any]]
    claim: str | None
    """Of a lease; where it is dead, that somebody has to be told of it."""
    tentative: bool
    forgiven: int
    unseen: int
    longest: int
    """The most that its lease may last, ms, where the store remembers it; else 0."""


class Living(msgspec.Struct, frozen=True, gc=False):
    """A message that has not ended."""

    queue: int
    """Number of the queue in which it is."""
    home: int
    """Number of the queue that it was sent to."""
    number: int
    """Its own, among the messages that were sent to that queue."""
    place: int
    """Lower ones of the same priority go first."""
    state: State
    at: int
    priority: int
    content: bytes
    group: str | None
    headers: str | None
    """A JSON object, as text."""
    expires: int | None
    origin: int | None
    """Number of the queue from which it was dead-lettered."""
    past: Past | None
    """None: it was never leased, delayed or dead."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The record of a message that has ended."""

    queue: int
    home: int
    number: int
    at: int
    deliveries: int
    priority: int
    group: str | None
    headers: str | None
    events: Sequence[Mapping[str, Any]]
    """Without the first, that it was sent."""
    ended_at: int
    how: str
    outcome: str | None
    token: int
    """The delivery that was acknowledged, 0: none."""
    until: int | None
    """Until when it is kept, None: until somebody was told."""


class Dedup(msgspec.Struct, frozen=True, gc=False):
    """A dedup id in its window."""

    queue: int
    dedup_id: str
    number: int
    until: int


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What was answered under an Idempotency-Key."""

    queue: int
    key: bytes
    fingerprint: bytes
    numbers: Sequence[int]
    duplicates: Sequence[bool] | None
    until: int


Record = Living | Ended | Dedup | Answer


class Source(ABC):
    """A store that nobody serves, to be read. All of it may raise StoreUnavailable and block."""

    spread: bool
    """Whether each queue has numbers of its own: then two messages may have the same one."""
    dropped = 0
    """Records that were passed over because their queue was deleted."""

    @abstractmethod
    def installation(self) -> Installation: ...

    @abstractmethod
    def counts(self) -> dict[int, list[int]]:
        """Messages by queue and State, as the store itself counts them."""

    @abstractmethod
    def living(self, *, contents: bool = True) -> Iterator[Living]:
        """All messages. Those of a queue that are ready come in the order in which they would leave it.

        Without `contents` those are empty.
        """

    @abstractmethod
    def ended(self) -> Iterator[Ended]: ...

    @abstractmethod
    def dedups(self) -> Iterator[Dedup]: ...

    @abstractmethod
    def answers(self) -> Iterator[Answer]: ...

    @abstractmethod
    def check_quiet(self) -> None:
        """Raise StartError where a server uses the store."""

    @abstractmethod
    def close(self) -> None: ...


class Target(ABC):
    """A store that is not there yet, to be written. All of it may raise StoreUnavailable and block.

    Until `commit` no server opens it.
    """

    spread: bool
    renumbered = 0
    """Messages that had to be given another number."""

    @abstractmethod
    def begin(self, installation: Installation) -> None:
        """Mark the beginning of a copy. Raises StartError where there is anything, and names it."""

    def number(self, living: Iterator[Living], ended: Iterator[Ended]) -> None:  # noqa: B027
        """Where the source is spread and this is not, see all numbers there are before anything is put."""

    def fit(self, batch: Sequence[Record]) -> Sequence[Record]:
        """The same records with the numbers and places that they have here."""
        return batch

    @abstractmethod
    def put(self, batch: Sequence[Record]) -> None:
        """Write records that `fit`, in the order in which they were read."""

    @abstractmethod
    def finish(self) -> None:
        """All was put: write what was gathered meanwhile."""

    @abstractmethod
    def reading(self) -> Source:
        """What is there now, to be compared. Whoever asked closes it."""

    @abstractmethod
    def commit(self) -> None:
        """All is right: from now on it is a store like any other."""

    @abstractmethod
    def close(self) -> None: ...


def ordered(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event with its members in ORDER."""
    return {name: event[name] for name in ORDER if name in event} | {
        name: value for name, value in event.items() if name not in ORDER
    }


def in_words(queues: Sequence[str]) -> str:
    """How many queues there are and what the first are called."""
    if not queues:
        return "no queues"
    first = ", ".join(sorted(queues)[:3]) + (", …" if len(queues) > 3 else "")
    return f"{len(queues):,} queue{'s' if len(queues) > 1 else ''} ({first})"
