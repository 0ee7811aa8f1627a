"""The queue store. `open_store` is the only place that chooses a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from windlass.clock import Clock, SystemClock
from windlass.store.base import Caller, Changes, Key, Runner, Store

__all__ = ["Caller", "Changes", "Key", "Runner", "Store", "open_store"]


Durability = Literal["fsync", "everysec", "memory", "replicated"]
"""What an answer of a store on Redis promises."""


def open_store(
    data_dir: Path,
    url: str | None = None,
    *,
    clock: Clock | None = None,
    synchronous: str = "full",
    durability: Durability = "fsync",
    replicas: int = 1,
) -> Store:
    """Open the store at `url`, or else the one in a data directory, created if it is not there.

    Raises StoreLocked, StoreTooNew, StoreDamaged, StoreUnavailable, StartError; each says what to do.
    """
    if url is not None:
        from windlass.store.redis.address import parse
        from windlass.store.redis.store import RedisStore

        return RedisStore(parse(url), clock=clock, durability=durability, replicas=replicas)
    from windlass.store.sqlite.store import SQLiteStore  # only the backend that is used is loaded

    return SQLiteStore(data_dir, clock=clock or SystemClock(), synchronous=synchronous)
