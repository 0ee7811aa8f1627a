"""Handing over: a job's result, or the job itself, tried until the server has taken it or refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import structlog

from windlass.client.errors import WindlassError
from windlass.runner import wire
from windlass.runner.gathering import Gathering
from windlass.runner.link import Answer, Link, path
from windlass.runner.registration import Registration
from windlass.runner.wire import Job, MalformedJob, Registered

log = structlog.get_logger("windlass.runner")

RETRIES = 5
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 16.0
"""Seconds between two tries; they double."""


class End(Enum):
    """How a hand-over ended."""

    TAKEN = "taken"
    NOT_OURS = "not ours"
    """The lease is another's, or the job has ended: nothing is left to do."""
    REFUSED = "refused"
    """The server will never take this."""
    FAILED = "failed"
    """Not taken, however often it was tried."""


class Handed(NamedTuple):
    """`why`: what the server, or the network, said last; for people."""

    end: End
    why: str = ""


class Delivery:
    """Both ways to hand a job over; each may be called for several jobs at a time."""

    def __init__(
        self,
        link: Link,
        registration: Registration,
        *,
        refill: Callable[[int], int],
        arrived: Callable[[Job | MalformedJob], bool],
    ) -> None:
        """`refill` and `arrived` as Gathering has them."""
        self._link = link
        self._registration = registration
        self._gathering = Gathering(link, refill=refill, arrived=arrived)

    async def result(self, job_id: str, result: bytes | Path) -> Handed:
        """Bring a result, or the one in a file. Raises RegistrationRefused, and OSError where that cannot be
        read."""

        async def put(identity: Registered) -> Answer:
            if isinstance(result, bytes) and wire.BATCH in identity.config.features:
                answer = await self._gathering.put(identity, job_id, result)
                if answer is not None:
                    return answer
            where = path("runners", identity.runner_id, "jobs", job_id, "complete")
            if isinstance(result, bytes):
                return await self._link.call("PUT", where, result, token=identity.token)
            return await self._link.send_file("PUT", where, result, token=identity.token)

        return await self._hand_over(put, taken=204)

    async def abort(self, job_id: str, reason: str) -> Handed:
        """Give the job back, so that another runner can have it. Raises RegistrationRefused."""

        async def put(identity: Registered) -> Answer:
            where = path("runners", identity.runner_id, "jobs", job_id, "abort")
            return await self._link.call("PUT", where, wire.reason(reason), token=identity.token)

        return await self._hand_over(put, taken=202)

    async def _hand_over(self, put: Callable[[Registered], Awaitable[Answer]], taken: int) -> Handed:
        pause = FIRST_PAUSE
        for left in range(RETRIES, -1, -1):
            identity = await self._registration.identity()
            try:
                answer = await put(identity)
            except WindlassError as error:
                why = str(error)
            else:
                why = str(answer)
                self._registration.heard(identity, answer.status)
                if answer.status == taken:
                    return Handed(End.TAKEN)
                if answer.status in (404, 409):
                    return Handed(End.NOT_OURS, why)
                if answer.refuses:
                    return Handed(End.REFUSED, why)
            if left:
                log.info("delivery_again", message=f"Not handed over yet: {why}. Next try in {pause:.0f} s.")
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        return Handed(End.FAILED, why)
