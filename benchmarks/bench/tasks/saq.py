"""SAQ on Redis.

Its jobs are looked at every 10 ms: who begins to listen when a job has just ended waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from saq import Queue

from bench import tasks

queue = Queue.from_url(tasks.url(), name="bench")


async def noop(_context: object) -> int:
    return tasks.started()


settings = {"queue": queue, "functions": [("noop", noop)], "concurrency": 8}


async def connect() -> None:
    await queue.connect()


async def submit() -> Any:
    return await queue.enqueue("noop")


async def outcomes(handles: Sequence[Any]) -> list[int]:
    for handle in handles:
        await asyncio.wait_for(_end(handle), tasks.PATIENCE)
        if handle.result is None:
            raise RuntimeError(f"{handle.id} is {handle.status}: {handle.error}")
    return [int(handle.result) for handle in handles]


async def _end(job: Any) -> None:
    await job.refresh()
    while not job.completed:
        await asyncio.sleep(0.01)
        await job.refresh()
