"""Work beside the requests: one task, which rests until it is woken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """A task on the event loop that started it first; `wake` and `stop` may be called from another."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """`work` looks and rests by turns, until it returns or is stopped."""
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Run on this loop, if it runs on none yet."""
        if self._task is None or self._task.done() or not self._task.get_loop().is_running():
            self._wake = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._work(), name=self._name)

    def wake(self) -> None:
        """End its rest, or if it is at work the next one. Where it was not started, nothing."""
        if self._task is None:
            return
        loop = self._task.get_loop()
        if loop is asyncio.get_running_loop():
            self._wake.set()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._wake.set)

    def clear(self) -> None:
        """For `work`, before it looks: forget who woke it, for it will see what they wrote."""
        self._wake.clear()

    async def rest(self, seconds: float | None) -> None:
        """For `work`: until it is woken, or the seconds are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

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
