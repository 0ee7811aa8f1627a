"""The shapes of the ordinary routes' bodies and answers, as `/openapi.json` shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from windlass.clock import rfc3339
from windlass.message import MAX_BATCH_BYTES, MAX_LEASE, MAX_SECONDS, QueueInfo

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
_NAME = {"minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}
Name = Annotated[str, Field(max_length=128, json_schema_extra=_NAME)]


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class QueueSettingsBody(Strict):
    """A queue's settings; those left out keep their value, or the default of a new queue."""

    model_config = _example(lease_seconds=60, max_length=10_000)

    lease_seconds: Annotated[float, Field(gt=0, le=MAX_LEASE, allow_inf_nan=False)] = 30
    max_deliveries: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    dead_letter: Name | None = None
    max_length: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = None
    max_message_bytes: Annotated[int, Field(ge=1, le=MAX_BATCH_BYTES)] = 1024 * 1024
    retention_seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)] | None = None
    dedup_window_seconds: Seconds = 300
    history_seconds: Seconds = 0
    outcome_ttl_seconds: Seconds = 3600

    def named(self) -> dict[str, Any]:
        """The settings that the request names."""
        return self.model_dump(exclude_unset=True, exclude={"name"})


class NewQueue(QueueSettingsBody):
    """A queue to create."""

    model_config = _example(name="orders", lease_seconds=60)

    name: Annotated[
        str,
        Field(
            description="1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit.",
            json_schema_extra=_NAME,
        ),
    ]


class Queue(BaseModel):
    """A queue and its settings."""

    name: str
    lease_seconds: float
    max_deliveries: int | None
    dead_letter: str | None
    max_length: int | None
    max_message_bytes: int
    retention_seconds: float | None
    dedup_window_seconds: float
    history_seconds: float
    outcome_ttl_seconds: float
    paused: bool
    created_at: str
    ready: int
    delayed: int
    leased: int
    blocked: int
    dead: int
    in_rate: float = Field(description="Messages a second that came in, over the last minute.")
    out_rate: float = Field(description="Messages a second that left, over the last minute.")


class QueueDetail(Queue):
    oldest_age_seconds: float | None = Field(description="Age of the oldest ready message.")


class QueuePage(BaseModel):
    queues: list[Queue]
    next: str | None = Field(description="Ask again with after=next; null: that was all.")


class Purged(BaseModel):
    purged: int


class RedriveBody(Strict):
    model_config = _example(max=100)

    max: Annotated[int, Field(ge=1, le=10_000)] = 10_000


class Redriven(BaseModel):
    redriven: int
    done: bool = Field(description="False: there may be more, call again.")


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    source: Literal["bloom_filter", "negative_cache", "database"] | None = Field(
        None, description="Of a product that was looked up and is not there: who knew."
    )
    line: int | None = Field(None, description="Of an import: the line that is wrong.")
    written: int | None = Field(None, description="Of an import: products that are written all the same.")


class Status(BaseModel):
    status: str
    version: str
    store: str = Field(description="The engine that holds queues and jobs.")
    shared: bool = Field(description="Other servers may have the same store open.")
    uptime_seconds: float
    queues: int
    messages: int
    states: dict[str, int]
    waiting: int = Field(description="Long polls that wait now.")
    durability: dict[str, Any] = Field(description="What an acknowledged message survives, and why.")
    judge: str = Field(description="`here`, or where submissions and problems are instead.")
    store_calls: dict[str, int] = Field(description="Calls of each store verb since the start.")
    detail: str | None = None


class Health(BaseModel):
    """The server and its parts: `ok`, or what is wrong with one. `stopping`: send it no more requests."""

    model_config = _example(
        status="healthy", live=True, ready=True, store="ok", database="ok", cache="ok", filter="ok"
    )

    status: Literal["healthy", "unhealthy", "stopping"]
    live: bool
    ready: bool
    store: str
    database: str
    cache: str
    filter: str
    survives: dict[str, str] = Field({}, description="What happens to acknowledged messages, by misfortune.")
    lag_seconds: float | None = Field(
        None, description="Where products are written elsewhere, too: how long ago is what is known of it."
    )


class FilterStats(BaseModel):
    """The filter in front of the products."""

    model_config = _example(
        expected_items=1_000_000, target_false_positive_rate=0.01, bits=9_585_059, hashes=7,
        items=1_000_000, bits_set=4_967_000, fill_ratio=0.5182, estimated_false_positive_rate=0.01004,
        memory_bytes=1_200_731, layers=1, state_key="bloom:filter", deletions=0, rebuilding=None,
        rebuild_failed=None,
    )  # fmt: skip

    expected_items: int
    target_false_positive_rate: float
    bits: int = Field(description="m, of all layers.")
    hashes: int = Field(description="k, of the first layer.")
    items: int
    bits_set: int
    fill_ratio: float
    estimated_false_positive_rate: float
    memory_bytes: int
    layers: int
    state_key: str = Field(description="Its state is kept under this name.")
    deletions: int = Field(description="Since it was built. Past a tenth of the items it is rebuilt.")
    rebuilding: float | None = Field(description="How far a rebuild is, 0 to 1; null: there is none.")
    rebuild_failed: str | None = Field(description="Why the last rebuild left the filter as it was.")


class Metrics(BaseModel):
    """Look-ups of products since the start, by who answered them."""

    model_config = _example(
        requests=1000, bloom_filter=600, negative_cache=2, cache=390, database=8, database_calls=8,
        database_roundtrips_saved=992, roundtrip_reduction=0.992, cache_entries=6, cache_bytes=4000,
        negative_entries=2, negative_bytes=900,
    )  # fmt: skip

    requests: int
    bloom_filter: int = Field(description="Absent, and no database was asked.")
    negative_cache: int = Field(description="Absent, remembered.")
    cache: int
    database: int
    database_calls: int = Field(description="Fewer than its answers where several waited for one.")
    database_roundtrips_saved: int
    roundtrip_reduction: float = Field(description="The part of the look-ups that made no call.")
    cache_entries: int
    cache_bytes: int
    negative_entries: int
    negative_bytes: int


def queue_of(info: QueueInfo) -> Queue:
    return Queue(**_fields(info))


def detail_of(info: QueueInfo, oldest: int | None, now: int) -> QueueDetail:
    age = max(0, now - oldest) / 1000 if oldest is not None else None
    return QueueDetail(**_fields(info), oldest_age_seconds=age)


def _fields(info: QueueInfo) -> dict[str, Any]:
    settings = info.settings
    return {
        **{name: getattr(settings, name) for name in settings.__struct_fields__ if name != "sqs"},
        **{name: getattr(info, name) for name in _INFO},
        "created_at": rfc3339(info.created_at).decode(),
    }


_INFO = ("name", "paused", "ready", "delayed", "leased", "blocked", "dead", "in_rate", "out_rate")
