"""Single durable requests of Windlass as a share of bare ASGI on the same server.

The bare application reads the body and answers a constant of the same size, on the same uvicorn, uvloop
and httptools; wrk sends it the same requests. Each run has a fresh server; the preload is outside the
measured seconds, and what the queue holds afterwards shows that no receive found it empty.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.measure import measure
from bench.results import Options, begin, finish
from bench.servers import bare, windlass
from bench.wrk import run_wrk

OPERATIONS = ("send", "receive", "lease_ack")
AIMS = {
    ("send", 32): 0.50,
    ("send", 128): 0.60,
    ("receive", 32): 0.50,
    ("receive", 128): 0.60,
    ("lease_ack", 32): 0.45,
    ("lease_ack", 128): 0.45,
}


def run(options: Options) -> None:
    result = begin("http", options)
    result.notes.append("lease_ack counts requests: a lease is one, its acknowledgement is another")
    metrics = [
        (operation, connections)
        for connections in options.connections
        for operation in OPERATIONS
        if options.wants(operation)
    ]
    for operation, connections in metrics:
        metric = f"{operation} at {connections}"
        for round_ in range(1, options.rounds + 1):
            for variant in ("windlass", "bare ASGI"):
                with ExitStack() as stack:
                    if variant == "windlass":
                        server = stack.enter_context(windlass(options.windlass, options.scratch))
                        found = measure(server, operation, options, connections=connections)
                        rate, details = found.rate, found.details
                    else:
                        other = stack.enter_context(bare(options.scratch))
                        run_wrk(other.port, operation, connections=connections, seconds=1)
                        before = other.process.cpu_seconds()
                        wrk = run_wrk(
                            other.port,
                            operation,
                            connections=connections,
                            seconds=options.seconds,
                            threads=options.threads,
                        )
                        cpu = other.process.cpu_seconds() - before
                        rate = wrk.rate
                        details = {
                            "p50_ms": wrk.p50_ms,
                            "p99_ms": wrk.p99_ms,
                            "server_cpu_us": cpu * 1e6 / wrk.requests,
                        }
                    result.add(metric, variant, round_, rate, **details)
        aim = AIMS.get((operation, connections))
        result.ratio(f"{metric}: windlass / bare ASGI", (metric, "windlass"), (metric, "bare ASGI"), aim=aim)
    finish(result)
