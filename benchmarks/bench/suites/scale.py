"""What scaling out costs and gives: more processes, more masters, one hot queue, many runners; and the sums.

All share this machine's processors with wrk, so each part says what every process computed for a message.
From that follows what two processors could do at most, whoever waits for whom.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import uvloop

from bench import footprint, sums
from bench.fleet import Fleet
from bench.measure import measure
from bench.pipeline import hammered
from bench.postgresql import postgresql
from bench.processes import BenchmarkError
from bench.redis_server import Redis, redis_cluster, redis_server
from bench.results import Options, Result, begin, finish
from bench.servers import Windlass, windlass
from bench.suites.fleet import INTERVAL, JOBS, TOKEN, check
from bench.suites.store import BATCH, add_costs, bare_redis, fill, on_redis

ONE, TWO, BOUND = "1 worker", "2 workers", "two processors at one worker's cost"
CORES = 2
ONE_SERVER, THREE = "one server", "three masters"
QUEUES = 12
RUNNERS, HEARTBEATS = 1_000, 600.0
SIZES = {"100 B": 100, "1 KiB": 1024}
UNDER_WAY = 128
"""Connections where workers are compared, at least: each of two has to have pipelines as long as one has."""
FASTEST = 15_000
"""Messages a second, one a request, more than anything here receives from Redis."""
HOT = {"one queue, single": 1, "one queue, batches of 100": BATCH}
HAMMERED = {"always": "redis-benchmark, always", "everysec": "redis-benchmark, everysec"}
HAMMERED_CALLS = {1: 30_000, BATCH: 2_000}
BILLION, MILLION = 1_000_000_000, 1_000_000
PEAK, BACKLOG_HOURS = 3.0, 1.0
_AIM = 1.6
_MIB, _GIB = 2**20, 2**30


def run(options: Options) -> None:
    result = begin("scale", options)
    result.settings |= {
        "queues_in_the_cluster": QUEUES,
        "messages_for_bytes": footprint.MESSAGES,
        "runners": RUNNERS,
        "heartbeats_a_second": HEARTBEATS,
        "peak": PEAK,
        "backlog_hours": BACKLOG_HOURS,
        "processor_full_at": sums.FULL,
    }
    parts: dict[str, Callable[[Result], None]] = {
        "workers": workers,
        "cluster": cluster,
        "hot": hot,
        "runners": runners,
        "bytes": message_bytes,
        "slots": slots,
        "sums": add_sums,
    }
    for name, part in parts.items():
        if options.wants(name):
            part(result)
    finish(result)


def messages_a_request(operation: str) -> float:
    """A message's lease and its acknowledgement are two requests; in `exchange` it is sent and received."""
    return 1.0 if operation == "send" else 0.5


# --- more processes -----------------------------------------------------------------------------------


def workers(result: Result) -> None:
    """`--workers 2` beside `--workers 1`, on one Redis; and what one queue does through each."""
    options = result.options
    connections = max(options.connections[0], UNDER_WAY)
    with postgresql(options.scratch) as database:
        for round_ in range(1, options.rounds + 1):
            for variant, amount in ((ONE, 1), (TWO, 2)):
                with redis_server(options.scratch, "always") as store:
                    environment = {
                        **on_redis(store.url),
                        "WINDLASS_DATABASE": database.fresh(),
                        "WINDLASS_REDIS": store.url,
                        "WINDLASS_WORKERS": str(amount),
                    }
                    with windlass(options.windlass, options.scratch, environment) as server:
                        for operation in ("send", "lease_ack"):
                            one_of_workers(result, round_, variant, operation, server, store, connections)
                        for metric, batch in HOT.items():
                            through_one_queue(result, round_, variant, metric, batch, server, store)
    for operation in ("send", "lease_ack"):
        metric = f"{operation}, by workers"
        result.ratio(f"{metric}: {TWO} / {ONE}", (metric, TWO), (metric, ONE), aim=_AIM)
        result.ratio(f"{metric}: {BOUND} / {ONE}", (metric, BOUND), (metric, ONE))


def one_of_workers(
    result: Result,
    round_: int,
    variant: str,
    operation: str,
    server: Windlass,
    store: Redis,
    connections: int,
) -> None:
    beside = {"redis": store.cpu_seconds}
    options, metric = result.options, f"{operation}, by workers"
    found = measure(server, operation, options, connections=connections, fastest=FASTEST, beside=beside)
    result.add(metric, variant, round_, found.rate, **found.details)
    add_costs(result, metric, variant, round_, found, messages_a_request(operation))
    if variant == ONE:
        spent = sum(found.details[f"{name}_cpu_us"] for name in ("server", "redis", "client"))
        result.add(metric, BOUND, round_, CORES * 1e6 / spent)


