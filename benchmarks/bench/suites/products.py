"""Look-ups of products over HTTP as a share of bare ASGI on the same server, and the start with many.

A million products, each looked up by its own path. wrk sends both servers the same requests; the bare
application answers constants of the same size. Each kind of look-up is answered by one part of the guard, and
the server's own counts have to say so:

    filter      an id that is not there, a new one each time
    remembered  an id that is not there and passes the filter: the negative cache knows it
    cache       one of a thousand products that were asked for before
    database    a product that is in no cache, a new one each time

The server that is not measured is stopped meanwhile (SIGSTOP). `start` is from the start of the process, on a
data directory that has been served before, to the first product that is answered. `statements` has a
PostgreSQL count for itself what it was asked during misses: it has to be nothing.

Parts, for --only: start, filter, remembered, cache, database, statements.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from bench.postgresql import postgresql
from bench.processes import BenchmarkError, scratch_directory
from bench.results import Options, Result, begin, finish
from bench.servers import Bare, Windlass, bare
from bench.wrk import WrkRun, run_wrk

ITEMS = 1_000_000
RATE = 0.01
HOT = 1000
REMEMBERED = 20
FASTEST = 20_000
"""Look-ups a second that no server here reaches, so that no id is asked for twice where none should be."""
WARM_UP_SECONDS = 1
START = "start"
STATEMENTS = "statements for misses"
FEW = 1000
"""Products of `statements`: in a filter made for a million they let nothing else pass."""
SETTINGS = {
    "WINDLASS_NEGATIVE_CACHE_SECONDS": "86400",
    "WINDLASS_CACHE_BYTES": str(4 << 20),  # some five thousand products: the others are never in it
}


@dataclass(frozen=True)
class Kind:
    """Look-ups of one kind; `source` is the count of /metrics that they go into."""

    source: str
    absent: bool
    aim: float | None = None


KINDS = {
    "filter": Kind("bloom_filter", absent=True, aim=0.55),
    "remembered": Kind("negative_cache", absent=True),
    "cache": Kind("cache", absent=False, aim=0.45),
    "database": Kind("database", absent=False),
}


def run(options: Options) -> None:
    result = begin("products", options)
    items = min(ITEMS, options.size)
    result.settings["products"] = items
    result.units |= {START: "s", STATEMENTS: ""}
    kinds = {name: kind for name, kind in KINDS.items() if options.wants(name)}
    if options.wants("statements"):
        count_statements(result)
    if kinds or options.wants(START):
        look_up(result, kinds, items)
    for name, kind in kinds.items():
        for connections in options.connections:
            metric = f"{name} at {connections}"
            aim = kind.aim if connections == 32 else None
            result.ratio(
                f"{metric}: windlass / bare ASGI", (metric, "windlass"), (metric, "bare ASGI"), aim=aim
            )
    result.limit("start, s", (START, "windlass"), at_most=1)
    result.limit(STATEMENTS, (STATEMENTS, "PostgreSQL"), at_most=0)
    finish(result)


def look_up(result: Result, kinds: Collection[str], items: int) -> None:
    """The start, and these kinds of look-ups, of one server with so many products."""
    options = result.options
    with scratch_directory(options.scratch, "products") as directory, ExitStack() as stack:
        settings = SETTINGS | {"WINDLASS_BLOOM_EXPECTED_ITEMS": str(items)}
        server = Windlass(options.windlass, directory, settings)
        stack.callback(server.stop)
        fill(server, items)
        if options.wants(START):
            for round_ in range(1, options.rounds + 1):
                server.stop()
                seconds = start(server, items)
                result.add(START, "windlass", round_, seconds, cpu_seconds=server.process.cpu_seconds())
        if kinds:
            other = stack.enter_context(bare(options.scratch))
            ids = _ids(server, items)
            for name in kinds:
                compare(result, server, other, name, ids[name])


def count_statements(result: Result) -> None:
    """What PostgreSQL counts during misses, and, so that its count is known to count, for one product."""
    options = result.options
    with (
        postgresql(options.scratch) as database,
        scratch_directory(options.scratch, "products") as directory,
        ExitStack() as stack,
    ):
        server = Windlass(options.windlass, directory, {"WINDLASS_DATABASE": database.url})
        stack.callback(server.stop)
        fill(server, FEW)
        paths = _write(directory / "paths", (f"missing-{number}" for number in count()), options.seconds)
        before = database.reads("products")
        server.api.expect(200, "GET", "/products/product-0000000")
        if database.reads("products") == before:
            raise BenchmarkError("PostgreSQL was asked for a product and has counted nothing")
        for round_ in range(1, options.rounds + 1):
            before = database.reads("products")
            run_wrk(server.port, "get", connections=32, seconds=options.seconds, paths=paths, absent=True)
            result.add(STATEMENTS, "PostgreSQL", round_, database.reads("products") - before)


def fill(server: Windlass, items: int) -> None:
    """Start it with a file of so many products; the directory is a served one afterwards."""
    data = server.directory / "data"
    data.mkdir()
    with (data / "products.txt").open("w", encoding="ascii") as file:
        file.writelines(f"product-{number:07}\n" for number in range(items))
    server.start(seconds=600)
    held = server.api.expect(200, "GET", "/bloom/stats")["items"]
    if abs(held - items) > items // 100:  # false positives among them are not counted
        raise BenchmarkError(f"{items} products, and the filter holds {held}")


def start(server: Windlass, items: int) -> float:
    """Seconds from the start of the process until a product is answered."""
    server.start(seconds=600)
    server.api.expect(200, "GET", f"/products/product-{items // 2:07}")
    return time.perf_counter() - server.started


def compare(result: Result, server: Windlass, other: Bare, name: str, ids: Iterator[str]) -> None:
    """Rounds of one kind of look-up, one server after the other with the same paths."""
    options = result.options
    for connections in options.connections:
        for round_ in range(1, options.rounds + 1):
            warm_up = _write(server.directory / "warm-up", ids, WARM_UP_SECONDS)
            paths = _write(server.directory / "paths", ids, options.seconds)
            for variant, process, port, resting in (
                ("windlass", server.process, server.port, other.process),
                ("bare ASGI", other.process, other.port, server.process),
            ):
                drive = partial(
                    run_wrk,
                    port,
                    "get",
                    connections=connections,
                    threads=options.threads,
                    absent=KINDS[name].absent,
                )
                resting.freeze()
                drive(seconds=WARM_UP_SECONDS, paths=warm_up)
                before = _counts(server) if variant == "windlass" else {}
                cpu = process.cpu_seconds()
                found = drive(seconds=options.seconds, paths=paths)
                cpu = process.cpu_seconds() - cpu
                details = {
                    "p50_ms": found.p50_ms,
                    "p99_ms": found.p99_ms,
                    "server_cpu_us": cpu * 1e6 / found.requests,
                }
                if before:
                    details |= verify(name, found, before, _counts(server), connections)
                resting.thaw()
                result.add(f"{name} at {connections}", variant, round_, found.rate, **details)


def verify(
    name: str, run: WrkRun, before: dict[str, Any], after: dict[str, Any], connections: int
) -> dict[str, float]:
    """BenchmarkError unless the right part answered, and the database was asked only where it should be."""
    source = KINDS[name].source
    answered = after[source] - before[source]
    calls = after["database_calls"] - before["database_calls"]
    # One missing id in a hundred passes the filter. wrk has not counted what was under way at the end of the
    # warm-up and at the end of the run.
    others = 2 * RATE * run.requests if name == "filter" else 0
    if not run.requests - others <= answered <= run.requests + 2 * connections:
        raise BenchmarkError(f"{name}: {run.requests} answers, of which {answered} by {source}")
    if name != "database" and calls > others:
        raise BenchmarkError(f"{name}: {calls} calls of the database")
    return {"database_calls": calls}


def _counts(server: Windlass) -> dict[str, Any]:
    found: dict[str, Any] = server.api.expect(200, "GET", "/metrics")
    return found


def _remembered(server: Windlass) -> list[str]:
    """Missing ids that pass the filter; they have been asked for, so that they are remembered."""
    found = []
    for number in range(int(100 * REMEMBERED / RATE)):
        missing = f"missing-of-old-{number}"
        if server.api.expect(404, "GET", f"/products/{missing}")["source"] == "database":
            found.append(missing)
            if len(found) == REMEMBERED:
                return found
    raise BenchmarkError(f"only {len(found)} missing ids pass the filter")


def _write(file: Path, ids: Iterator[str], seconds: float) -> Path:
    """The paths of the next ids, as many as can be asked for in that time."""
    wanted = islice(ids, int(FASTEST * max(1, seconds)))
    file.write_text("".join(f"/products/{each}\n" for each in wanted), encoding="ascii")
    return file


def _ids(server: Windlass, items: int) -> dict[str, Iterator[str]]:
    """The ids of each kind, without end."""
    hot = [f"product-{number:07}" for number in range(min(HOT, items))]
    for each in hot:
        server.api.expect(200, "GET", f"/products/{each}")
    return {
        "filter": (f"missing-{number}" for number in count()),
        "remembered": cycle(_remembered(server)),
        "cache": cycle(hot),
        "database": cycle(f"product-{number:07}" for number in range(len(hot), items)),
    }
