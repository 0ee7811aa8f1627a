"""What passes between the layers: messages, their options, and a queue's settings. Values, no behaviour.

Inside Windlass a message is known by its number, a 64-bit integer that no other message of the
installation ever has; `windlass.ids` turns it into the id that clients see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec

RESERVED = "windlass."
"""How the names of Windlass's own queues begin."""
MAX_BATCH = 1_000
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_DELAY = 30 * 24 * 3600
MAX_LEASE = 43_200
MAX_WAIT = 60
MAX_SECONDS = 10 * 365 * 24 * 3600
"""The longest ttl or retention, seconds: ten years."""


class Options(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one message is to be handled, where it differs from the queue's way. Times in ms."""

    delay: int = 0
    ttl: int | None = None
    priority: int = 0
    group: str | None = None
    dedup_id: str | None = None
    headers: bytes | None = None
    """A JSON object of strings, as text."""


class Once(msgspec.Struct, frozen=True, gc=False):
    """A send that must happen once: an Idempotency-Key."""

    key: bytes
    """Digest of caller, method, path and key."""
    fingerprint: bytes
    """Digest of the body."""


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What became of a send."""

    queue: int
    """Number of the queue, for ids."""
    numbers: Sequence[int]
    duplicates: Sequence[bool] | None = None
    """True where a dedup id was known; None: nowhere."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as it is handed out or looked at. Times in ms since the epoch."""

    queue: int
    """Number of the queue it was sent to first, for its id."""
    number: int
    content: bytes
    enqueued_at: int
    deliveries: int
    priority: int
    group: str | None
    headers: bytes | None
    delivery: int = 0
    """Number of this delivery, for its receipt; 0 without a lease."""
    lease_until: int = 0


class State(IntEnum):
    """Where a living message is."""

    READY = 0
    LEASED = 1
    DELAYED = 2
    DEAD = 3
    BLOCKED = 4


class Life(msgspec.Struct, frozen=True, gc=False):
    """All that is known of one message, living or ended."""

    message: Message
    state: str
    """A State in small letters, or acknowledged, received, cancelled, expired."""
    in_queue: str
    events: list[dict[str, Any]]
    outcome: bytes | None = None
    ended_at: int | None = None


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    """A queue's settings. Times in seconds."""

    lease_seconds: float = 30
    max_deliveries: int | None = None
    dead_letter: str | None = None
    max_length: int | None = None
    max_message_bytes: int = 1024 * 1024
    retention_seconds: float | None = None
    dedup_window_seconds: float = 300
    history_seconds: float = 0
    outcome_ttl_seconds: float = 3600
    sqs: dict[str, str] = {}
    """What the SQS face keeps of a queue that the engine has no use for, by name."""


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A queue as others see it: settings and committed counts."""

    name: str
    settings: QueueSettings
    paused: bool
    created_at: int
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    blocked: int = 0
    dead: int = 0
    in_rate: float = 0
    """Messages a second that came in over the last minute."""
    out_rate: float = 0
    """Messages a second that left over the last minute, acknowledged or received."""

    @property
    def length(self) -> int:
        return self.ready + self.delayed + self.leased + self.blocked + self.dead


class Acknowledgement(msgspec.Struct, frozen=True, gc=False):
    """One receipt to settle, taken apart, with the outcome's JSON text if there is one."""

    number: int
    delivery: int = 0
    outcome: bytes | None = None
    holder: str | None = None
    """Where it is named, it has to hold the lease, whichever delivery that is."""
    tell: bool = False
    """Keep the outcome until `Store.told`."""
    late: bool = False
    """Where no holder is named: end it after its lease too, while that delivery is the latest and the message
    is not dead."""


class Extension(msgspec.Struct, frozen=True, gc=False):
    """One lease that is to go on; it is tentative no more. Times in ms."""

    number: int
    lease: int | None
    """From now on; None: it ends when it did."""
    delivery: int = 0
    holder: str | None = None
    """As of an Acknowledgement."""
    longest: int | None = None
    """The most that it may last, since it began."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A claim: a lease that began as a tentative one. Times in ms since the epoch."""

    message: Message
    holder: str
    claim: str
    tentative: bool
    since: int


class End(msgspec.Struct, frozen=True, gc=False):
    """A message that was acknowledged with `tell`, cancelled with an outcome, or has died of a claim.

    Somebody has to be told.
    """

    number: int
    outcome: bytes | None
    """None: it died."""
    life: Life


class Settled(IntEnum):
    """What became of a receipt."""

    ACKNOWLEDGED = 0
    STALE = 1
    """The message lives on without this delivery."""
    GONE = 2
    """The message has ended; nobody will get it again."""


Settings = Mapping[str, Any]
"""Some settings of a queue, by name, as a request names them."""
