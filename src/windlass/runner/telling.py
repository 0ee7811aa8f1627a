"""Telling the server how a job goes on, for people who watch: soon, in few requests, and never in the way."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import msgspec
import structlog

from windlass.client.errors import WindlassError
from windlass.runner import wire
from windlass.runner.executors.base import Event
from windlass.runner.link import Link, path
from windlass.runner.registration import Registration

log = structlog.get_logger("windlass.runner")

GATHER = 0.1
"""Seconds between two requests for a job: what happens meanwhile goes in one."""
LARGEST = 256 * 1024
"""Bytes of events in a request, or of one event alone."""
LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of events that wait; of more, the oldest are dropped, and `{"event": "lost"}` stands for them."""
LAST_WORDS = 2.0
"""Seconds for the events that are left when the work is done; the result does not wait longer."""
REST = 1.0
"""Seconds after a request that failed."""


_LOST = b'{"event":"lost"}'


class Telling:
    """The events of one job. Each may be lost; none comes twice or out of order."""

    def __init__(self, link: Link, registration: Registration, job_id: str, *, heard: bool) -> None:
        """`heard`: whether the server takes events at all."""
        self._link = link
        self._registration = registration
        self._job_id = job_id
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._ending = asyncio.Event()
        self._unheard = not heard
        self._lost = False
        """Whether something was dropped since the last request that was heard."""
        self._task: asyncio.Task[None] | None = None

    def tell(self, event: Event) -> None:
        """Take an event; returns at once and raises nothing."""
        if self._unheard:
            return
        try:
            text = msgspec.json.encode(event)
        except (TypeError, ValueError) as error:  # half of a surrogate pair, say
            log.warning("event_untold", message=f"An event of {self._job_id} cannot be told: {error}")
            return
        if len(text) > LARGEST:
            self._lost = True
            return
        self._waiting.append(text)
        self._size += len(text)
        while self._size > LONGEST_LINE:
            self._size -= len(self._waiting.popleft())
            self._lost = True
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def finish(self) -> None:
        """Tell the rest, in a short time or not at all."""
        if self._task is None:
            return
        self._ending.set()
        self._news.set()
        try:
            async with asyncio.timeout(LAST_WORDS):
                await asyncio.gather(self._task, return_exceptions=True)  # a timeout cancels it
        except TimeoutError:
            log.debug("events_untold", job=self._job_id)
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Tell until finish(). Raises RegistrationRefused, which the heartbeat meets too."""
        while not self._unheard:
            await self._news.wait()
            if not self._waiting:
                return  # finish() woke it
            heard = await self._send()
            if not heard and self._ending.is_set():
                return
            if not heard or self._size < LARGEST:  # else there is enough for the next request
                await self._pause(GATHER if heard else REST)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _send(self) -> bool:
        """One request with what waits; it is gone then, heard or not."""
        batch, size = [_LOST] if self._lost else [], 0
        while self._waiting and size + len(self._waiting[0]) <= LARGEST:
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        self._size -= size
        if not self._waiting and not self._ending.is_set():
            self._news.clear()
        identity = await self._registration.identity()
        where = path("runners", identity.runner_id, "jobs", self._job_id, "events")
        try:
            answer = await self._link.call("POST", where, wire.events(batch), token=identity.token)
        except WindlassError:
            self._lost = True
            return False
        self._lost = answer.status != 204
        if answer.status in (404, 409):
            self._unheard = True
        return answer.status == 204
