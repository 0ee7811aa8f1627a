"""What memory holds of queues, keys and runners, kept up with what other servers of the same store do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from windlass.errors import StoreClosed, WindlassError
from windlass.queues.background import Background
from windlass.store import Changes, Store

log = structlog.get_logger("windlass.queues")

EVERY = 1.0
"""Seconds after which the store is asked whatever was heard: what tells of changes may get lost."""
_PAUSE = 0.05
"""Seconds between two looks that requests ask for, at least."""
_SHARE = 4
"""Nor more than one part in five of the time: a look at very many takes long."""


class Registry:
    """The one who asks. On a store that is not shared it does nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: list[Callable[[], None]] = []
        self._background = Background(self._run, "windlass-registry")
        self._next: asyncio.Task[None] | None = None
        """The look that has not begun."""
        self._looks: set[asyncio.Task[None]] = set()
        """All that have not ended."""
        self._looking = asyncio.Lock()
        self._earliest = 0.0
        """When the next one may begin, in the loop's time."""
        store.listen(self._changed)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever another server has changed queues, keys or runners."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Run on this loop, if it runs on none yet."""
        if self._store.shared:
            self._background.start()

    async def stop(self) -> None:
        await self._background.stop()
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)

    async def catch_up(self) -> None:
        """Know all that other servers had done when this was called.

        All who ask before a look begins share it, so that many of them are few looks.
        Raises StoreUnavailable.
        """
        if self._store.shared:
            if self._next is None:
                self._next = asyncio.create_task(self._look())
                self._looks.add(self._next)
                self._next.add_done_callback(self._looks.discard)
            await asyncio.shield(self._next)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._looking:
            await asyncio.sleep(max(0.0, self._earliest - loop.time()))
            self._next = None  # whoever asks from now on may mean what this look does not see
            began = loop.time()
            try:
                different = await self._store.refresh()
            finally:
                self._earliest = loop.time() + max(_PAUSE, _SHARE * (loop.time() - began))
        if different:
            self._tell()

    def _changed(self, changes: Changes) -> None:
        if changes.registry:
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    async def _run(self) -> None:
        while True:
            self._background.clear()
            try:
                await self.catch_up()
            except StoreClosed:
                return
            except WindlassError as error:
                log.warning("registry_behind", error=error.detail)
            await self._background.rest(EVERY * random.uniform(0.75, 1.25))
