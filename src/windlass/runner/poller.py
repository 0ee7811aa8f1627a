"""Asking for work as long as there is room for it: one job a call, or as many as there is room for."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from windlass.client.errors import WindlassError
from windlass.errors import RegistrationRefused
from windlass.runner import wire
from windlass.runner.link import REQUEST_TIMEOUT, Answer, Link, path
from windlass.runner.registration import Registration
from windlass.runner.wire import Job, Malformed, MalformedJob, Registered

log = structlog.get_logger("windlass.runner")

T = TypeVar("T")

LONG_POLL = 20
"""Seconds that the server may keep a request until there is a job."""
SHORTEST_INTERVAL = 0.05
FIRST_PAUSE = 1.0
"""Seconds until a lost answer is asked for again; later failures wait for the poll interval."""
LAST_LOOK = 2.0
"""Seconds for the one request that finds out whether a broken-off long poll was given a job."""


class Poller:
    """Polls until it is stopped.

    `room`: returns when another job may be taken, and says how many. `arrived(job)`: begins with it, and is
    False where it is held already or nobody can read it.
    """

    def __init__(
        self,
        link: Link,
        registration: Registration,
        *,
        room: Callable[[Registered], Coroutine[Any, Any, int]],
        arrived: Callable[[Job | MalformedJob], bool],
    ) -> None:
        self._link = link
        self._registration = registration
        self._room = room
        self._arrived = arrived
        self._stopping = False
        self._interruptible: asyncio.Task[Any] | None = None
        """The task of run(), while it waits for something that a stop ends."""
        self._claim: str | None = None
        """Names one delivery: kept until its answer has come, so that a repeat gets the same."""
        self._failures = 0

    def stop(self) -> None:
        """Ask for no more jobs; run() returns when it is certain that none is on its way."""
        self._stopping = True
        task, self._interruptible = self._interruptible, None
        if task is not None:
            task.cancel()

    async def run(self) -> None:
        """Raises RegistrationRefused, and nothing else."""
        while not self._stopping:
            try:
                identity = await self._unless_stopped(self._registration.identity())
                if identity is None:
                    return
                room = await self._unless_stopped(self._room(identity))
                if room is None or self._told_to_stop():
                    return
                pause = await self._ask(identity, room)
            except RegistrationRefused:
                raise
            except Exception:  # whatever it is, the next poll must come
                log.exception("poll_fault")
                pause = FIRST_PAUSE
            if pause > 0:
                await self._unless_stopped(asyncio.sleep(pause))

    async def _ask(self, identity: Registered, room: int) -> float:
        """One request, and what follows from it; returns the seconds until the next."""
        interval = max(SHORTEST_INTERVAL, identity.config.poll_interval_sec)
        began = asyncio.get_running_loop().time()
        try:
            answer = await self._next_job(identity, room)
        except WindlassError as error:
            return self._failed(str(error), interval)
        if not self._registration.heard(identity, answer.status):
            self._claim = None
            return self._failed(str(answer), interval)
        if answer.status not in (200, 204):
            return self._failed(str(answer), interval)
        self._claim = None
        if answer.status == 204:
            self._tell(None)
            return interval - (asyncio.get_running_loop().time() - began)
        return self._received(answer, interval)

    def _received(self, answer: Answer, interval: float) -> float:
        try:
            found = wire.jobs(answer.body)
        except Malformed as error:
            return self._failed(f"a job cannot be read: {error}", interval)
        self._tell(None)
        begun = [self._arrived(job) for job in found]
        return 0.0 if any(begun) else interval

    async def _next_job(self, identity: Registered, room: int) -> Answer:
        """Raises client.errors.WindlassError."""
        if wire.WAIT not in identity.config.features:
            return await self._request(identity, {}, REQUEST_TIMEOUT)
        if self._claim is None:
            self._claim = str(uuid.uuid4())
        query = {"claim": self._claim, "wait": str(LONG_POLL)}
        if wire.BATCH in identity.config.features:
            query["max"] = str(min(room, wire.MOST_AT_ONCE))
        answer = await self._unless_stopped(self._request(identity, query, LONG_POLL + REQUEST_TIMEOUT))
        if answer is None:  # stopped; the server may have chosen a job just then, and the claim tells
            answer = await self._request(identity, query | {"wait": "0"}, LAST_LOOK)
        return answer

    async def _request(self, identity: Registered, query: dict[str, str], within: float) -> Answer:
        return await self._link.call(
            "GET",
            path("runners", identity.runner_id, "next-job"),
            token=identity.token,
            query=query,
            within=within,
        )

    def _failed(self, why: str, interval: float) -> float:
        self._tell(why)
        return min(FIRST_PAUSE, interval) if self._failures == 1 else interval

    def _tell(self, failed: str | None) -> None:
        if failed and not self._failures:
            log.warning("poll_failed", message=f"Asking for a job failed: {failed}. It goes on.")
        elif self._failures and not failed:
            log.info("poll_again", message="The server answers polls again.")
        self._failures = self._failures + 1 if failed else 0

    def _told_to_stop(self) -> bool:
        """It may come during any await."""
        return self._stopping

    async def _unless_stopped(self, doing: Coroutine[Any, Any, T]) -> T | None:
        """What `doing` gives, or None where the stop comes first; it is cancelled then."""
        if self._stopping:
            doing.close()
            return None
        task = self._interruptible = asyncio.current_task()
        try:
            return await doing
        except asyncio.CancelledError:
            # As asyncio.timeout() does it: a cancellation from elsewhere goes on.
            if (
                self._told_to_stop()
                and self._interruptible is None
                and task is not None
                and not task.uncancel()
            ):
                return None
            raise
        finally:
            self._interruptible = None
