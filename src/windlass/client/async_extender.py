"""Keeps leases alive while handlers run: one task for all messages of an async client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from windlass.client.lease import Clock, Watch

if TYPE_CHECKING:
    from windlass.client.async_message import AsyncLeasedMessage

log = logging.getLogger("windlass.client")


class AsyncExtender:
    """The task starts with the first message that is kept and ends with `close`.

    `extend` asks the server once and gives the new end of the lease.
    """

    def __init__(
        self, extend: Callable[[AsyncLeasedMessage], Awaitable[datetime]], clock: Clock = time.monotonic
    ) -> None:
        self._extend = extend
        self._watch: Watch[AsyncLeasedMessage] = Watch(clock)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def keep(self, message: AsyncLeasedMessage) -> None:
        """Extend the lease of this message again and again until it is forgotten."""
        self._watch.add(message)
        if self._task is None and not self._closing:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="windlass-extender")
        self._changed.set()

    def forget(self, message: AsyncLeasedMessage) -> None:
        self._watch.remove(message)

    def note(self, message: AsyncLeasedMessage, until: datetime, seconds: float) -> None:
        """Take over what an extension made elsewhere has achieved."""
        self._watch.extended(message, until, seconds)
        self._changed.set()

    async def close(self) -> None:
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def step(self) -> None:
        """Extend what is due now, all at once; report what turns out to be lost."""
        await asyncio.gather(*(self._extend_one(message) for message in self._watch.due()))

    async def _extend_one(self, message: AsyncLeasedMessage) -> None:
        seconds = message.lease_seconds
        try:
            until = await self._extend(message)
        except Exception as error:  # noqa: BLE001 - the other messages still need their extensions
            if self._watch.failed(message, error):
                self._report(message, error)
        else:
            self.note(message, until, seconds)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            if self._watch.seconds_left() != 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), self._watch.seconds_left())
            else:
                await self.step()

    def _report(self, message: AsyncLeasedMessage, error: Exception) -> None:
        log.warning("the lease of %r is lost: %s", message, error)
        if message.on_lost is None:
            return
        try:
            message.on_lost(message)
        except Exception:
            log.exception("the on_lost callback failed on %r", message)
