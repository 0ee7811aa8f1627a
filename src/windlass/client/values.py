"""What goes in and what comes out: plain values, no connection behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, TypedDict

import msgspec

from windlass.client.errors import NotSent

State = Literal[
    "ready", "delayed", "leased", "blocked", "dead", "acknowledged", "received", "cancelled", "expired"
]
"""Where a message is. The first five live on; the other four have ended."""

PeekState = Literal["ready", "delayed", "leased", "blocked", "dead"]


class RawJson(str):
    """JSON text to be sent as it stands, byte for byte: `queue.send(RawJson('{"n": 1e400}'))`."""

    __slots__ = ()


def to_json(value: Any) -> str:
    """The JSON text of `value`; a `RawJson` is taken as it is. NotSent when there is no such text."""
    if isinstance(value, RawJson):
        return checked_json(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSent(f"this content is not JSON: {error}") from error
    return text


def checked_json(text: str) -> str:
    """`text`, when it is one JSON value and nothing more; NotSent otherwise."""
    try:
        values = _RAW_VALUES.decode(f"[{text}]")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise NotSent(f"this is not JSON: {error}") from error
    if len(values) != 1:
        raise NotSent("this is not JSON: one value is wanted")
    return str(text)


_RAW_VALUES = msgspec.json.Decoder(list[msgspec.Raw])
"""Checks the syntax of every value and makes nothing of it, so no number is too large for it."""


class QueueSettings(TypedDict, total=False):
    """Settings of a queue; what is left out keeps its value, or at creation its default.

    Durations are in seconds, decimals allowed; None means none (no limit, no dead-letter queue).
    """

    lease_seconds: float
    max_deliveries: int | None
    dead_letter: str | None
    max_length: int | None
    max_message_bytes: int
    retention_seconds: float | None
    dedup_window_seconds: float
    history_seconds: float
    outcome_ttl_seconds: float


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue: its name and its settings; durations in seconds."""

    name: str
    lease_seconds: float
    max_deliveries: int | None = None
    dead_letter: str | None = None
    max_length: int | None = None
    max_message_bytes: int
    retention_seconds: float | None = None
    dedup_window_seconds: float
    history_seconds: float
    outcome_ttl_seconds: float
    paused: bool
    created_at: datetime


class QueueStats(QueueInfo, frozen=True, kw_only=True):
    """A queue with its counts. Rates are messages a second over the last minute."""

    ready: int
    delayed: int
    leased: int
    blocked: int = 0
    dead: int
    oldest_age_seconds: float | None = None
    in_rate: float = 0.0
    out_rate: float = 0.0


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says about itself; `states` counts messages by state over all queues."""

    status: str
    version: str
    uptime_seconds: float
    queues: int
    messages: int
    states: dict[str, int] = {}


class NewMessage(msgspec.Struct, frozen=True):
    """A message to send, when it is more than its content.

    `delay`: seconds until it is ready. `ttl`: seconds until it expires. `priority`: 0 to 9, 9 leaves
    first. `group`: messages of one group leave one after the other. `dedup_id`: a second send with the
    same one inside the queue's window adds nothing. `headers`: string to string.
    """

    content: Any
    delay: float | None = None
    ttl: float | None = None
    priority: int | None = None
    group: str | None = None
    dedup_id: str | None = None
    headers: Mapping[str, str] | None = None

    def to_json(self) -> str:
        """The body of a send; the content is the text that `to_json` makes of it."""
        parts = [f'"content":{to_json(self.content)}']
        for name in ("delay", "ttl", "priority", "group", "dedup_id", "headers"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f'"{name}":{to_json(dict(value) if name == "headers" else value)}')
        return "{" + ",".join(parts) + "}"


class Sent(msgspec.Struct, frozen=True):
    """The receipt of a send: the message's id, and whether an earlier send with its dedup_id made it."""

    id: str
    duplicate: bool = False


class Redriven(msgspec.Struct, frozen=True):
    """How many messages one redrive call moved, and whether there are no more."""

    redriven: int
    done: bool


class Acknowledged(msgspec.Struct, frozen=True):
    """What became of one receipt of a batch; `stale` means the lease was lost, `gone` that it is done."""

    receipt: str
    status: Literal["acknowledged", "stale", "gone", "unknown"]


class WireMessage(msgspec.Struct, frozen=True):
    """A message as it stands in an answer."""

    id: str
    content: msgspec.Raw
    enqueued_at: datetime
    deliveries: int = 0
    priority: int = 0
    group: str | None = None
    headers: dict[str, str] = {}
    receipt: str | None = None
    lease_until: datetime | None = None


class WireRecord(msgspec.Struct, frozen=True):
    """The answer of GET /queues/{name}/messages/{id}."""

    id: str
    queue: str
    state: State
    enqueued_at: datetime
    deliveries: int = 0
    priority: int = 0
    group: str | None = None
    headers: dict[str, str] = {}
    content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    life: list[dict[str, Any]] = []
    outcome: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ended_at: datetime | None = None


class Message:
    """A message that was looked at, or taken for good. `raw` is its content, the JSON text that was sent."""

    def __init__(self, queue: str, wire: WireMessage) -> None:
        self.queue_name = queue
        self.id = wire.id
        self.raw = bytes(wire.content).decode()
        self.enqueued_at = wire.enqueued_at
        self.deliveries = wire.deliveries
        self.priority = wire.priority
        self.group = wire.group
        self.headers = wire.headers

    @cached_property
    def content(self) -> Any:
        """The content, decoded at the first look. A number too large for a float, 1e400, becomes inf."""
        return json.loads(self.raw)

    def __repr__(self) -> str:
        shown = self.raw if len(self.raw) <= 60 else self.raw[:57] + "..."
        return f"<{type(self).__name__} {self.id} in {self.queue_name}: {shown}>"


class MessageRecord:
    """The life of one message, ended or not.

    `state`: where it is. `raw`: its content as JSON text, None once it has ended. `life`: what happened,
    in order, each a dict with at least `event` and `at`. `has_outcome`, `outcome`: what its
    acknowledgement carried.
    """

    def __init__(self, wire: WireRecord) -> None:
        self.id = wire.id
        self.queue_name = wire.queue
        self.state: State = wire.state
        self.enqueued_at = wire.enqueued_at
        self.deliveries = wire.deliveries
        self.priority = wire.priority
        self.group = wire.group
        self.headers = wire.headers
        self.raw = _text(wire.content)
        self.life = wire.life
        self.ended_at = wire.ended_at
        self.raw_outcome = _text(wire.outcome)

    @cached_property
    def content(self) -> Any:
        """The content, decoded; None when the message has ended (see `raw` to tell it from a null)."""
        return json.loads(self.raw) if self.raw is not None else None

    @property
    def has_outcome(self) -> bool:
        return self.raw_outcome is not None

    @cached_property
    def outcome(self) -> Any:
        """The outcome, decoded; None when there is none."""
        return json.loads(self.raw_outcome) if self.raw_outcome is not None else None

    @property
    def ended(self) -> bool:
        return self.state in ("acknowledged", "received", "cancelled", "expired")

    def __repr__(self) -> str:
        return f"<MessageRecord {self.id} in {self.queue_name}: {self.state}>"


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return None if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode()
