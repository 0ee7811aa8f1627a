"""How many bytes a message that waits has, in memory and on disk, on SQLite and on Redis."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.redis_server import redis_server
from bench.results import Options
from bench.servers import windlass

MESSAGES = 50_000
QUEUES = 1_000
LEASE = 3600.0


@dataclass(frozen=True)
class Footprint:
    """Bytes of one message."""

    memory: float
    disk: float
    """As it waits, once the log was written anew."""
    written: float
    """In the log, when it was sent."""


def fields(size: int) -> Mapping[str, object]:
    """What cannot be compressed, as most short contents cannot: Redis does that where it can."""
    return {"content": secrets.token_urlsafe(size)[:size]}


def on_sqlite(options: Options, size: int) -> Footprint:
    """What it takes in memory is the growth of Windlass itself: mostly pages that are kept at hand."""
    with windlass(options.windlass, options.scratch) as server:
        data = server.directory / "data"
        resident, before, written = (
            server.process.anonymous_memory(),
            _size(data),
            server.process.bytes_written(),
        )
        server.api.fill("bench", MESSAGES, fields=lambda: fields(size))
        memory = server.process.anonymous_memory() - resident
        written = server.process.bytes_written() - written
        server.api.close()
        server.process.stop()
        return Footprint(memory / MESSAGES, (_size(data) - before) / MESSAGES, written / MESSAGES)


def on_redis(options: Options, size: int, environment: Mapping[str, str]) -> tuple[Footprint, float]:
    """... and the bytes that one which is leased has in memory."""
    with (
        redis_server(options.scratch, "always") as store,
        windlass(options.windlass, options.scratch, {**environment, "WINDLASS_STORE": store.url}) as server,
    ):
        before, written = store.memory(), store.log_bytes()
        server.api.fill("bench", MESSAGES, fields=lambda: fields(size))
        memory, written = store.memory() - before, store.log_bytes() - written
        store.rewrite_log()
        disk = store.log_bytes()
        server.api.drain("bench", MESSAGES, lease=LEASE)
        leased = store.memory() - before
        found = Footprint(memory / MESSAGES, disk / MESSAGES, written / MESSAGES)
        return found, leased / MESSAGES


def of_a_queue(options: Options, environment: Mapping[str, str]) -> float:
    """Bytes that a queue with one small message has in Redis."""
    with (
        redis_server(options.scratch, "always") as store,
        windlass(options.windlass, options.scratch, {**environment, "WINDLASS_STORE": store.url}) as server,
    ):
        before = store.memory()
        server.api.fill_each([f"bench-{n}" for n in range(QUEUES)], 1, create=True)
        return (store.memory() - before) / QUEUES


def _size(directory: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
