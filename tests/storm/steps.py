"""A catalogue that ends as a kill would end it, before or after any of its own steps.

    python -m tests.storm.steps URL FOLDER [REDIS]

For each number on its input it forks, which costs no imports, and tells how that life ended: one that checks
that whatever was answered for in earlier ones is there and not denied, then writes, saves and rebuilds, and
kills itself at the step of that number.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog
from redis.client import Pipeline, Redis
from sqlalchemy import event, make_url
from sqlalchemy.engine import Engine

from tests.contract.keeping import NEVER, SECRET, some
from windlass.catalogue.products import Products
from windlass.catalogue.record import Record
from windlass.catalogue.service import FILTER, Catalogue
from windlass.guard.bloom import BloomFilter
from windlass.guard.guard import Guard
from windlass.guard.redis import connect
from windlass.guard.saved import InRedis, OnDisk

STEPS: list[tuple[Any, str]] = [
    # A write: its key in the filter, its row in the database.
    (BloomFilter, "add"),
    (Products, "insert"),
    # A save: what is new, what has changed, what is put on disk or in Redis, what is no longer needed.
    (Record, "since"),
    (BloomFilter, "changes"),
    (BloomFilter, "dump"),
    (os, "pwrite"),
    (os, "fdatasync"),
    (os, "fsync"),
    (Path, "replace"),
    (Pipeline, "execute"),
    (Redis, "set"),
    (Record, "trim"),
    # A rebuild: two filters, the scan, one filter.
    (Guard, "swap"),
    (BloomFilter, "update"),
]
"""Class or module, and function: a step before each call, and one after it. And one before each commit."""

LOST, OVER = 3, 4
"""Exit statuses: something was not found; it was, and the step never came."""


class Fuse:
    """Counts steps, and ends the process at one."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def commit(self, _: object) -> None:
        if "writer" in threading.current_thread().name:  # readers commit, too
            self.step()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def watched(*arguments: Any, **more: Any) -> Any:
            self.step()
            result = function(*arguments, **more)
            if asyncio.iscoroutine(result):
                return self._awaited(result)
            self.step()
            return result

        return watched

    async def _awaited(self, result: Any) -> Any:
        value = await result
        self.step()
        return value


def live(url: str, folder: Path, redis: str | None, at: int) -> None:
    """One life. `folder` has the ledger, of the ids whose writes were answered."""
    ledger = Path(folder, "answered")
    answered = ledger.read_text().split() if ledger.exists() else []
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    fuse = Fuse(at)
    for holder, name in STEPS:
        setattr(holder, name, fuse.around(getattr(holder, name)))
    event.listen(Engine, "commit", fuse.commit)
    storage = (
        OnDisk(folder / FILTER) if redis is None else InRedis(connect(redis, timeout=60), "bloom:filter")
    )
    catalogue = Catalogue.open(
        folder, SECRET, url=url, storage=storage, expected_items=100, interval=NEVER, synchronous="off"
    )
    there = set(catalogue.products.ids())
    lost = [each for each in answered if each not in there or each not in catalogue.guard.filter]
    if lost:
        Path(folder, "lost").write_text(f"before step {at}: {lost}")
        os._exit(LOST)
    with ledger.open("a", buffering=1) as book:
        asyncio.run(_work(catalogue, _names(at), lambda name: book.write(f"{name}\n")))
    catalogue.close()
    os._exit(OVER)


async def _work(catalogue: Catalogue, names: Iterator[str], answered: Callable[[str], object]) -> None:
    async def write() -> None:
        name = next(names)
        await catalogue.insert(*some([name]))
        answered(name)

    await write()
    rebuilt = asyncio.ensure_future(catalogue.rebuild())  # which saves before and after
    for _ in range(3):
        await write()
    await rebuilt
    await write()  # which the close saves


def _names(at: int) -> Iterator[str]:
    number = 0
    while True:
        yield f"{at}-{number}"
        number += 1


def main(url: str, folder: str, redis: str | None = None) -> None:
    import_module(make_url(url).get_dialect().__module__)
    import_module("psycopg")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(url, Path(folder), redis, int(line))
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
