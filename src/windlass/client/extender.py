"""Keeps leases alive while handlers run: one thread for all messages of a client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from windlass.client.lease import Clock, Watch

if TYPE_CHECKING:
    from windlass.client.message import LeasedMessage

log = logging.getLogger("windlass.client")


class Extender:
    """The thread starts with the first message that is kept and ends with `close`.

    `extend` asks the server once and gives the new end of the lease.
    """

    def __init__(self, extend: Callable[[LeasedMessage], datetime], clock: Clock = time.monotonic) -> None:
        self._extend = extend
        self._watch: Watch[LeasedMessage] = Watch(clock)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def keep(self, message: LeasedMessage) -> None:
        """Extend the lease of this message again and again until it is forgotten."""
        with self._changed:
            self._watch.add(message)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="windlass-extender", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, message: LeasedMessage) -> None:
        with self._changed:
            self._watch.remove(message)

    def note(self, message: LeasedMessage, until: datetime, seconds: float) -> None:
        """Take over what an extension made elsewhere has achieved."""
        with self._changed:
            self._watch.extended(message, until, seconds)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def step(self) -> None:
        """Extend what is due now; report what turns out to be lost."""
        with self._changed:
            due = self._watch.due()
        for message in due:
            seconds = message.lease_seconds
            try:
                until = self._extend(message)
            except Exception as error:  # noqa: BLE001 - the other messages still need their extensions
                with self._changed:
                    lost = self._watch.failed(message, error)
                if lost:
                    self._report(message, error)
            else:
                self.note(message, until, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing and self._watch.seconds_left() != 0:
                    self._changed.wait(self._watch.seconds_left())
                if self._closing:
                    return
            self.step()

    def _report(self, message: LeasedMessage, error: Exception) -> None:
        log.warning("the lease of %r is lost: %s", message, error)
        if message.on_lost is None:
            return
        try:
            message.on_lost(message)
        except Exception:
            log.exception("the on_lost callback failed on %r", message)
