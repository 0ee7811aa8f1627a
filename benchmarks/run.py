"""Run the benchmarks: `python benchmarks/run.py [NAME ...]`, all of them without a name."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench.processes import BenchmarkError
from bench.results import Options, console
from bench.suites import (
    batch,
    dedup,
    faces,
    flat,
    fleet,
    http,
    jobs,
    longpoll,
    peers,
    products,
    profile,
    sandbox,
    scale,
    sqs,
    store,
)
from bench.suites import filter as bloom_filter

SUITES = {
    "http": http,
    "batch": batch,
    "peers": peers,
    "flat": flat,
    "longpoll": longpoll,
    "fleet": fleet,
    "profile": profile,
    "sandbox": sandbox,
    "jobs": jobs,
    "filter": bloom_filter,
    "products": products,
    "dedup": dedup,
    "store": store,
    "scale": scale,
    "sqs": sqs,
    "faces": faces,
}


def main() -> int:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *SUITES], metavar="NAME", help=", ".join(SUITES))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured seconds a run (5)")
    parser.add_argument("--connections", default="", help="connections, as in 32,128 (each benchmark's own)")
    parser.add_argument("--threads", type=int, default=1, help="threads of wrk (1)")
    parser.add_argument(
        "--size",
        type=int,
        default=10_000_000,
        help="messages for flat, absent ids for filter, at most a million of it for products (10,000,000)",
    )
    parser.add_argument("--waiters", type=int, default=10_000, help="waiters for longpoll (10,000)")
    parser.add_argument("--runners", type=int, default=10_000, help="runners for fleet (10,000)")
    parser.add_argument("--only", default="", help="parts of a benchmark, as in send,receive")
    beside = Path(sys.executable).parent / "windlass"
    parser.add_argument("--windlass", type=Path, default=beside, help="the program (beside this Python)")
    parser.add_argument(
        "--scratch", type=Path, default=Path("/var/tmp"), help="a directory on a disk (/var/tmp)"
    )
    parser.add_argument(
        "--out", type=Path, default=here / "results", help="where <NAME>.json goes (results/)"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that servers are ended
    for name in given.names or list(SUITES):
        connections = given.connections or ("32,128" if name == "http" else "32")
        options = Options(
            rounds=given.rounds,
            seconds=given.seconds,
            connections=tuple(int(number) for number in connections.split(",")),
            threads=given.threads,
            size=given.size,
            waiters=given.waiters,
            runners=given.runners,
            only=tuple(filter(None, given.only.split(","))),
            windlass=given.windlass,
            scratch=given.scratch,
            out=given.out,
        )
        try:
            SUITES[name].run(options)
        except BenchmarkError as error:
            console.print(f"{name} failed: {error}", style="bold red", markup=False)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
