"""Moving the log into the database beside the writer, so that no commit waits for all of it.

Left alone, SQLite moves the whole log (32 MB) inside the commit that filled it, which then takes a tenth of a
second. Here a thread with a connection of its own moves what there is while the writer goes on, again and
again until little is left; the writer moves that little between two commits, and its next commit begins the
log anew. A log that could not be moved only grows: nothing is lost by it, and it is tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import apsw
import structlog

log = structlog.get_logger("windlass.store")

PAGES = 4_000
"""Pages in the log that start a round (32 MB)."""
_FEW = 200
"""Pages that the writer moves itself: about a millisecond."""
_PASSES = 8


class Checkpointer:
    """Owned by the writer, whose connection does no checkpoints of its own."""

    def __init__(self, db: apsw.Connection, connect: Callable[[], apsw.Connection]) -> None:
        self._db = db
        self._connect = connect
        self._pages = 0
        """Pages written since the log was last moved as a whole."""
        self._limit = PAGES
        self._moving = False
        self._moved = False
        """True once the thread has left little to move."""
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()

    def committed(self) -> None:
        """Called by the writer between two commits."""
        self._pages += self._db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
        if self._moved:
            self._moved = self._moving = False
            if _pass(self._db) == 0:
                self._pages, self._limit = 0, PAGES
            else:  # a long read holds it, or the disk is full: later
                self._limit = self._pages + PAGES
        elif self._pages >= self._limit and not self._moving:
            self._moving = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="windlass-checkpoint", daemon=True)
                self._thread.start()
            self._wake.put(True)

    def close(self) -> None:
        """Blocks until a pass under way is done. The last connection to close moves the rest."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join()

    def _run(self) -> None:
        db: apsw.Connection | None = None
        while self._wake.get():
            try:
                db = db or self._connect()
                for _ in range(_PASSES):
                    if _pass(db) <= _FEW:
                        break
            except apsw.Error as error:
                log.warning("checkpoint_failed", error=str(error))
            self._moved = True
        if db is not None:
            db.close()


def _pass(db: apsw.Connection) -> int:
    """Move what can be moved now; how many pages are left."""
    try:
        there, moved = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.Error as error:
        log.warning("checkpoint_failed", error=str(error))
        return PAGES
    return there - moved
