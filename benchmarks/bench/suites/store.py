"""One `windlass serve` on Redis beside one on SQLite: the same requests, the same client, the same disk.

Windlass, Redis and wrk share the machine's processors, so a store in another process has fewer of them left
than one inside. With `always` Redis syncs its file before it answers, as SQLite does; with `everysec` once a
second, beside which SQLite still syncs each commit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import measure
from bench.redis_server import redis_server
from bench.results import Options, begin, finish
from bench.servers import Windlass, windlass

OPERATIONS = ("send", "receive", "lease_ack")
VARIANTS = ("SQLite", "Redis, always", "Redis, everysec")
_AIM = 0.7


@contextmanager
def served(variant: str, options: Options) -> Iterator[tuple[Windlass, dict[str, float]]]:
    """A fresh Windlass on a fresh store, and how many seconds its Redis has computed so far."""
    if variant == "SQLite":
        with windlass(options.windlass, options.scratch) as server:
            yield server, {}
        return
    fsync = variant.split()[-1]
    with redis_server(options.scratch, fsync) as store:
        environment = {
            **os.environ,
            "WINDLASS_STORE": store.url,
            "WINDLASS_DURABILITY": "fsync" if fsync == "always" else fsync,
        }
        with windlass(options.windlass, options.scratch, environment) as server:
            spent: dict[str, float] = {}
            before = store.process.cpu_seconds()
            yield server, spent
            spent["redis_cpu_seconds"] = store.process.cpu_seconds() - before


def run(options: Options) -> None:
    result = begin("store", options)
    for connections in options.connections:
        for operation in OPERATIONS:
            if not options.wants(operation):
                continue
            metric = f"{operation} at {connections}"
            for round_ in range(1, options.rounds + 1):
                for variant in VARIANTS:
                    with served(variant, options) as (server, _):
                        found = measure(server, operation, options, connections=connections)
                    result.add(metric, variant, round_, found.rate, **found.details)
            for variant in VARIANTS[1:]:
                aim = _AIM if operation != "lease_ack" else None
                result.ratio(f"{metric}: {variant} / SQLite", (metric, variant), (metric, "SQLite"), aim=aim)
    finish(result)
