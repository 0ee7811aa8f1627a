"""Bare redis-py: one process that does nothing but send the commands that Windlass sends, pipelined.

    python -m bench.pipeline OPERATION PORT QUEUE SECONDS BATCH DEPTH [COUNT]

OPERATION is send, receive or exchange (in turn). A turn is one pipeline of DEPTH calls of the function
that Windlass calls, BATCH messages of 100 bytes each, and reads all its answers; one follows the other for
SECONDS, or until COUNT messages are sent. QUEUE is the queue's number. Prints
`completed=N microseconds=N`, N messages.
"""

from __future__ import annotations

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
_TURNS = {"send": ("send",), "receive": ("receive",), "exchange": ("send", "receive")}


def pipelined(
    operation: str, server: Redis, *, batch: int, depth: int, seconds: float = 0.0, count: int = 0
) -> float:
    """Messages a second of a process of its own, in the queue `bench`, which Windlass has made before."""
    number = server.client.hget("windlass:{r}:names", _QUEUE)
    if number is None:
        raise BenchmarkError(f"there is no queue {_QUEUE} in this Redis")
    argv = [sys.executable, "-m", "bench.pipeline", operation, str(server.port), str(int(number))]
    return operations_a_second([*argv, str(seconds), str(batch), str(depth), str(count)], seconds)


def main(argv: Sequence[str]) -> None:
    operation, port, number, seconds, batch, depth, count = argv
    key = f"windlass:{{{number}}}:s"
    contents = [content(_QUEUE).encode()] * int(batch)
    commands: dict[str, tuple[Any, ...]] = {
        "send": ("FCALL", f"{library.prefix()}send", 1, key, "0", _SERVER, 1, len(contents), *contents),
        "receive": ("FCALL", f"{library.prefix()}receive", 1, key, "0", _SERVER, batch, "", "", ""),
    }
    client = redis.Redis(port=int(port))
    client.ping()
    completed, wanted = 0, int(count)
    began = time.perf_counter()
    while completed < wanted if wanted else time.perf_counter() - began < float(seconds):
        for verb in _TURNS[operation]:
            pipeline = client.pipeline(transaction=False)
            for _ in range(int(depth)):
                pipeline.execute_command(*commands[verb])  # type: ignore[no-untyped-call]
            done = _messages(verb, pipeline.execute(), int(batch))
            if done != int(depth) * int(batch):
                raise SystemExit(f"{verb}: {done} messages, not {int(depth) * int(batch)}")
            completed += done if verb == _TURNS[operation][-1] else 0
    print(f"completed={completed} microseconds={round((time.perf_counter() - began) * 1e6)}")


def _messages(verb: str, answers: Sequence[Any], batch: int) -> int:
    """How many messages these answers say were sent, or bring."""
    if verb == "send":
        return sum(batch for (places, *_) in answers if isinstance(places[0], bytes))
    return sum(len(taken) for ((taken,), *_) in answers)


if __name__ == "__main__":
    main(sys.argv[1:])
