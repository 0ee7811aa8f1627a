"""Heartbeats that come close together go on together, so that one commit serves them all."""

from __future__ import annotations

import asyncio

GATHER = 0.02
"""Seconds between two commits of heartbeats."""


class Gate:
    """A gate that opens every `GATHER` seconds: whoever comes to it after a quiet time passes at once."""

    def __init__(self) -> None:
        self._next = 0.0
        """When it may open again, in the loop's time."""
        self._closed: asyncio.Event | None = None
        """What those wait for who came since it opened last."""

    async def passed(self) -> None:
        """Return when the gate is open."""
        loop = asyncio.get_running_loop()
        if self._closed is None:
            now = loop.time()
            if now >= self._next:
                self._next = now + GATHER
                return
            self._closed = asyncio.Event()
            loop.call_at(self._next, self._open)
        await self._closed.wait()

    def _open(self) -> None:
        assert self._closed is not None
        self._next = asyncio.get_running_loop().time() + GATHER
        self._closed.set()
        self._closed = None
