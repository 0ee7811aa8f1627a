"""A submission as it changes, and the progress of its job, in one stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import msgspec

from windlass.errors import JobNotFound
from windlass.judge.generations import DONE
from windlass.judge.service import Judge
from windlass.judge.submission import Submission
from windlass.server.lane import AsgiClient
from windlass.server.streams import KEEP_ALIVE, STILL_HERE, server_event

WatchJob = Callable[[str, int, float], Awaitable[tuple[Sequence[tuple[int, dict[str, Any]]], bool]]]
"""(job id, number, seconds) -> what was told of a job behind an event's number, and whether it is over."""

_encode = msgspec.json.Encoder().encode


async def follow(
    judge: Judge, watch_job: WatchJob, now: Submission, seen: str | None, seconds: float, client: AsgiClient
) -> AsyncGenerator[bytes, None]:
    """A submission at each change, as text/event-stream, and between them what is told of its job.

    Only the changes have ids: who comes back is told of the present job from its beginning.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    gone = client.gone()
    job = _JobProgress(watch_job)
    while True:
        if now.event_id != seen:
            seen = now.event_id
            yield server_event("submission", _encode(now), seen)
        left = deadline - asyncio.get_running_loop().time()
        if now.status == DONE or left <= 0 or gone.done() or judge.watches.stopped:
            return
        wait = min(left, KEEP_ALIVE)
        changing = asyncio.ensure_future(
            judge.submissions.until(now.submission_id, _other_than(seen), wait, gone)
        )
        try:
            told = await job.beside(changing, now.job_id, wait)
        finally:
            changing.cancel()
        for event in told:
            yield server_event(str(event.get("event", "")), _encode(event))
        if changing.done():
            now = changing.result()
            if now.event_id == seen and not told:
                yield STILL_HERE


class _JobProgress:
    """What is told of a submission's job; of the next one, where it is judged again."""

    def __init__(self, watch: WatchJob) -> None:
        self._watch = watch
        self._job: str | None = None
        self._last = 0
        self._over = False

    async def beside(self, other: asyncio.Future[Any], job: str | None, wait: float) -> list[dict[str, Any]]:
        """Wait for events of `job`, or for `other`; returns the events."""
        if job != self._job:
            self._job, self._last, self._over = job, 0, False
        if job is None or self._over:
            await asyncio.wait({other})
            return []
        watching = asyncio.ensure_future(self._watch(job, self._last, wait))
        try:
            await asyncio.wait({other, watching}, return_when=asyncio.FIRST_COMPLETED)
            events, self._over = await watching if watching.done() else ([], False)
        except JobNotFound:  # no record of it is kept
            events, self._over = [], True
        finally:
            watching.cancel()
        if events:
            self._last = events[-1][0]
        return [event for _, event in events]


def _other_than(event_id: str) -> Callable[[Submission], bool]:
    return lambda submission: submission.event_id != event_id
