"""The queue store. Only this module chooses a backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from windlass.clock import Clock, SystemClock
from windlass.errors import StartError
from windlass.store.base import Caller, Changes, Key, Runner, Store
from windlass.store.copying import Copy, Report
from windlass.store.transfer import Source, Target

__all__ = ["Caller", "Changes", "Key", "Report", "Runner", "Store", "copy_store", "open_store"]


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


def copy_store(
    source: str,
    target: str,
    show: Callable[[int, int], object] = lambda _done, _total: None,
    *,
    clock: Clock | None = None,
) -> Report:
    """Copy a whole store, each a data directory or a URL, and compare. Blocks.

    `show` is told how many records were dealt with, and of how many. Raises StartError where the source is
    served or is not there, or the target is not empty; StoreUnavailable, which leaves an unfinished target.
    """
    if "://" not in source and "://" not in target and Path(source).resolve() == Path(target).resolve():
        raise StartError("A store cannot be copied to itself: name another directory.")
    reading = _source(source, clock)
    try:
        writing = _target(target, clock)
        try:
            return Copy(reading, writing, show).run()
        finally:
            writing.close()
    finally:
        reading.close()


def _source(where: str, clock: Clock | None) -> Source:
    if "://" in where:
        from windlass.store.redis.address import parse
        from windlass.store.redis.direct import Direct
        from windlass.store.redis.source import RedisSource

        return RedisSource(Direct(parse(where), clock))
    from windlass.store.sqlite.source import open_source

    return open_source(Path(where))


def _target(where: str, clock: Clock | None) -> Target:
    if "://" in where:
        from windlass.store.redis.address import parse
        from windlass.store.redis.direct import Direct
        from windlass.store.redis.target import RedisTarget

        return RedisTarget(Direct(parse(where), clock))
    from windlass.store.sqlite.target import SQLiteTarget

    return SQLiteTarget(Path(where))
