"""The record of keys: which were written since a position in it, whoever wrote them.

A trigger writes each key into `windlass_keys` in the transaction that writes the product (trigger.py). A
position is one row of that table, by number and nonce. Where that row is, there is all the history before
it, and what came after can be asked for. Where it is not (another database, an older back-up, a record begun
anew or trimmed beyond it) nothing is known, and PositionUnknown says so.

SQLite has one writer at a time: rows come to be seen in the order of their numbers. PostgreSQL has many:
rows come to be seen in the order of commits, and one with a low number may appear late. So each row has its
transaction's number and the snapshot that its writer saw. A position knows its own transaction, of which
whoever sees the row sees all, and what that snapshot shows; the rest can be asked for. The snapshot is the
row's own and not the reader's, so that it is of the row's history: a standby that takes over without the last
transactions gives their numbers to others. In another cluster, into which a dump was restored, numbers mean
something else; so the row says of which cluster it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, text

from windlass.catalogue.trigger import Watched, installed, plain
from windlass.database import Database
from windlass.errors import PositionUnknown

KEPT = 100_000
"""Rows that stay however old they are, for those who are behind."""
_PAGE = 5_000
_CUT = 100_000
"""Rows that are taken away in one transaction."""


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where somebody knows the record: all that the writer of this row saw."""

    seq: int
    nonce: str

    def pack(self) -> bytes:
        """For a filter's mark: at most 60 bytes."""
        return json.dumps([self.seq, self.nonce]).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> Position:
        """What `pack` gave. Raises PositionUnknown for anything else."""
        try:
            seq, nonce = json.loads(packed)
        except (ValueError, TypeError, RecursionError):
            seq = nonce = None
        if type(seq) is int and 0 < seq < 2**63 and re.fullmatch("[0-9a-f-]{32,36}", str(nonce)):
            return cls(seq, nonce)
        raise PositionUnknown("This is no position in a record of keys.")


class Entry(NamedTuple):
    """A key that was written, and the number of its row; None: perhaps every key, as after TRUNCATE."""

    seq: int
    key: str | None


class Record:
    """The record of one table, in its database. Every method blocks and may raise StoreUnavailable."""

    def __init__(self, database: Database, watched: Watched) -> None:
        self._database = database
        self._watched = watched
        self._sql = {"postgresql": _POSTGRESQL, "sqlite": _SQLITE}[database.dialect]

    def position(self) -> Position:
        """Where the record is now. Whoever reads the table after this call knows all up to here.

        Raises PositionUnknown where no record is kept.
        """
        return self._database.look(self._newest).position

    def since(self, position: Position) -> tuple[Iterable[str], Position]:
        """The keys written since, page by page, and the position after them; some may come twice.

        Raises PositionUnknown, also while they are read, where the position is not of this record.
        """
        entries, now = self.entries(position)
        return (entry.key for entry in entries if entry.key is not None), now

    def entries(self, position: Position) -> tuple[Iterable[Entry], Position]:
        """`since` with the numbers of the rows, by which one that comes twice is known."""

        def step(connection: Connection) -> tuple[_Known, _Known]:
            return self._find(position, connection), self._newest(connection)

        known, newest = self._database.look(step)
        # The last row's writer may have begun long ago, and have seen less than is known already.
        now = newest if newest.later >= known.later else known
        return self._read(known, newest.position.seq), now.position

    def trim(self, position: Position, *, keep: int = KEPT) -> None:
        """Take away rows older than the position and than the newest `keep`; positions there end.

        This position and those of rows that stay know as much as before. Raises PositionUnknown.
        """
        first, lowest = self._database.look(partial(self._bounds, position, keep))
        while first < lowest:
            first = min(first + _CUT, lowest)
            self._database.change(partial(self._cut, first))

    def _newest(self, connection: Connection) -> _Known:
        if installed(connection, self._watched):
            row = self._run(connection, self._sql.newest).one_or_none()
            if row is not None:
                return _Known.of(row)
        raise PositionUnknown(f"No record of the keys of {self._watched.name} is kept, or no more.")

    def _find(self, position: Position, connection: Connection) -> _Known:
        row = self._run(connection, self._sql.find, seq=position.seq, nonce=position.nonce).one_or_none()
        if row is None:
            raise PositionUnknown(
                f"Row {position.seq} is not in the record of the keys of {self._watched.name}, or no more."
            )
        return _Known.of(row)

    def _read(self, known: _Known, last: int) -> Iterator[Entry]:
        after = (0, 0)
        while True:
            rows = self._database.look(partial(self._page, known, after, last))
            for _, seq, key in rows:
                yield Entry(seq, key)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0], rows[-1][1]

    def _page(
        self, known: _Known, after: tuple[int, int], last: int, connection: Connection
    ) -> Sequence[Any]:
        """Up to _PAGE rows, as number of the transaction, number, key."""
        values = {**asdict(known.position), **known._asdict(), "resumed": max(known.later, known.own + 1)}
        values |= {"after_xid": after[0], "after_seq": after[1], "last": last, "limit": _PAGE}
        rows: Sequence[Any] = self._run(connection, self._sql.page, **values).all()
        if not rows:  # not even the position, which the same statement looks for
            raise PositionUnknown(f"The record of the keys of {self._watched.name} was trimmed meanwhile.")
        return rows if rows[0][1] is not None else []

    def _bounds(self, position: Position, keep: int, connection: Connection) -> tuple[int, int]:
        """The numbers of the first row, and of the first that stays."""
        self._find(position, connection)
        bounds: Any = self._run(connection, _BOUNDS, keep=keep).one()
        first, kept = bounds
        return first, min(position.seq, kept or position.seq)

    def _cut(self, lowest: int, connection: Connection) -> None:
        for sql in self._sql.cut:
            self._run(connection, sql, lowest=lowest)

    def _run(self, connection: Connection, sql: str, **values: object) -> CursorResult[Any]:
        return connection.execute(text(sql.replace("RECORD", plain(self._watched.record))), values)


