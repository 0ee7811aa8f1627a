"""What a commit will write, gathered so that one statement writes it.

Each statement lets the interpreter's lock go and has to take it again, from an event loop that wants it too:
under load that costs more than the statement. So the hot verbs add rows here, and the triggers of changes.sql
take them to the tables, in the order in which they were added.
"""

from __future__ import annotations

from enum import IntEnum
from importlib import resources
from typing import Any

import apsw

from windlass.store.sqlite.rows import values

ROWS = 128
"""Rows of one statement: a commit with more of them takes several, in a transaction around them."""
FEW = 64
"""Messages of one verb and queue up to which rows here are cheaper than a statement of their own."""

_WIDTH = 9


class Change(IntEnum):
    """The kinds of a change; changes.sql says what their columns are."""

    MESSAGE = 0
    RUN = 1
    FRONT = 2
    TRIM = 3
    LEASE = 4
    GONE = 5
    ENDED = 6
    COUNTS = 7
    META = 8
    EXTEND = 9
    RECORD = 10


class Changes:
    """The rows of one commit that are not yet written."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: list[Any] = []

    def __len__(self) -> int:
        return len(self._cells) // _WIDTH

    def add(
        self,
        kind: Change,
        a: Any,
        b: Any = None,
        c: Any = None,
        d: Any = None,
        e: Any = None,
        f: Any = None,
        g: Any = None,
        h: Any = None,
    ) -> None:
        self._cells += (kind, a, b, c, d, e, f, g, h)

    def write(self, db: apsw.Connection) -> None:
        """Write them all, and forget them. With up to ROWS and no transaction open, this is a commit."""
        cells, self._cells = self._cells, []
        for start in range(0, len(cells), _WIDTH * ROWS):
            some = cells[start : start + _WIDTH * ROWS]
            # A failure undoes the whole transaction, so no copy of each page is kept to undo the statement.
            db.execute(
                values("INSERT OR ROLLBACK INTO change", "(?,?,?,?,?,?,?,?,?)", len(some) // _WIDTH), some
            )


def prepare(db: apsw.Connection) -> None:
    """Give a connection the view that takes changes."""
    db.execute((resources.files("windlass.store.sqlite") / "changes.sql").read_text(encoding="utf-8"))
