"""RQ on Redis: one job at a time, each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue

from bench import tasks

queue = Queue("bench", connection=Redis(port=tasks.port()))


def noop() -> int:
    return tasks.started()


def submit() -> Any:
    return queue.enqueue("bench.tasks.rq.noop")


def outcomes(handles: Sequence[Any]) -> list[int]:
    return [int(handle.latest_result(timeout=tasks.PATIENCE).return_value) for handle in handles]
