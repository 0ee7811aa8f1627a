"""Looks at the store when something is due: a lease, a delay, a ttl, a record's end."""

from __future__ import annotations

import random

import structlog

from windlass.clock import Clock
from windlass.errors import StoreClosed, StoreUnavailable
from windlass.queues.background import Background
from windlass.store import Changes, Store

log = structlog.get_logger("windlass.reaper")

_PAUSE = 0.005
"""Seconds between steps while much is due: requests get at least half of the writer."""
_RETRY = 1.0
_SHARED = 1.0
"""Seconds of rest at most where other servers may bring what is due, about: they do not rest in step."""


class Reaper:
    """One task on the event loop. Only promptness depends on it: each commit looks at the clock too."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._background = Background(self._run, "windlass-reaper")
        self._planned: int | None = None
        store.listen(self._changed)

    def start(self) -> None:
        """Run on this loop, if it runs on none yet."""
        self._background.start()

    async def stop(self) -> None:
        await self._background.stop()

    def _changed(self, changes: Changes) -> None:
        if changes.due is not None and (self._planned is None or changes.due < self._planned):
            self._background.wake()

    async def _run(self) -> None:
        while True:
            self._background.clear()
            try:
                self._planned = await self._store.expire()
                wait = (
                    None if self._planned is None else max((self._planned - self._clock.now()) / 1000, _PAUSE)
                )
                if self._store.shared:
                    most = _SHARED * random.uniform(0.75, 1.25)
                    wait = most if wait is None else min(wait, most)
            except StoreClosed:
                return
            except StoreUnavailable as error:
                log.warning("expire_failed", error=str(error))
                wait = _RETRY
            await self._background.rest(wait)
