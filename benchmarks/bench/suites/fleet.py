"""Ten thousand runners with eight jobs each, and a heartbeat of each every 15 seconds: what the server's
processor has to do for them, and whether a heartbeat costs more than with a hundred runners.

One server, and the same heartbeats a second all along: first of a hundred runners, then of all. A round of
all runners is one interval, in which each of them has one heartbeat. No heartbeat may fail, and no lease may
run out: each answer says that all the jobs named are held, and at the end all jobs are leased, and a job of
each runner is at its first attempt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import uvloop

from bench.fleet import Fleet
from bench.processes import BenchmarkError, raise_file_limit
from bench.results import Options, Result, begin, console, finish
from bench.servers import Windlass, windlass

INTERVAL = 15.0
"""Seconds between two heartbeats of a runner: the server's default, as are eight jobs and a lease of 30 s."""
JOBS = 8
FEW = 100
SPARE_FILES = 256
UNDER_WAY = 8
"""Heartbeats that may have been asked in one round and answered in the next."""
TOKEN = "registration of the benchmark"
SHARE, COST, MEDIAN, SLOW = "processor", "processor a heartbeat", "answer, p50", "answer, p99"
MEMORY = "memory"
MEBIBYTE = 2**20


def run(options: Options) -> None:
    if options.runners <= FEW:
        raise BenchmarkError(f"--runners must be more than the {FEW} that they are compared with")
    files = raise_file_limit()
    if files < options.runners + SPARE_FILES:
        raise BenchmarkError(f"{files:,} open files are too few for {options.runners:,} connections")
    result = begin("fleet", options)
    result.settings |= {
        "runners": options.runners,
        "connections": options.runners,
        "open_files": files,
        "jobs_a_runner": JOBS,
        "interval": INTERVAL,
        "heartbeats_a_second": options.runners / INTERVAL,
    }
    result.units |= {SHARE: "% of a core", COST: "us", MEDIAN: "ms", SLOW: "ms", MEMORY: "MiB"}
    with (
        windlass(options.windlass, options.scratch, {"WINDLASS_REGISTRATION_TOKEN": TOKEN}) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(measure(result, server, FEW, INTERVAL))
    many, few = variant(options.runners), variant(FEW)
    result.limit("processor, % of a core", (SHARE, many), at_most=30)
    result.ratio(f"processor a heartbeat: {many} / {few}", (COST, many), (COST, few), aim=1.25, at_most=True)
    finish(result)


def variant(runners: int) -> str:
    return f"{runners:,} runners"


async def measure(result: Result, server: Windlass, few: int, interval: float) -> None:
    """All rounds: with a few runners `options.seconds` each, with all of them `interval`."""
    options = result.options
    rate = options.runners / interval
    fleet = Fleet(server.port, TOKEN, JOBS)
    try:
        await fleet.grow(few)
        fleet.spread(few / rate)
        await fleet.all_begun()
        await measure_rounds(result, server, fleet, rate, options.seconds)
        fleet.spread(interval / 3)  # they keep what they hold, while the others come
        began = asyncio.get_running_loop().time()
        await fleet.grow(options.runners)
        took = asyncio.get_running_loop().time() - began
        console.print(f"  {options.runners:,} runners and their jobs came in {took:.0f} s", style="dim")
        fleet.spread(interval)
        await fleet.all_begun()
        await measure_rounds(result, server, fleet, rate, interval)
    finally:
        fleet.close()


async def measure_rounds(result: Result, server: Windlass, fleet: Fleet, rate: float, seconds: float) -> None:
    """Warm up for one round, measure the others, and check what the runners hold after them."""
    name = variant(len(fleet.runners))
    for round_ in range(result.options.rounds + 1):
        cpu, began = server.process.cpu_seconds(), time.perf_counter()
        beats = await fleet.go_on(seconds)
        cpu, took = server.process.cpu_seconds() - cpu, time.perf_counter() - began
        if not round_:
            continue
        count = len(beats.seconds)
        verify(count, rate * took)
        result.add(SHARE, name, round_, 100 * cpu / took, heartbeats=count, late_ms=beats.late * 1e3)
        result.add(COST, name, round_, cpu * 1e6 / count)
        result.add(MEDIAN, name, round_, beats.quantile(0.5) * 1e3)
        result.add(SLOW, name, round_, beats.quantile(0.99) * 1e3, longest=max(beats.seconds) * 1e3)
        result.add(MEMORY, name, round_, server.process.memory() / MEBIBYTE)
    leased = int(server.api.status()["states"]["leased"])
    check(JOBS * len(fleet.runners), leased, await fleet.attempts())


def verify(answered: int, due: float) -> None:
    """BenchmarkError where fewer heartbeats were answered than were due, but for a few under way."""
    if answered + UNDER_WAY < 0.98 * due:
        raise BenchmarkError(f"{answered} heartbeats were answered, and {due:.0f} were due")


def check(held: int, leased: int, attempts: Collection[int]) -> None:
    """BenchmarkError where a lease ran out: a job is not leased any more, or was tried again."""
    if leased != held:
        raise BenchmarkError(f"{held} jobs should be leased, and {leased} are")
    if set(attempts) != {1}:
        raise BenchmarkError(f"some jobs were tried {max(attempts)} times")
