"""The sweeper: one task that sends what is left in the outbox, looks for submissions whose job is gone, and
removes files that nothing refers to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from windlass.errors import StoreClosed, WindlassError
from windlass.queues.background import Background

log = structlog.get_logger("windlass.judge")

INTERVAL = 5.0
"""Seconds between sweeps that nobody has asked for."""
LOOK = 300.0
"""Seconds between looks for submissions whose job is gone: the second that finds one has it judged again."""
_FIRST_COLLECTION = 60.0
COLLECTION = 3600.0
"""Seconds between collections of files."""


class Sweeper:
    """Runs on one event loop: at the start, when it is woken, and every few seconds."""

    def __init__(
        self,
        sweep: Callable[[], Awaitable[object]],
        look: Callable[[], Awaitable[object]],
        collect: Callable[[], Awaitable[object]],
    ) -> None:
        self._sweep = sweep
        self._look = look
        self._collect = collect
        self._background = Background(self._run, "windlass-judge-sweeper")

    def start(self) -> None:
        """Run on this loop, if it runs on none yet."""
        self._background.start()

    def wake(self) -> None:
        """There is something to send: look now."""
        self._background.start()
        self._background.wake()

    async def stop(self) -> None:
        await self._background.stop()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        look = loop.time() + LOOK
        collection = loop.time() + _FIRST_COLLECTION
        while True:
            self._background.clear()
            try:
                await self._sweep()
                if loop.time() >= look:
                    look = loop.time() + LOOK
                    await self._look()
                if loop.time() >= collection:
                    collection = loop.time() + COLLECTION
                    await self._collect()
            except StoreClosed:
                return
            except WindlassError as error:
                log.warning("sweep_failed", error=error.detail)
            except Exception:  # the next sweep may fare better; without one, jobs would be lost
                log.exception("sweep_failed")
            await self._background.rest(INTERVAL)
