"""Stores that are copied from one place to another, and what a store shows of itself before and after."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.contract.bench import Bench
from tests.contract.conftest import shared_cluster
from tests.redis_server import shared_redis
from windlass.clock import ManualClock
from windlass.ids import PLACE_BITS
from windlass.message import Life, Message, State
from windlass.store import Report, Store, copy_store, open_store

KINDS = ("sqlite", "redis")
QUIET = 6.0
"""Seconds after which no server is taken to use a store on Redis any more."""
PLACES = (1 << PLACE_BITS) - 1

Numbers = Callable[[int, int], int]
"""(queue that it was sent to, number that it had) -> number that a message has."""

_fresh = itertools.count()


class Spot:
    """A place for a store: a directory, or a prefix of its own on the tests' Redis or Cluster."""

    def __init__(self, backend: str, home: Path) -> None:
        self.backend = backend
        self.directory = home / f"store{next(_fresh)}"
        self.where = str(self.directory)
        if backend != "sqlite":
            self._server = shared_cluster() if backend == "cluster" else shared_redis()
            self.where = f"{self._server.url}?prefix=copy{next(_fresh)}"

    def open(self, clock: ManualClock) -> Store:
        url = self.where if self.backend != "sqlite" else None
        return open_store(self.directory, url, clock=clock, synchronous="off")

    def crash(self, store: Store) -> None:
        """What is in memory is gone; SQLite's file closes as always."""
        store.close()

    def clear(self) -> None:
        """Take away what is on the tests' servers."""
        if self.backend != "sqlite":
            prefix = self.where.partition("?prefix=")[2]
            with self._server.client() as client:
                for key in client.scan_iter(f"{prefix}:*", 10_000):
                    client.unlink(key)


def copied(source: Spot, target: Spot, clock: ManualClock) -> Report:
    """Copy a store that was closed QUIET seconds ago."""
    report = copy_store(source.where, target.where, clock=clock)
    assert report.same, report
    return report


def as_it_was(_queue: int, number: int) -> int:
    return number


def translated(before: Store, after: Store) -> Numbers:
    """What becomes of numbers between two stores, where no two messages have the same one."""

    def number(queue: int, number: int) -> int:
        if before.spread == after.spread:
            return number
        return queue << PLACE_BITS | number if after.spread else number & PLACES

    return number


def shown(bench: Bench, known: Mapping[int, int], numbers: Numbers = as_it_was) -> dict[str, Any]:
    """All that a store shows: of its queues, of each state, of messages, claims, ends, keys and runners.

    `known`: numbers of messages, and the queue that each was sent to; they are looked for as `numbers` says.
    """

    def message(found: Message) -> Any:
        return found.queue, found.number & PLACES, replace(found, number=0)

    def life(found: Life | None) -> Any:
        return found and (message(found.message), replace(found, message=replace(found.message, number=0)))

    run, store = bench.run, bench.store
    infos = run(lambda s: s.queues(limit=10_000))
    seen: dict[str, Any] = {
        "queues": [replace(info, in_rate=0, out_rate=0) for info in infos],
        "numbers": [store.queue_number(info.name) for info in infos],
        "totals": run(lambda s: s.totals()),
        "secret": store.secret,
        "keys": sorted(store.keys(), key=lambda key: key.id),
        "runners": sorted(store.runners(), key=lambda runner: runner.number),
        "held": sorted(
            (
                held.holder,
                held.claim,
                held.tentative,
                held.since,
                *message(replace(held.message, content=b"")),
            )
            for held in run(lambda s: s.held())
        ),
        "untold": sorted(
            [(end.number & PLACES, end.outcome, life(end.life)) for end in run(lambda s: s.untold(10_000))],
            key=repr,
        ),
    }
    for info in infos:
        for state in State:
            found = [message(each) for each in bench.peek(info.name, state=state)]
            # The others have no order among themselves on which anything depends.
            seen[f"{info.name} {state.name}"] = found if state is State.READY else sorted(found)
        seen[f"{info.name} oldest"] = bench.oldest(info.name)
    for number, queue in known.items():
        seen[f"find {queue} {number & PLACES}"] = life(bench.find(numbers(queue, number)))
    return seen
