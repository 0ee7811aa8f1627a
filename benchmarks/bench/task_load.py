"""The client of the task queues, in a process of its own.

    BENCH_PORT=... python -m bench.task_load LIBRARY rate COUNT
    BENCH_PORT=... python -m bench.task_load LIBRARY idle COUNT

LIBRARY is a module of bench.tasks. `rate` submits COUNT jobs from eight threads, or eight coroutines, each of
which then waits for its jobs and reads their outcomes; it prints "completed=N microseconds=T" from the first
submission to the last outcome. `idle` submits one job at a time, after a pause, and prints
"completed=N p50=T p99=T": microseconds from before the submission until the job started.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import uvloop

from bench.tasks import AT_ONCE

PAUSE = 0.02
"""Seconds before each job of `idle`."""


def _shares(count: int) -> list[int]:
    """`count` jobs dealt out to those who submit."""
    return [len(range(start, count, AT_ONCE)) for start in range(AT_ONCE)]


def rate(library: ModuleType, count: int) -> list[int]:
    """Submit `count` jobs and read their outcomes: when each started."""

    def thread(share: int) -> list[int]:
        handles = [library.submit() for _ in range(share)]
        return list(library.outcomes(handles))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [started for read in pool.map(thread, _shares(count)) for started in read]


async def rate_of_coroutines(library: ModuleType, count: int) -> list[int]:
    """The same with a library of asyncio's."""

    async def lane(share: int) -> list[int]:
        handles = [await library.submit() for _ in range(share)]
        return list(await library.outcomes(handles))

    return [started for read in await asyncio.gather(*map(lane, _shares(count))) for started in read]


def idle(library: ModuleType, count: int) -> list[float]:
    """Microseconds from submission to start of jobs that come one by one."""
    waited = []
    for _ in range(count):
        time.sleep(PAUSE)
        before = time.monotonic_ns()
        (started,) = library.outcomes([library.submit()])
        waited.append((started - before) / 1e3)
    return waited


async def idle_of_coroutines(library: ModuleType, count: int) -> list[float]:
    """The same with a library of asyncio's."""
    waited = []
    for _ in range(count):
        await asyncio.sleep(PAUSE)
        before = time.monotonic_ns()
        (started,) = await library.outcomes([await library.submit()])
        waited.append((started - before) / 1e3)
    return waited


def _show_rate(count: int, began: int, moments: Sequence[int]) -> None:
    elapsed = time.monotonic_ns() - began
    if len(moments) != count or not all(began < moment <= began + elapsed for moment in moments):
        raise RuntimeError(f"{count} jobs were submitted, and {len(moments)} outcomes are not all theirs")
    print(f"completed={count} microseconds={elapsed / 1e3:.0f}")


def _show_waited(waited: Sequence[float]) -> None:
    p99 = statistics.quantiles(waited, n=100)[98]
    print(f"completed={len(waited)} p50={statistics.median(waited):.0f} p99={p99:.0f}")


async def _run(library: ModuleType, operation: str, count: int) -> None:
    await library.connect()
    if operation == "rate":
        began = time.monotonic_ns()
        _show_rate(count, began, await rate_of_coroutines(library, count))
    else:
        _show_waited(await idle_of_coroutines(library, count))


def main() -> None:
    name, operation, count = sys.argv[1:]
    library = importlib.import_module(f"bench.tasks.{name}")
    if inspect.iscoroutinefunction(library.submit):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(library, operation, int(count)))
    elif operation == "rate":
        began = time.monotonic_ns()
        _show_rate(int(count), began, rate(library, int(count)))
    else:
        _show_waited(idle(library, int(count)))


if __name__ == "__main__":
    main()
