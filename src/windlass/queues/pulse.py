"""A look every second at that for which somebody waits: of stores that other servers change, too.

What these tell of their changes may get lost, and costs whoever waits a second then. There is one look for
each name, however many wait, and the looks are spread over the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from windlass.errors import StoreClosed, WindlassError
from windlass.queues.background import Background

log = structlog.get_logger("windlass.queues")

EVERY = 1.0
"""Seconds between two looks at the same."""
_PARTS = 10
"""Parts of that time over which the looks are spread."""


class Pulse:
    """One task. It runs while there is something to look at, and rests else."""

    def __init__(
        self, names: Callable[[], Sequence[str]], look: Callable[[str], Awaitable[None]], name: str
    ) -> None:
        """`names`: what to look at, now; `look`: wakes whoever waits for it, where there is something."""
        self._names = names
        self._look = look
        self._background = Background(self._run, name)

    def start(self) -> None:
        """Somebody waits."""
        self._background.start()
        self._background.wake()

    async def stop(self) -> None:
        await self._background.stop()

    async def _run(self) -> None:
        try:
            while True:
                self._background.clear()
                await asyncio.sleep(EVERY / _PARTS)  # whoever said that they wait stands in line by now
                names = self._names()
                if not names:
                    await self._background.rest(None)
                    continue
                part = -(-len(names) // _PARTS)
                for at in range(0, _PARTS * part, part):
                    await self._look_at(names[at : at + part])
                    if at + part < _PARTS * part:
                        await asyncio.sleep(EVERY / _PARTS)
        except StoreClosed:
            return

    async def _look_at(self, names: Sequence[str]) -> None:
        """Raises StoreClosed."""
        for found in await asyncio.gather(*map(self._look, names), return_exceptions=True):
            if isinstance(found, StoreClosed):
                raise found
            if isinstance(found, WindlassError):
                log.warning("look_failed", error=found.detail)
            elif found is not None:
                log.error("look_failed", exc_info=found)
