"""Where the time of a commit goes: every statement of the writer, by the wall and on the processor.

No aims: this names the limits behind the other suites' figures. The wall less the processor is what the
writer waited: in COMMIT for the disk, elsewhere for the interpreter's lock, which the event loop holds.
"""

from __future__ import annotations

import json
import shlex
import sys

from bench.measure import measure
from bench.processes import scratch_directory
from bench.results import Options, begin, finish
from bench.servers import BENCH_ROOT, windlass

QUEUES = 10_000
# Operation, messages a request, queues (0: one).
LOADS = (
    ("send", 1, 0),
    ("receive", 1, 0),
    ("lease_ack", 1, 0),
    ("send_batch", 100, 0),
    ("receive_batch", 100, 0),
    ("send", 1, QUEUES),
    ("receive", 1, QUEUES),
    ("lease_ack", 1, QUEUES),
)
_LEAST = 0.02
"""Statements that took less of the whole than this are left out."""


def run(options: Options) -> None:
    result = begin("profile", options)
    connections = options.connections[0]
    for operation, batch, queues in LOADS:
        if not options.wants(operation):
            continue
        title = f"{operation}, {queues:,} queues" if queues else operation
        for round_ in range(1, options.rounds + 1):
            with scratch_directory(options.scratch, "profile") as directory:
                report, program = directory / "report.json", directory / "windlass"
                words = [sys.executable, "-m", "bench.profiled", str(report)]
                root = shlex.quote(str(BENCH_ROOT))
                program.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {shlex.join(words)} "$@"\n')
                program.chmod(0o755)
                with windlass(program, options.scratch) as server:
                    if queues:
                        names = [f"bench-{index}" for index in range(queues)]
                        server.api.fill_each(names, 1, create=True)
                    found = measure(
                        server, operation, options, connections=connections, queues=queues, batch=batch
                    )
                kind = "sending" if operation.startswith("send") else "others"
                spent = json.loads(report.read_text(encoding="utf-8"))[kind]
            commits, wall, _ = spent["all"]
            result.units[title] = "requests/s"
            result.add(title, "answered", round_, found.rate, **found.details)
            result.units[f"{title}: pages"] = "pages/commit"
            result.add(f"{title}: pages", "written", round_, spent.pop("pages")[0] / commits)
            for name, (count, elapsed, processor) in sorted(spent.items(), key=lambda item: -item[1][1]):
                if elapsed >= _LEAST * wall:
                    metric = f"{title}: {'a commit' if name == 'all' else name}"
                    result.units[metric] = "us/commit"
                    result.add(metric, "wall", round_, elapsed * 1e6 / commits, count=count)
                    result.add(metric, "processor", round_, processor * 1e6 / commits, count=count)
    finish(result)