class _Known(NamedTuple):
    """What a position knows: numbers of transactions below `later` but for those `running`, and its `own`.

    On SQLite: numbers of rows up to `later`.
    """

    position: Position
    later: int
    own: int
    running: str

    @classmethod
    def of(cls, row: Any) -> _Known:
        seq, nonce, later, own, running = row
        return cls(Position(seq, nonce), later, own, running)


class _Sql(NamedTuple):
    newest: str
    find: str
    page: str
    cut: tuple[str, ...]


_BOUNDS = """SELECT min(seq), (SELECT min(seq) FROM (SELECT seq FROM RECORD ORDER BY seq DESC LIMIT :keep) k)
    FROM RECORD"""
_HERE = "(SELECT system_identifier FROM pg_control_system())"
# Of what was running only what has ended by now: the rows of the others cannot be seen, only stumbled over.
_KNOWN = """SELECT seq, CAST(nonce AS text), CAST(CAST(pg_snapshot_xmax(seen) AS text) AS bigint),
    CAST(CAST(xid AS text) AS bigint), CAST(ARRAY(
      SELECT x FROM pg_snapshot_xip(seen) x WHERE pg_visible_in_snapshot(x, pg_current_snapshot())
    ) AS text)
    FROM RECORD"""
_XID = "CAST(CAST({} AS text) AS xid8)"
_PART = f"""(SELECT xid, seq, key FROM RECORD
    WHERE {{}} AND cluster = {_HERE} AND seq <= :last
      AND (xid, seq) > ({_XID.format(":after_xid")}, :after_seq)
    ORDER BY xid, seq LIMIT :limit)"""
_PARTS = (
    _PART.format("xid = ANY(CAST(:running AS xid8[]))"),
    _PART.format(f"xid >= {_XID.format(':later')} AND xid < {_XID.format(':own')}"),
    _PART.format(f"xid >= {_XID.format(':resumed')}"),
)
# The first transaction of which a row that stays may have to tell.
_FIRST = f"""(SELECT pg_snapshot_xmin(seen) FROM RECORD WHERE seq >= :lowest AND cluster = {_HERE}
    ORDER BY pg_snapshot_xmin(seen) LIMIT 1)"""
_POSTGRESQL = _Sql(
    newest=f"{_KNOWN} WHERE cluster = {_HERE} ORDER BY seq DESC LIMIT 1",
    find=f"{_KNOWN} WHERE seq = :seq AND CAST(nonce AS text) = :nonce AND cluster = {_HERE}",
    page=f"""SELECT CAST(CAST(k.xid AS text) AS bigint), k.seq, k.key
        FROM RECORD p LEFT JOIN LATERAL
          ({" UNION ALL ".join(_PARTS)} ORDER BY xid, seq LIMIT :limit) k ON true
        WHERE p.seq = :seq AND CAST(p.nonce AS text) = :nonce ORDER BY k.xid, k.seq""",
    cut=(  # what has to stay behind is a position no more
        f"UPDATE RECORD SET nonce = gen_random_uuid() WHERE seq < :lowest AND xid >= {_FIRST}",
        f"DELETE FROM RECORD WHERE seq < :lowest AND (xid < {_FIRST} OR cluster <> {_HERE})",
    ),
)
_SQLITE = _Sql(
    newest="SELECT seq, nonce, seq, 0, '' FROM RECORD ORDER BY seq DESC LIMIT 1",
    find="SELECT seq, nonce, seq, 0, '' FROM RECORD WHERE seq = :seq AND nonce = :nonce",
    page="""SELECT 0, k.seq, k.key
        FROM RECORD p LEFT JOIN RECORD k ON k.seq > max(:later, :after_seq) AND k.seq <= :last
        WHERE p.seq = :seq AND p.nonce = :nonce ORDER BY k.seq LIMIT :limit""",
    cut=("DELETE FROM RECORD WHERE seq < :lowest",),
)
