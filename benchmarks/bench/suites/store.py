"""One `windlass serve` on Redis beside one on SQLite: the same requests, the same client, the same disk.

Windlass, Redis and wrk share the machine's processors, so a store in another process has fewer of them left
than one inside. With `always` Redis syncs its file before it answers, as SQLite does; with `everysec` once a
second, beside which SQLite still syncs each commit.

Batches of 100 are compared with what a bare pipeline of redis-py does: one process that calls the functions
that Windlass calls, with as many messages each, and nothing else; as many calls in a pipeline as there are
connections here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from bench.measure import WARM_UP_SECONDS, Measured, measure
from bench.pipeline import pipelined
from bench.redis_server import Redis, redis_server
from bench.results import Options, Result, begin, finish
from bench.servers import Windlass, windlass

OPERATIONS = ("send", "receive", "lease_ack")
VARIANTS = ("SQLite", "Redis, always", "Redis, everysec")
BATCH = 100
BATCHES = {"send": "batches sent", "receive": "batches received"}
THROUGH, BARE = "Windlass on Redis, always", "bare pipeline, always"
FASTEST_BATCHED_MESSAGES = 400_000
"""More than anything here receives from Redis."""
_AIM, _BATCH_AIM = 0.7, 0.5


def on_redis(url: str, fsync: str = "always") -> dict[str, str]:
    """The settings of a Windlass whose queues are there, and which stops at once: there is no balancer."""
    durability = "fsync" if fsync == "always" else fsync
    return {"WINDLASS_STORE": url, "WINDLASS_DURABILITY": durability, "WINDLASS_DRAIN_DELAY": "0"}


@contextmanager
def served(variant: str, options: Options) -> Iterator[tuple[Windlass, Mapping[str, Callable[[], float]]]]:
    """A fresh Windlass on a fresh store, and what computes beside it."""
    if variant == "SQLite":
        with windlass(options.windlass, options.scratch) as server:
            yield server, {}
        return
    fsync = variant.split()[-1]
    with (
        redis_server(options.scratch, fsync) as store,
        windlass(options.windlass, options.scratch, on_redis(store.url, fsync)) as server,
    ):
        yield server, {"redis": store.cpu_seconds}


def add_costs(result: Result, what: str, variant: str, round_: int, found: Measured, each: float) -> None:
    """What one message costs the processor, in each process; `each`: messages a request."""
    for name, process in (("server", "Windlass"), ("redis", "Redis"), ("client", "wrk")):
        if f"{name}_cpu_us" in found.details:
            metric = f"{what}: processor of {process}"
            result.units[metric] = "us a message"
            result.add(metric, variant, round_, found.details[f"{name}_cpu_us"] / each)


def run(options: Options) -> None:
    result = begin("store", options)
    for connections in options.connections:
        for operation in filter(options.wants, OPERATIONS):
            singles(result, operation, connections)
    if options.wants("batch"):
        for operation, what in BATCHES.items():
            for round_ in range(1, options.rounds + 1):
                batches(result, operation, round_, options.connections[0])
            aim = _BATCH_AIM
            result.ratio(f"{what}: {THROUGH} / {BARE}", (what, THROUGH), (what, BARE), aim=aim)
    finish(result)


def singles(result: Result, operation: str, connections: int) -> None:
    """One message a request, on each store."""
    options = result.options
    metric = f"{operation} at {connections}"
    for round_ in range(1, options.rounds + 1):
        for variant in VARIANTS:
            with served(variant, options) as (server, beside):
                found = measure(server, operation, options, connections=connections, beside=beside)
            result.add(metric, variant, round_, found.rate, **found.details)
            add_costs(result, metric, variant, round_, found, 0.5 if operation == "lease_ack" else 1)
    for variant in VARIANTS[1:]:
        aim = _AIM if operation != "lease_ack" else None
        result.ratio(f"{metric}: {variant} / SQLite", (metric, variant), (metric, "SQLite"), aim=aim)


def batches(result: Result, operation: str, round_: int, connections: int) -> None:
    """A hundred messages a request through Windlass, then as a bare pipeline on a Redis of its own."""
    options, what = result.options, BATCHES[operation]
    with served(VARIANTS[1], options) as (server, beside):
        found = measure(
            server,
            f"{operation}_batch",
            options,
            connections=connections,
            batch=BATCH,
            fastest=FASTEST_BATCHED_MESSAGES,
            beside=beside,
        )
    result.add(what, THROUGH, round_, found.rate * BATCH, **found.details)
    add_costs(result, what, THROUGH, round_, found, BATCH)
    with bare_redis(options) as store:
        if operation == "receive":
            fill(store, round(FASTEST_BATCHED_MESSAGES * (options.seconds + WARM_UP_SECONDS)), connections)
        pipelined(operation, store, batch=BATCH, depth=connections, seconds=WARM_UP_SECONDS)
        cpu = store.cpu_seconds()
        rate = pipelined(operation, store, batch=BATCH, depth=connections, seconds=options.seconds)
        cpu = store.cpu_seconds() - cpu
    result.add(what, BARE, round_, rate)
    metric = f"{what}: processor of Redis"
    result.add(metric, BARE, round_, cpu * 1e6 / (rate * options.seconds))


@contextmanager
def bare_redis(options: Options, fsync: str = "always") -> Iterator[Redis]:
    """A Redis in which Windlass has made the queue `bench`, and stands still."""
    with (
        redis_server(options.scratch, fsync) as store,
        windlass(options.windlass, options.scratch, on_redis(store.url, fsync)) as server,
    ):
        server.process.freeze()
        yield store


def fill(store: Redis, messages: int, depth: int) -> None:
    pipelined("send", store, batch=BATCH, depth=depth, count=messages)
