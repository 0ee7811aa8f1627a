"""Following the record of keys, where other programs write the products' table, too.

A thread reads the record several times a second and tells the guard which keys were written. What was
committed before the last read began is known. Once that read is more than `max_lag_seconds` old, for whatever
reason (a database that is away, a server that was stopped, a record that has to be caught up with), nothing
is answered from memory, and the database says what there is. So a new key is found at the latest
`max_lag_seconds` after its commit; until then it may be answered for as absent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

import structlog

from windlass.catalogue.record import Position, Record
from windlass.errors import PositionUnknown, WindlassError
from windlass.guard.boot import boot_time
from windlass.guard.guard import Guard

INTERVAL = 0.2
"""Seconds between two reads."""
MAX_LAG_SECONDS = 1.0
_TRIM_SECONDS = 600.0
_PAGE = 1_000

log = structlog.get_logger("windlass.catalogue")


class Follower:
    """The guard's peers, of which it hears through the record. They hear of our writes the same way."""

    def __init__(
        self,
        record: Record,
        guard: Guard[Any],
        rebuild: Callable[[], Position],
        *,
        max_lag_seconds: float = MAX_LAG_SECONDS,
        interval: float = INTERVAL,
        trim: bool = True,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """`rebuild` gives the guard a filter anew, forgets what is remembered, and says from where to follow.

        `trim`: rows that nobody needs any more may be taken away.
        """
        self._record = record
        self._guard = guard
        self._rebuild = rebuild
        self._max_lag = max_lag_seconds
        self._interval = interval
        self._trim = trim
        self._clock = clock
        self._position: Position | None = None
        self._heard: set[int] = set()
        self._read_at = float("-inf")
        self._trimmed_at = clock()
        self._failing: type[Exception] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windlass-follower", daemon=True)

    def start(self, position: Position | None) -> None:
        """Follow from here on; None: the filter has to be built anew first."""
        self._position = position
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer. Blocks until a read that is under way has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    # --- what the guard asks --------------------------------------------------------------------------

    def current(self) -> bool:
        return self.lag() <= self._max_lag

    def lag(self) -> float:
        """Seconds since the last read that succeeded began; infinite before the first."""
        return self._clock() - self._read_at

    async def begin(self, keys: Collection[str]) -> object:
        """Nobody waits for us: the others read the record."""

    async def done(self, begun: object) -> None:
        """Nobody waits for us."""

    async def end(self, begun: object, *, sure: bool) -> None:
        """Nobody waits for us."""

    # --- the thread -----------------------------------------------------------------------------------

    def read(self) -> None:
        """Hear what was written since the last read. Raises WindlassError; then it is to be tried again."""
        if self._position is None:
            # Nothing may be answered from memory until what was written meanwhile is known, too.
            self._read_at = float("-inf")
            self._heard = set()
            self._position = self._rebuild()
        began = self._clock()
        try:
            entries, position = self._record.entries(self._position)
            heard: set[int] = set()
            rest = iter(entries)
            while page := list(islice(rest, _PAGE)):
                heard.update(entry.seq for entry in page)
                self._hear({entry.key for entry in page if entry.seq not in self._heard})
        except PositionUnknown:
            self._position = None
            raise
        self._position, self._heard, self._read_at = position, heard, began

    def _hear(self, keys: Collection[str | None]) -> None:
        if None in keys:
            self._guard.forget()
        named = [key for key in keys if key is not None]
        self._guard.heard_begin(named)
        self._guard.heard_end(named)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.read()
                self._tidy()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next read may succeed
                self._fails(error)
            else:
                if self._failing is not None:
                    self._failing = None
                    log.info("follower_current", message="The record of keys is followed again.")
            self._stopping.wait(self._interval)

    def _fails(self, error: Exception) -> None:
        """Say it once, not five times a second."""
        known, self._failing = self._failing, type(error)
        if known is type(error):
            return
        if isinstance(error, PositionUnknown):
            log.warning(
                "follower_rebuilds",
                message=f"{error.detail} The filter is built anew; until then the database is asked.",
            )
        else:
            log.warning(
                "follower_behind",
                message=f"The record of keys cannot be read: {error} After {self._max_lag:g} s without it the"
                " database is asked for every product.",
                exc_info=None if isinstance(error, WindlassError) else error,
            )

    def _tidy(self) -> None:
        """Now and then, take away what everybody has read."""
        if not self._trim or self._position is None or self._clock() < self._trimmed_at + _TRIM_SECONDS:
            return
        self._trimmed_at = self._clock()
        try:
            self._record.trim(self._position)
        except WindlassError as error:
            log.warning("record_not_trimmed", message=f"The record of keys is not trimmed: {error}")
