"""Does anything cost more with ten million messages than with ten thousand?

Two servers live side by side: one with ten thousand messages waiting in one queue, the other with the
whole load in one state (or ten thousand queues). The one that is not measured is stopped where it is
(SIGSTOP). Afterwards the loaded one is killed with `kill -9` under sends and started again.

Parts, for --only: waiting, leased, delayed, expired, blocked, queues.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from rich.progress import Progress

from bench.measure import measure
from bench.processes import BenchmarkError
from bench.results import Options, Result, begin, console, finish
from bench.servers import Windlass, windlass
from bench.wrk import run_wrk

OPERATIONS = ("send", "receive", "lease_ack")
BASE_MESSAGES = 10_000
QUEUES = 10_000
BASE = "ten thousand in one queue"
LONGEST_DELAY = 30 * 24 * 3600
LONGEST_LEASE = 12 * 3600
MEBIBYTE = 2**20
# Messages a second: all that is to expire does so at one moment, a little after the last is loaded.
SLOWEST_LOAD = 100_000

Report = Callable[[int], None]


def load_waiting(server: Windlass, size: int, report: Report) -> None:
    server.api.fill("bench", size, progress=report)


def load_leased(server: Windlass, size: int, report: Report) -> None:
    server.api.fill("bench", size)
    server.api.drain("bench", size, lease=LONGEST_LEASE, progress=report)


def load_delayed(server: Windlass, size: int, report: Report) -> None:
    server.api.fill("bench", size, fields=lambda: {"delay": LONGEST_DELAY}, progress=report)


def load_expired(server: Windlass, size: int, report: Report) -> None:
    deadline = time.monotonic() + size / SLOWEST_LOAD + 1
    server.api.fill(
        "bench",
        size,
        fields=lambda: {"ttl": round(max(0.001, deadline - time.monotonic()), 3)},
        progress=report,
    )
    time.sleep(max(0.0, deadline - time.monotonic()) + 0.1)


def load_blocked(server: Windlass, size: int, report: Report) -> None:
    server.api.fill("bench", 1, fields=lambda: {"group": "g"})
    server.api.drain("bench", 1, lease=LONGEST_LEASE)
    server.api.fill("bench", size, fields=lambda: {"group": "g"}, progress=report)


def load_queues(server: Windlass, size: int, report: Report) -> None:
    names = [f"bench-{index}" for index in range(QUEUES)]
    server.api.fill_each(names, 1, create=True, progress=lambda done: report(done * size // QUEUES))


LOADS = {
    "waiting": load_waiting,
    "leased": load_leased,
    "delayed": load_delayed,
    "expired": load_expired,
    "blocked": load_blocked,
    "queues": load_queues,
}


def run(options: Options) -> None:
    result = begin("flat", options)
    result.settings |= {"size": options.size, "base_messages": BASE_MESSAGES, "queues": QUEUES}
    for name in LOADS:
        if options.wants(name):
            compare(result, name)
    finish(result)


def compare(result: Result, name: str) -> None:
    """Measure one kind of load against the base, then its crash."""
    options = result.options
    variant = f"{options.size:,} {name}" if name != "queues" else f"{QUEUES:,} queues"
    with (
        windlass(options.windlass, options.scratch) as base,
        windlass(options.windlass, options.scratch) as full,
    ):
        if name == "queues":
            base.api.create_queue("bench-0")
            base.api.fill("bench-0", BASE_MESSAGES)
        else:
            base.api.fill("bench", BASE_MESSAGES)
        base.process.freeze()
        memory_before = full.process.memory()
        seconds = load(full, name, options.size)
        full_states = full.api.status()["states"]
        console.print(f"  loaded in {seconds:.0f} s: {full_states}", style="dim")
        full.process.freeze()
        queues = {BASE: 1, variant: QUEUES} if name == "queues" else {BASE: 0, variant: 0}
        for round_ in range(1, options.rounds + 1):
            for operation in OPERATIONS:
                for label, server in ((BASE, base), (variant, full)):
                    server.process.thaw()
                    found = measure(
                        server,
                        operation,
                        options,
                        connections=options.connections[0],
                        queues=queues[label],
                        checked=name != "expired",
                    )
                    result.add(f"{name}: {operation}", label, round_, found.rate, **found.details)
                    server.process.freeze()
        for operation in OPERATIONS:
            metric = f"{name}: {operation}"
            result.ratio(f"{metric}: {variant} / {BASE}", (metric, variant), (metric, BASE), aim=0.9)
        metric = f"{name}: memory"
        result.units[metric] = "MiB"
        result.add(metric, BASE, 1, base.process.memory() / MEBIBYTE)
        result.add(
            metric,
            variant,
            1,
            full.process.memory() / MEBIBYTE,
            before_load=memory_before / MEBIBYTE,
            anonymous=full.process.anonymous_memory() / MEBIBYTE,
        )
        result.ratio(
            f"{metric}: {variant} / {BASE}", (metric, variant), (metric, BASE), aim=1.5, at_most=True
        )
        full.process.thaw()
        crash(result, name, variant, full)


def load(server: Windlass, name: str, size: int) -> float:
    """Fill the server with the load `name`; returns the seconds it took."""
    started = time.monotonic()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"loading {name}", total=size)
        LOADS[name](server, size, partial(progress.advance, task))
    return time.monotonic() - started


def crash(result: Result, name: str, variant: str, server: Windlass) -> None:
    """Kill the server under sends; the time from its start to the answer of a receive."""
    metric = f"{name}: start after kill -9"
    result.units[metric] = "s"
    options = result.options
    queue = "bench-0" if name == "queues" else "bench"
    for round_ in range(1, min(options.rounds, 3) + 1):
        sender = threading.Thread(target=_send_until_killed, args=(server.port, options))
        sender.start()
        time.sleep(1.0)  # a second of sends, so that the WAL holds some of them
        server.process.kill()
        sender.join()
        server.start()
        status, _ = server.api.call("GET", f"/queues/{queue}/messages")
        elapsed = time.perf_counter() - server.started
        if status not in (200, 204):
            raise BenchmarkError(f"the first receive after the crash answered {status}")
        result.add(metric, variant, round_, elapsed)
    result.limit(metric, (metric, variant), at_most=3.0)


def _send_until_killed(port: int, options: Options) -> None:
    try:
        run_wrk(port, "send", connections=options.connections[0], seconds=3)
    except BenchmarkError:
        return  # its server was killed, as it should be
