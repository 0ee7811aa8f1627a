"""No-op jobs from their submission to their outcome, one worker process, eight at a time; and how soon an
idle worker starts one. Against task queues on Redis.

`jobs` counts jobs whose outcome was read: eight connections (or threads, with the libraries that have
those) submit them, then read all outcomes, while the worker works. `start when idle` is the time from before
a submission until the job runs, one job at a time. Redis writes and syncs its log before each answer, as
Windlass does; the same against a Redis that keeps everything in memory, its default, is told besides.

Parts, for --only: the names of the libraries, and `memory` for the Redis without a disk.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environment import disk_flushes
from bench.processes import BenchmarkError, Process
from bench.results import Options, Result, begin, finish
from bench.servers import BENCH_ROOT, Windlass, windlass
from bench.task_queues import IN_MEMORY, LIBRARIES, ON_DISK, Library, load, redis, working
from bench.tasks import AT_ONCE

WARM_UP_JOBS = 200
LEAST_JOBS = 100
IDLE_JOBS = 100
TOKEN = "registration of the benchmark"
JOBS, START = "jobs", "start when idle"
OURS = "windlass"

Load = Callable[[str, int], dict[str, int]]
"""(operation, number of jobs) -> what the client printed."""


def run(options: Options) -> None:
    if shutil.which("redis-server") is None:
        raise BenchmarkError("redis-server is not installed")
    result = begin("jobs", options)
    result.units[START] = "ms"
    result.settings["workers"] = {library.name: library.remark for library in LIBRARIES}
    libraries = [
        library for library in LIBRARIES if options.wants(library.name) or options.only == ("memory",)
    ]
    for library in [each for each in libraries if not each.installed()]:
        result.notes.append(f"{library.name} is left out: it is not installed")
        libraries.remove(library)
    stores: list[tuple[str, tuple[str, ...]]] = [("fsync", ON_DISK)]
    if options.wants("memory"):
        stores.append(("memory", IN_MEMORY))
    for round_ in range(1, options.rounds + 1):
        with windlass_at_work(options) as (server, _):
            measure(result, OURS, round_, lambda operation, count: load(OURS, operation, server.port, count))
        for library in libraries:
            for store, settings in stores:
                measure_library(result, library, store, settings, round_)
    compare(result, libraries, [store for store, _ in stores])
    finish(result)


def measure_library(
    result: Result, library: Library, store: str, settings: tuple[str, ...], round_: int
) -> None:
    with (
        redis(result.options.scratch, settings) as (port, directory),
        working(library, port, directory),
    ):
        measure(
            result,
            f"{library.name}, {store}",
            round_,
            lambda operation, count: load(library.name, operation, port, count),
        )


def measure(result: Result, variant: str, round_: int, client: Load) -> None:
    """Warm up, run about as many jobs as are done in the wanted seconds, then one by one."""
    warm = client("rate", WARM_UP_JOBS)
    count = max(LEAST_JOBS, round(_rate(warm) * result.options.seconds))
    flushes = disk_flushes()
    done = client("rate", count)
    flushes = disk_flushes() - flushes
    result.add(JOBS, variant, round_, _rate(done), jobs=count, flushes_a_job=flushes / count)
    idle = client("idle", IDLE_JOBS)
    result.add(START, variant, round_, idle["p50"] / 1e3, p99=idle["p99"] / 1e3)


def _rate(printed: dict[str, int]) -> float:
    return printed["completed"] / (printed["microseconds"] / 1e6)


def compare(result: Result, libraries: list[Library], stores: list[str]) -> None:
    """Ratios, and the aim against the fastest of those that sync their disk."""
    synced = {
        f"{library.name}, fsync": result.spread(JOBS, f"{library.name}, fsync").median
        for library in libraries
    }
    fastest = max(synced, key=lambda variant: synced[variant], default=None)
    for store in stores:
        for library in libraries:
            theirs = f"{library.name}, {store}"
            aim = 1.0 if theirs == fastest else None
            result.ratio(f"jobs: windlass / {theirs}", (JOBS, OURS), (JOBS, theirs), aim=aim)
    result.limit("p50 from submission to start, ms", (START, OURS), at_most=3.0)
    result.notes += [f"{library.name}: {library.remark}" for library in libraries]
    for metric, variant in result.pairs():
        runs = [run for run in result.runs if (run.metric, run.variant) == (metric, variant)]
        if metric == JOBS:
            flushes = statistics.median(run.details["flushes_a_job"] for run in runs)
            result.notes.append(f"{variant}: {flushes:.2f} disk flushes a job")


@contextmanager
def windlass_at_work(options: Options) -> Iterator[tuple[Windlass, Process]]:
    """A fresh server and one runner of bench/noop_runner.py, checked: a job comes back."""
    environment = {"WINDLASS_REGISTRATION_TOKEN": TOKEN, "WINDLASS_RUNNER_JOBS": str(AT_ONCE)}
    with windlass(options.windlass, options.scratch, environment) as server:
        path = os.pathsep.join(filter(None, (str(BENCH_ROOT), os.environ.get("PYTHONPATH"))))
        directory: Path = server.directory / "runner"
        argv = [sys.executable, "-m", "bench.noop_runner", f"http://127.0.0.1:{server.port}"]
        argv += [str(directory), str(AT_ONCE)]
        runner = Process(
            argv,
            server.directory / "runner.log",
            env={"PYTHONPATH": path, "WINDLASS_REGISTRATION_TOKEN": TOKEN},
        )
        try:
            runner.wait_for((directory / "identity.json").exists, "the runner's registration")
            load(OURS, "rate", server.port, 1)
            yield server, runner
        finally:
            runner.stop()
