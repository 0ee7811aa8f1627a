"""The jobs that a runner holds: each counts until the server has taken its result or its abort."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any


class Stage(Enum):
    """Where a held job is."""

    PREPARING = "preparing"
    RUNNING = "running"
    DELIVERING = "delivering"


class Stop(Exception):  # noqa: N818 - what happened, said as it is
    """A job is to end before its end.

    `hand_back`: the reason for the server; None where that wants to hear no more of the job.
    """

    def __init__(self, why: str, hand_back: str | None = None) -> None:
        super().__init__(why)
        self.hand_back = hand_back


class Work:
    """One held job, from its delivery to its hand-over."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.since = asyncio.get_running_loop().time()
        self.stage = Stage.PREPARING
        self.stopped: Stop | None = None
        self.task: asyncio.Task[Any] | None = None
        """The work itself, which may be stopped; None before and after."""

    def stop(self, stop: Stop) -> None:
        """End the work; does nothing where it has ended, and the first word counts."""
        if self.stage is not Stage.DELIVERING and self.stopped is None:
            self.stopped = stop
            if self.task is not None:
                self.task.cancel()


class Held:
    """The held jobs by id."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._left = asyncio.Event()

    def __len__(self) -> int:
        return len(self._works)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._works

    def ids(self) -> list[str]:
        return list(self._works)

    def works(self) -> list[Work]:
        return list(self._works.values())

    def get(self, job_id: str) -> Work | None:
        return self._works.get(job_id)

    def add(self, work: Work) -> None:
        self._works[work.job_id] = work

    def remove(self, work: Work) -> None:
        del self._works[work.job_id]
        self._left.set()

    async def fewer_than(self, count: int) -> None:
        """Return once fewer than `count` jobs are held."""
        while len(self._works) >= count:
            self._left.clear()
            await self._left.wait()
