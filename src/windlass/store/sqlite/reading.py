"""Reading beside the writer: a connection for each of a few threads, never waiting for a commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import apsw
import msgspec

from windlass.errors import StoreUnavailable
from windlass.message import Life, Message, State
from windlass.store.sqlite.memory import Memory
from windlass.store.sqlite.receiving import cutoff
from windlass.store.sqlite.transaction import (
    COLUMNS,
    WITH_CONTENT,
    Transaction,
    events_of,
    fetch,
    numbers,
)

R = TypeVar("R")

_BY_ID = COLUMNS.format(
    content=WITH_CONTENT,
    source="carray(?1) c CROSS JOIN messages m ON m.id = c.value LEFT JOIN deliveries d ON d.id = m.id",
)
_PEEK = {
    State.READY: COLUMNS.format(
        content=WITH_CONTENT,
        source="ready r CROSS JOIN messages m ON m.id = r.id LEFT JOIN deliveries d ON d.id = r.id"
        " WHERE r.generation = ?1 AND (m.expires IS NULL OR m.expires > ?3) AND m.at > ?4"
        " ORDER BY r.rank, r.seq LIMIT ?2",
    ),
    State.BLOCKED: COLUMNS.format(
        content=WITH_CONTENT,
        source="grouped g CROSS JOIN messages m ON m.id = g.id LEFT JOIN deliveries d ON d.id = g.id"
        " WHERE g.generation = ?1 AND coalesce(d.state, 0) = 0 AND ?3 AND ?4"
        " AND NOT EXISTS (SELECT 1 FROM ready r WHERE r.generation = ?1 AND r.rank = m.rank AND r.seq = m.seq)"
        " ORDER BY g.grp, g.seq LIMIT ?2",
    ),
    State.DEAD: COLUMNS.format(
        content=WITH_CONTENT,
        source="deliveries d CROSS JOIN messages m ON m.id = d.id"
        " WHERE d.generation = ?1 AND d.state = 3 AND ?3 AND ?4 ORDER BY d.id LIMIT ?2",
    ),
}


class Readers:
    """A small pool of threads, each with a read-only connection."""

    def __init__(
        self, connect: Callable[[], apsw.Connection], memory: Memory, now: Callable[[], int]
    ) -> None:
        self._connect = connect
        self._memory = memory
        self._now = now
        self._local = threading.local()
        self._opened: list[apsw.Connection] = []
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="windlass-reader")

    async def run(self, query: Callable[[apsw.Connection], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, query)

    def _call(self, query: Callable[[apsw.Connection], R]) -> R:
        try:
            db = getattr(self._local, "db", None)
            if db is None:
                db = self._local.db = self._connect()
                self._opened.append(db)
            return query(db)
        except apsw.Error as error:
            raise StoreUnavailable(f"The store could not be read: {error}", retry_after=1) from error

    def close(self) -> None:
        self._pool.shutdown()
        for db in self._opened:
            db.close()

    async def peek(self, name: str, limit: int, state: State) -> list[Message]:
        queue = self._memory.queue(name)
        now = self._now()
        bindings = (queue.generation, limit, now, cutoff(queue, now))
        rows = await self.run(lambda db: fetch(db, _PEEK[state], bindings))
        return [row.message(queue) for row in rows]

    async def oldest(self, name: str) -> int | None:
        queue = self._memory.queue(name)

        def query(db: apsw.Connection) -> int | None:
            heads = [
                db.execute(
                    "SELECT m.at FROM ready r JOIN messages m ON m.id = r.id"
                    " WHERE r.generation = ? AND r.rank = ? ORDER BY r.seq LIMIT 1",
                    (queue.generation, rank),
                ).fetchone()
                for rank in range(10)
            ]
            return min((head[0] for head in heads if head is not None), default=None)

        return await self.run(query) if queue.counts[State.READY] else None

    async def find(self, number: int) -> Life | None:
        return await self.run(lambda db: self._find(db, number))

    def _find(self, db: apsw.Connection, number: int) -> Life | None:
        with db:  # one snapshot: a message that ends meanwhile is found on one side or the other
            rows = fetch(db, _BY_ID, (numbers([number]),))
            if rows:
                queue = self._memory.by_generation.get(rows[0].generation)
                if queue is None:
                    return None
                row = rows[0]
                place = Transaction(db, self._memory, 0).place(queue, row)
                return Life(row.message(queue), place.name.lower(), queue.name, events_of(row))
            record = db.execute(
                "SELECT life FROM ended WHERE id = ? AND until > ?", (number, self._now())
            ).fetchone()
        return _ended(number, msgspec.json.decode(record[0])) if record else None


def _ended(number: int, record: dict[str, Any]) -> Life:
    headers, outcome = record["headers"], record["outcome"]
    message = Message(
        record["queue"],
        number,
        b"",
        record["at"],
        record["deliveries"],
        record["priority"],
        record["group"],
        headers.encode() if headers is not None else None,
    )
    return Life(
        message,
        record["state"],
        record["in_queue"],
        record["events"],
        outcome.encode() if outcome is not None else None,
        record["ended_at"],
    )
