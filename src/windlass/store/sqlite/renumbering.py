"""Numbers for messages that come from a store that is spread, where each queue has numbers of its own.

A number that one message alone has stays. Of several that have the same one may keep it, in a queue that
sends nobody its dead letters: a receipt or an id of another queue's message then finds it elsewhere, and is
never taken for that message's. A job goes first: its id says no queue. The places are made different, too,
those of all queues, as messages of two may meet in one dead-letter queue: each moves up as little as keeps
the order.

All numbers are looked at on disk: there may be more of them than fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
from msgspec.structs import replace

from windlass.message import RESERVED
from windlass.store.sqlite.rows import numbers
from windlass.store.transfer import BATCH, Answer, Dedup, Ended, Installation, Living, Queue, Record

_TABLES = """
    CREATE TABLE renumbering.living (
        queue INTEGER NOT NULL, place INTEGER NOT NULL, home INTEGER NOT NULL, number INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE renumbering.seen (
        number INTEGER NOT NULL, home INTEGER NOT NULL, claim INTEGER NOT NULL
    ) STRICT;
"""
# A member is what the spread store calls a message in a queue: it sorts by that where places are the same.
_SETTLE = """
    CREATE TABLE renumbering.moved AS
        SELECT number, home, ?1 + row_number() OVER (ORDER BY number, home) AS new
          FROM (SELECT number, home, claim, count(*) OVER (PARTITION BY number) AS amount,
                       row_number() OVER (PARTITION BY number ORDER BY claim, home) AS nth
                  FROM renumbering.seen)
         WHERE amount > 1 AND (nth > 1 OR claim = 2);  -- _NONE
    CREATE INDEX renumbering.moved_number ON moved (number);
    CREATE TABLE renumbering.placed AS
        SELECT number, home, seq AS place
          FROM (SELECT number, home, place, n + max(place - n) OVER (ORDER BY n) AS seq
                  FROM (SELECT number, home, place, row_number() OVER (ORDER BY place, member, queue) AS n
                          FROM (SELECT *, iif(home = queue, number || '', home || ':' || number) AS member
                                  FROM renumbering.living)))
         WHERE seq != place;
    CREATE INDEX renumbering.placed_number ON placed (number);
"""


_NONE = 2
"""Of a message that may be in more than one queue: no claim to its number."""


class Renumbering:
    """Which numbers and places have to be others."""

    def __init__(self, db: apsw.Connection, part: Path, installation: Installation) -> None:
        """`part`: beside which file it is worked out."""
        self._db = db
        self._claims = {queue.number: _claim(queue) for queue in installation.queues}
        self._path = part.with_name(part.name + "-numbers")
        self._last = installation.last_number
        self._moved = self._placed = 0
        self._path.unlink(missing_ok=True)
        db.execute("COMMIT")  # nothing can be attached in a transaction
        db.execute("ATTACH ? AS renumbering", (str(self._path),))
        db.execute("PRAGMA renumbering.journal_mode = OFF").fetchall()
        db.execute("PRAGMA renumbering.synchronous = OFF")
        db.execute("BEGIN")
        db.execute(_TABLES)

    def gather(self, living: Iterator[Living], ended: Iterator[Ended]) -> None:
        """Look at every number that there is."""
        while some := list(islice(living, BATCH)):
            self._db.executemany(
                "INSERT INTO renumbering.living VALUES (?, ?, ?, ?)",
                [(each.queue, each.place, each.home, each.number) for each in some],
            )
            self._see(some)
        while records := list(islice(ended, BATCH)):
            self._see(records)

    def _see(self, records: Sequence[Living] | Sequence[Ended]) -> None:
        self._db.executemany(
            "INSERT INTO renumbering.seen VALUES (?, ?, ?)",
            [
                (each.number, each.home, self._claims[each.queue] if each.queue == each.home else _NONE)
                for each in records
            ],
        )

    def settle(self) -> tuple[int, int]:
        """Find others for those that collide: (the highest number there is now, how many messages moved)."""
        db = self._db
        (highest,) = next(
            db.execute(
                "SELECT max(?, (SELECT coalesce(max(number), 0) FROM renumbering.seen),"
                " (SELECT coalesce(max(place), 0) FROM renumbering.living))",
                (self._last,),
            )
        )
        db.execute(_SETTLE, (highest,))
        (self._moved,) = next(db.execute("SELECT count(*) FROM renumbering.moved"))
        self._placed, furthest = next(
            db.execute("SELECT count(*), coalesce(max(place), 0) FROM renumbering.placed")
        )
        return max(highest + self._moved, furthest), self._moved

    def fit(self, batch: Sequence[Record]) -> Sequence[Record]:
        """Records with the numbers and places that they have from now on."""
        if not self._moved and not self._placed:
            return batch
        wanted = numbers(sorted({number for record in batch for number in _numbers(record)}))
        moved = self._found("moved", "new", wanted) if self._moved else {}
        placed = self._found("placed", "place", wanted) if self._placed else {}
        return [_fitted(record, moved, placed) for record in batch] if moved or placed else batch

    def _found(self, table: str, column: str, wanted: Any) -> dict[tuple[int, int], int]:
        return {
            (home, number): value
            for home, number, value in self._db.execute(
                f"SELECT home, number, {column} FROM renumbering.{table} WHERE number IN carray(?)",
                (wanted,),
            )
        }

    def clear(self) -> None:
        """Take away what it was worked out with; the database is closed."""
        self._path.unlink(missing_ok=True)


def _claim(queue: Queue) -> int:
    """How good the claim of a queue's own messages to their numbers is: the least goes first."""
    if queue.settings.dead_letter is not None:
        return _NONE
    return 0 if queue.name.startswith(RESERVED) else 1


def _numbers(record: Record) -> Sequence[int]:
    return record.numbers if isinstance(record, Answer) else (record.number,)


def _fitted(record: Record, moved: dict[tuple[int, int], int], placed: dict[tuple[int, int], int]) -> Record:
    if isinstance(record, Living):
        key = record.home, record.number
        if key not in moved and key not in placed:
            return record
        return replace(record, number=moved.get(key, record.number), place=placed.get(key, record.place))
    if isinstance(record, Answer):
        return replace(record, numbers=[moved.get((record.queue, n), n) for n in record.numbers])
    home = record.queue if isinstance(record, Dedup) else record.home
    return replace(record, number=moved.get((home, record.number), record.number))
