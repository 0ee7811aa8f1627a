"""One measured run of wrk against Windlass: preload, warm up, measure, and count what really happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.api import LARGEST_BATCH
from bench.environment import disk_flushes, idle_seconds
from bench.processes import BenchmarkError
from bench.results import Options
from bench.servers import Windlass
from bench.wrk import WrkRun, run_wrk

WARM_UP_SECONDS = 1
# More than any server here answers, so that a preload never runs dry; if it does, the run fails.
FASTEST_REQUESTS = 40_000
FASTEST_BATCHED_MESSAGES = 600_000


@dataclass(frozen=True)
class Measured:
    """`rate` in requests a second, `acknowledged` in messages; `details` go into the result file."""

    rate: float
    details: dict[str, float]
    acknowledged: float = 0.0


def measure(
    server: Windlass,
    operation: str,
    options: Options,
    *,
    connections: int,
    queues: int = 0,
    batch: int = 1,
    checked: bool = True,
    fastest: int | None = None,
    beside: Mapping[str, Callable[[], float]] | None = None,
) -> Measured:
    """Measure `operation` (those of windlass.lua) for `options.seconds`.

    With `checked`, the counts of the one queue before and after must agree with wrk's answers, give or
    take one request a connection that was under way at the end; BenchmarkError if they do not.
    Without it (while messages expire by themselves) wrk looks at each answer of a receive instead.
    `fastest` is how many messages a second nobody here receives, where that is less than with SQLite.
    `beside` are others that compute for it: by name, how many seconds so far.
    """
    if operation == "exchange":
        server.api.fill("bench", 2 * connections * batch)  # so that no receive comes too early
    elif operation not in ("send", "send_batch"):
        preload(server, options, queues=queues, batch=batch, fastest=fastest)
    beside = {"server": server.process.cpu_seconds, **(beside or {})}
    run_wrk(
        server.port,
        operation,
        connections=connections,
        seconds=WARM_UP_SECONDS,
        queues=queues,
        batch=batch,
    )
    before = at_rest(server, queues) if checked else 0
    flushes = disk_flushes()
    idle = idle_seconds()
    cpu_before = {name: seconds() for name, seconds in beside.items()}
    run = run_wrk(
        server.port,
        operation,
        connections=connections,
        seconds=options.seconds,
        threads=options.threads,
        queues=queues,
        batch=batch,
        strict=not checked and operation == "receive",
    )
    cpu = {name: seconds() - cpu_before[name] for name, seconds in beside.items()}
    idle = idle_seconds() - idle
    flushes = disk_flushes() - flushes
    if checked:
        verify(operation, run, before, at_rest(server, queues), connections=connections, batch=batch)
    return Measured(
        run.rate,
        {
            "p50_ms": run.p50_ms,
            "p99_ms": run.p99_ms,
            **{f"{name}_cpu_us": seconds * 1e6 / run.requests for name, seconds in cpu.items()},
            "client_cpu_us": run.cpu_seconds * 1e6 / run.requests,
            "idle_cores": idle / run.seconds,
            "flushes_a_second": flushes / run.seconds,
        },
        run.messages / run.seconds,
    )


def preload(
    server: Windlass, options: Options, *, queues: int = 0, batch: int = 1, fastest: int | None = None
) -> None:
    """Enough ready messages for the warm-up and the measured seconds."""
    if fastest is None:
        fastest = FASTEST_REQUESTS if batch == 1 else FASTEST_BATCHED_MESSAGES
    messages = int(fastest * (options.seconds + WARM_UP_SECONDS))
    if queues == 0:
        server.api.fill("bench", messages)
        return
    names = [f"bench-{index}" for index in range(queues)]
    each = -(-messages // queues)
    if each > LARGEST_BATCH:
        for name in names:
            server.api.fill(name, each)
    else:
        server.api.fill_each(names, each)


def held(server: Windlass, queues: int = 0) -> int:
    """Messages that are neither received nor acknowledged, in all queues that are measured."""
    if queues == 0:
        return sum(server.api.counts("bench").values())
    return sum(int(count) for count in server.api.status()["states"].values())


def at_rest(server: Windlass, queues: int = 0) -> int:
    """`held`, once the requests that wrk left under way are done."""
    return settled(lambda: held(server, queues))


def settled(count: Callable[[], int]) -> int:
    """What is counted, once it stays the same."""
    found = count()
    while True:
        time.sleep(0.1)
        before, found = found, count()
        if before == found:
            return found


def verify(operation: str, run: WrkRun, before: int, after: int, *, connections: int, batch: int) -> None:
    """Compare wrk's answers with the change of the queue; BenchmarkError where they disagree."""
    if operation == "exchange":
        if abs(after - before) > connections * batch:
            raise BenchmarkError(f"exchange: as many go as come, but the queue changed by {after - before}")
        return
    if operation in ("send", "send_batch"):
        answered, happened = run.requests * batch, after - before
    elif operation in ("lease_ack", "lease_ack_batch"):
        answered, happened = run.messages, before - after
    else:
        answered, happened = run.requests * batch, before - after
    under_way = connections * batch
    if not answered <= happened <= answered + under_way:
        raise BenchmarkError(
            f"{operation}: {answered} messages answered, but the queue changed by {happened}"
        )
    if operation not in ("send", "send_batch") and after <= under_way:
        raise BenchmarkError(f"{operation}: the queue ran dry")
