"""Bare redis-py: one process that does nothing but send the commands that Windlass sends, pipelined.

    python -m bench.pipeline OPERATION PORT QUEUE SECONDS BATCH DEPTH [COUNT]

OPERATION is send or receive. A turn is one pipeline of DEPTH calls of the function
that Windlass calls, BATCH messages of 100 bytes each, and reads all its answers; one follows the other for
SECONDS, or until COUNT messages are sent. QUEUE is the queue's number. Prints
`completed=N microseconds=N`, N messages.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from bench.api import content
from bench.peers import operations_a_second
from bench.processes import BenchmarkError
from bench.redis_server import Redis
from windlass.store.redis import library

BENCH_ROOT = Path(__file__).resolve().parents[1]
_QUEUE = "bench"
_SERVER = "bench"
_UNDER_WAY = 16, 4
"""Connections of a redis-benchmark, and calls on each."""


def pipelined(
    operation: str, server: Redis, *, batch: int, depth: int, seconds: float = 0.0, count: int = 0
) -> float:
    """Messages a second of a process of its own, in the queue `bench`, which Windlass has made before."""
    argv = [sys.executable, "-m", "bench.pipeline", operation, str(server.port), str(_number(server))]
    return operations_a_second([*argv, str(seconds), str(batch), str(depth), str(count)], seconds)


def hammered(server: Redis, *, batch: int, calls: int) -> tuple[float, float] | None:
    """Two redis-benchmarks at once, which cost little: one sends, the other receives, `calls` calls each.

    Returns messages a second that went through, and the share of Redis's thread that it took; None where
    there is no redis-benchmark. Fill the queue before, so that no receive comes too early.
    """
    program = shutil.which("redis-benchmark")
    if program is None:
        return None
    head = [program, "-p", str(server.port), "-n", str(calls), "-q"]
    head += ["-c", str(_UNDER_WAY[0]), "-P", str(_UNDER_WAY[1])]
    ready = f"windlass:{{{_number(server)}}}:r"
    before = server.client.zcard(ready)
    cpu, began = server.cpu_seconds(), time.perf_counter()
    clients = [
        subprocess.Popen([*head, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in _commands(_number(server), batch).values()
    ]
    failed = [client.wait(300) for client in clients]
    took = time.perf_counter() - began
    changed = abs(server.client.zcard(ready) - before)
    if any(failed) or changed > batch * _UNDER_WAY[0] * _UNDER_WAY[1]:
        raise BenchmarkError(f"redis-benchmark failed, or the queue changed by {changed}")
    return calls * batch / took, (server.cpu_seconds() - cpu) / took


def _number(server: Redis) -> int:
    number = server.client.hget("windlass:{r}:names", _QUEUE)
    if number is None:
        raise BenchmarkError(f"there is no queue {_QUEUE} in this Redis")
    return int(number)


def _commands(number: int, batch: int) -> dict[str, tuple[str | int, ...]]:
    """What Windlass sends for one request of `batch` messages."""
    key = f"windlass:{{{number}}}:s"
    contents = [content(_QUEUE)] * batch
    return {
        "send": ("FCALL", f"{library.prefix()}send", 1, key, "0", _SERVER, 1, batch, *contents),
        "receive": ("FCALL", f"{library.prefix()}receive", 1, key, "0", _SERVER, batch, "", "", ""),
    }


def main(argv: Sequence[str]) -> None:
    operation, port, number, seconds, batch, depth, count = argv
    command = _commands(int(number), int(batch))[operation]
    client = redis.Redis(port=int(port))
    client.ping()
    completed, wanted = 0, int(count)
    began = time.perf_counter()
    while completed < wanted if wanted else time.perf_counter() - began < float(seconds):
        pipeline = client.pipeline(transaction=False)
        for _ in range(int(depth)):
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        done = _messages(operation, pipeline.execute(), int(batch))
        if done != int(depth) * int(batch):
            raise SystemExit(f"{operation}: {done} messages, not {int(depth) * int(batch)}")
        completed += done
    print(f"completed={completed} microseconds={round((time.perf_counter() - began) * 1e6)}")


def _messages(verb: str, answers: Sequence[Any], batch: int) -> int:
    """How many messages these answers say were sent, or bring."""
    if verb == "send":
        return sum(batch for (places, *_) in answers if isinstance(places[0], bytes))
    return sum(len(taken) for ((taken,), *_) in answers)


if __name__ == "__main__":
    main(sys.argv[1:])