def through_one_queue(
    result: Result, round_: int, variant: str, metric: str, batch: int, server: Windlass, store: Redis
) -> None:
    """Messages that are sent to and received from one queue, by as many connections at once."""
    found = measure(
        server,
        "exchange",
        result.options,
        connections=result.options.connections[0],
        batch=batch,
        beside={"redis": store.cpu_seconds},
    )
    each = messages_a_request("exchange") * batch
    result.add(metric, variant, round_, found.rate * each, **found.details)
    add_costs(result, metric, variant, round_, found, each)
    share = f"{metric}: Redis's thread"
    result.units[share] = "% taken"
    result.add(share, variant, round_, found.rate * found.details["redis_cpu_us"] / 1e4)


def hot(result: Result) -> None:
    """One queue with nothing of Windlass before it: Redis's thread computes, or waits for its fsync."""
    options = result.options
    for round_ in range(1, options.rounds + 1):
        for metric, batch in HOT.items():
            for fsync, variant in HAMMERED.items():
                with bare_redis(options, fsync) as store:
                    fill(store, HAMMERED_CALLS[batch] * batch, options.connections[0])
                    found = hammered(store, batch=batch, calls=HAMMERED_CALLS[batch])
                if found is None:
                    result.notes.append("there is no redis-benchmark: one queue without Windlass is left out")
                    return
                rate, taken = found
                spent, share = f"{metric}: processor of Redis", f"{metric}: Redis's thread"
                result.units |= {spent: "us a message", share: "% taken"}
                result.add(metric, variant, round_, rate)
                result.add(spent, variant, round_, taken * 1e6 / rate)
                result.add(share, variant, round_, 100 * taken)


# --- more masters -------------------------------------------------------------------------------------


def cluster(result: Result) -> None:
    """Queues spread over three masters beside the same on one server: what each message costs all of them."""
    options = result.options
    for round_ in range(1, options.rounds + 1):
        for variant in (ONE_SERVER, THREE):
            made = (
                redis_server(options.scratch, "always")
                if variant == ONE_SERVER
                else redis_cluster(options.scratch, "always", 3)
            )
            with made as store, windlass(options.windlass, options.scratch, on_redis(store.url)) as server:
                for n in range(QUEUES):
                    server.api.create_queue(f"bench-{n}")
                for operation in ("send", "lease_ack"):
                    found = measure(
                        server,
                        operation,
                        options,
                        connections=options.connections[0],
                        queues=QUEUES,
                        fastest=FASTEST,
                        beside={"redis": store.cpu_seconds},
                    )
                    metric = f"{operation}, {QUEUES} queues"
                    result.add(metric, variant, round_, found.rate, **found.details)
                    add_costs(result, metric, variant, round_, found, messages_a_request(operation))
    for operation in ("send", "lease_ack"):
        for process in ("Windlass", "Redis"):
            metric = f"{operation}, {QUEUES} queues: processor of {process}"
            result.ratio(f"{metric}: {THREE} / {ONE_SERVER}", (metric, THREE), (metric, ONE_SERVER))


# --- runners ------------------------------------------------------------------------------------------


