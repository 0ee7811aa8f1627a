"""Looks after the store from afar, in a thread of its own: what others changed, and what Redis promises."""

from __future__ import annotations

import threading
import time

import structlog

from windlass.errors import StoreUnavailable
from windlass.store.base import Changes
from windlass.store.redis.administration import Administration
from windlass.store.redis.durability import Durability, Reader
from windlass.store.redis.link import Link

log = structlog.get_logger("windlass.store")

_DURABILITY_EVERY = 5.0
_PAUSE = 0.1
"""Seconds between two looks at the registry."""


class Watch(threading.Thread):
    """Keeps memory and `durability` as they are on the servers."""

    def __init__(
        self,
        link: Link,
        administration: Administration,
        reader: Reader,
        durability: Durability,
        changed: threading.Event,
    ) -> None:
        """`changed` is set when somebody told of a change of the registry."""
        super().__init__(name="windlass-store-watch", daemon=True)
        self._link = link
        self._administration = administration
        self._reader = reader
        self.durability = durability
        self._changed = changed
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self._changed.set()
        self.join()
        self._reader.close()

    def run(self) -> None:
        read = time.monotonic()
        while True:
            told = self._changed.wait(_DURABILITY_EVERY)
            if self._stopped.is_set():
                return
            self._changed.clear()
            try:
                if told and self._administration.refresh_now() and self._link.loop is not None:
                    self._link.answers.tell(
                        self._link.loop, Changes({}, [], [], None, registry=True, elsewhere=True)
                    )
                if time.monotonic() - read >= _DURABILITY_EVERY:
                    read = time.monotonic()
                    self._read()
            except StoreUnavailable as error:
                log.debug("store_away", error=error.detail)
            except Exception:
                log.exception("watch_failed")
            self._stopped.wait(_PAUSE)

    def _read(self) -> None:
        before, self.durability = self.durability, self._reader.read()
        for line in self.durability.since(before):
            log.warning("store_settings_changed", message=line)
        self._link.promise(self.durability)
