"""Looks at the store when something is due: a lease, a delay, a ttl, a record's end."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from windlass.clock import Clock
from windlass.errors import StoreClosed, StoreUnavailable
from windlass.store import Changes, Store

log = structlog.get_logger("windlass.reaper")

_PAUSE = 0.005
"""Seconds between steps while much is due: requests get at least half of the writer."""
_RETRY = 1.0


class Reaper:
    """One task on the event loop. Only promptness depends on it: each commit looks at the clock too."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._planned: int | None = None
        store.listen(self._changed)

    def start(self) -> None:
        """Run on this loop, if it runs on none yet."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or not self._task.get_loop().is_running():
            self._wake = asyncio.Event()
            self._loop = loop
            self._task = loop.create_task(self._run(), name="windlass-reaper")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is None or not task.get_loop().is_running():
            return
        if task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        else:
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _changed(self, changes: Changes) -> None:
        if changes.due is not None and (self._planned is None or changes.due < self._planned):
            if self._loop is asyncio.get_running_loop():
                self._wake.set()
            elif self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                self._planned = await self._store.expire()
                wait = (
                    None if self._planned is None else max((self._planned - self._clock.now()) / 1000, _PAUSE)
                )
            except StoreClosed:
                return
            except StoreUnavailable as error:
                log.warning("expire_failed", error=str(error))
                wait = _RETRY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