def runners(result: Result) -> None:
    """A heartbeat of a runner with eight jobs, on Redis, and what a runner has in memory."""
    options = result.options
    with redis_server(options.scratch, "always") as store:
        environment = {**on_redis(store.url), "WINDLASS_REGISTRATION_TOKEN": TOKEN}
        with (
            windlass(options.windlass, options.scratch, environment) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(beat(result, server, store))


async def beat(result: Result, server: Windlass, store: Redis) -> None:
    """All rounds, and a check that no lease has run out."""
    result.units |= {"heartbeat: functions of Redis": "calls", "runner: memory of Windlass": "KiB"}
    fleet = Fleet(server.port, TOKEN, JOBS)
    before = server.process.anonymous_memory()
    try:
        await fleet.grow(RUNNERS)
        fleet.spread(RUNNERS / HEARTBEATS)
        await fleet.all_begun()
        memory = server.process.anonymous_memory() - before
        result.add("runner: memory of Windlass", "Redis, always", 1, memory / RUNNERS / 1024)
        for round_ in range(result.options.rounds + 1):
            cpu = server.process.cpu_seconds(), store.cpu_seconds(), store.function_calls()[0]
            began = time.perf_counter()
            beats = await fleet.go_on(result.options.seconds)
            took = time.perf_counter() - began
            if not round_:
                continue
            count = len(beats.seconds)
            if not count:
                raise BenchmarkError("no heartbeat was answered")
            for process, now, then in (
                ("Windlass", server.process.cpu_seconds(), cpu[0]),
                ("Redis", store.cpu_seconds(), cpu[1]),
            ):
                metric = f"heartbeat: processor of {process}"
                result.units[metric] = "us"
                result.add(metric, "Redis, always", round_, (now - then) * 1e6 / count, rate=count / took)
            calls = store.function_calls()[0] - cpu[2]
            result.add("heartbeat: functions of Redis", "Redis, always", round_, calls / count)
        leased = int(server.api.status()["states"]["leased"])
        check(JOBS * RUNNERS, leased, await fleet.attempts())
    finally:
        fleet.close()


# --- bytes --------------------------------------------------------------------------------------------


def message_bytes(result: Result) -> None:
    """What a message takes; once, for it hardly differs from one time to the next."""
    options = result.options
    settings = {"WINDLASS_DRAIN_DELAY": "0"}

    def add(metric: str, variant: str, value: float) -> None:
        result.units[metric] = "B"
        result.add(metric, variant, 1, value)

    for name, size in SIZES.items():
        here = footprint.on_sqlite(options, size)
        there, leased = footprint.on_redis(options, size, settings)
        for variant, found in (("SQLite", here), ("Redis", there)):
            add(f"{name}, in memory", variant, found.memory)
            add(f"{name}, on disk", variant, found.disk)
            add(f"{name}, written when sent", variant, found.written)
        add(f"{name}, in memory while leased", "Redis", leased)
    add("a queue with one message, in memory", "Redis", footprint.of_a_queue(options, settings))


# --- sums ---------------------------------------------------------------------------------------------


def slots(result: Result) -> None:
    """How evenly queues lie on masters: not measured, but counted from their slots."""
    for queues in (10, 1_000, 10_000):
        for kind, loads in (("alike", sums.alike(queues)), ("1/rank", sums.zipf(queues))):
            metric = f"{queues:,} queues {kind}: busiest"
            result.units[metric] = "times its share"
            for masters in (3, 6, 12):
                result.add(metric, f"{masters} masters", 1, masters * sums.busiest(loads, masters))


def add_sums(result: Result) -> None:
    """A billion messages a day and a million runners, from what was measured in this run."""

    def cost(*metrics: str, variant: str) -> sums.Cost | None:
        found = [
            [f"{metric}: processor of {process}" for metric in metrics] for process in ("Windlass", "Redis")
        ]
        if not all(result.values(name, variant) for names in found for name in names):
            return None
        windlass_us, redis_us = (
            sum(result.spread(name, variant).median for name in names) for names in found
        )
        return sums.Cost(windlass_us, redis_us)

    def add(metric: str, variant: str, value: float, unit: str) -> None:
        result.units[metric] = unit
        result.add(metric, variant, 1, value)

    message = cost(f"send, {QUEUES} queues", f"lease_ack, {QUEUES} queues", variant=THREE)
    for name in SIZES:
        waiting = result.values(f"{name}, in memory", "Redis")
        written = result.values(f"{name}, written when sent", "Redis")
        if message is None or not waiting or not written:
            continue
        day = sums.day_of(
            BILLION, message, peak=PEAK, hours=BACKLOG_HOURS, waiting_bytes=waiting[1], log_bytes=written[1]
        )
        variant = f"a billion a day, {name}"
        add("messages a second, average", variant, day.average, "/s")
        add("messages a second, peak", variant, day.peak, "/s")
        add("processes of Windlass", variant, day.processes, "")
        add("Redis servers", variant, day.masters, "")
        add("messages of an hour without receivers", variant, day.backlog, "")
        add("memory for those", variant, day.memory / _GIB, "GiB")
        add("log of sends a day", variant, day.log / _GIB, "GiB")
    heartbeat = cost("heartbeat", variant="Redis, always")
    memory = result.values("runner: memory of Windlass", "Redis, always")
    if heartbeat is not None and memory:
        fleet = sums.runners_of(MILLION, INTERVAL, JOBS, heartbeat, memory[1] * 1024)
        variant = "a million runners"
        add("heartbeats a second", variant, fleet.heartbeats, "/s")
        add("leases extended a second", variant, fleet.extensions, "/s")
        add("processes of Windlass", variant, fleet.processes, "")
        add("Redis servers", variant, fleet.masters, "")
        add("queues of jobs at least", variant, fleet.queues, "")
        add("memory of runners", variant, fleet.memory / _GIB, "GiB")
    for metric in HOT:
        found = result.values(f"{metric}: processor of Redis", TWO)
        if found:
            cost_of_one = result.spread(f"{metric}: processor of Redis", TWO).median
            add(f"{metric}: at most", "a full thread of Redis", 1e6 / cost_of_one, "/s")
