"""Moving the log into the database beside the writer, so that no commit waits for all of it.

Left alone, SQLite moves the whole log (32 MB) inside the commit that filled it, which then takes a tenth of a
second. Here a thread with a connection of its own moves what there is while the writer goes on, again and
again until little is left; the writer moves that little between two commits, and its next commit begins the
log anew. A log that could not be moved only grows: nothing is lost by it, and it is tried again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue

import apsw
import structlog

from windlass.store.sqlite.files import BUSY_TIMEOUT

log = structlog.get_logger("windlass.store")

PAGES = 4_000
"""Pages in the log that start a round (32 MB)."""
_FEW = 400
"""Pages that the writer moves itself: some milliseconds."""
_SOON = 500
"""Pages until the next try, after a read held up the beginning of a new log."""
_PASSES = 16
_PATIENCE = 20
"""How long the writer waits for reads to end, ms."""


class Checkpointer:
    """Owned by the writer, whose connection does no checkpoints of its own."""

    def __init__(self, db: apsw.Connection, connect: Callable[[], apsw.Connection]) -> None:
        self._db = db
        self._connect = connect
        self._pages = 0
        """Pages written since the log began."""
        self._limit = PAGES
        self._moving = False
        self._left: int | None = None
        """What the thread has left to the writer, in pages; None while it works, or does not."""
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()

    def committed(self) -> None:
        """Called by the writer between two commits."""
        self._pages += self._db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
        if self._left is not None:
            few, self._left, self._moving = self._left <= _FEW, None, False
            if few and self._begin_anew():
                self._pages, self._limit = 0, PAGES
            else:
                self._limit = self._pages + _SOON
        elif self._pages >= self._limit and not self._moving:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="windlass-checkpoint", daemon=True)
                thread.start()
                self._thread = thread
            self._moving = True
            self._wake.put(True)

    def _begin_anew(self) -> bool:
        """Move the rest, so that the next commit begins the log anew; False while somebody reads it."""
        self._db.set_busy_timeout(_PATIENCE)
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except apsw.BusyError:
            return False
        except apsw.Error as error:
            log.warning("checkpoint_failed", error=str(error))
            return False
        finally:
            self._db.set_busy_timeout(BUSY_TIMEOUT)
        return True

    def close(self) -> None:
        """Blocks until a pass under way is done. The last connection to close moves the rest."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join()

    def _run(self) -> None:
        db: apsw.Connection | None = None
        while self._wake.get():
            left = PAGES
            try:
                db = db or self._connect()
                left = _move(db)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
                with contextlib.suppress(Exception):  # the log's own disk may be the full one
                    log.warning("checkpoint_failed", error=str(error))
            self._left = left
        if db is not None:
            db.close()


def _move(db: apsw.Connection) -> int:
    """Move the log pass by pass while it grows; about how many pages have come since.

    SQLite tells how long the log was when a pass began: what has grown between two passes is what the next
    would find.
    """
    there, before = 0, 0
    for _ in range(_PASSES):
        before = there
        there, moved = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if moved < there:
            return there - moved  # a long read holds it
        if there - before <= _FEW:
            break
    return there - before
