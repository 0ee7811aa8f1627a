"""Reading beside the writer: a connection for each of a few threads, never waiting for a commit."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import apsw
import msgspec

from windlass.errors import StoreUnavailable
from windlass.message import MAX_BATCH_BYTES, End, Held, Life, Message, State
from windlass.store.sqlite.memory import Memory
from windlass.store.sqlite.ready import LIVING_ROWS, bounds, fitting, oldest
from windlass.store.sqlite.rows import IDS, Row, columns, events_of, fetch, numbers
from windlass.store.sqlite.transaction import Transaction

R = TypeVar("R")

_BY_ID = columns(IDS, content=True)
_CLAIMED = (
    "deliveries d INDEXED BY deliveries_claimed CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.claim IS NOT NULL AND d.state = {state} ORDER BY d.id LIMIT ?1"
)
_HELD = columns(_CLAIMED.format(state=int(State.LEASED)))
_DIED = columns(_CLAIMED.format(state=int(State.DEAD)), content=True)
_WAITING = (
    "deliveries d INDEXED BY deliveries_due CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.due IS NOT NULL AND d.generation = ?1 AND d.state = {state} ORDER BY d.due LIMIT ?2"
)
_SOURCES = {
    State.LEASED: _WAITING.format(state=int(State.LEASED)),
    State.DELAYED: _WAITING.format(state=int(State.DELAYED)),
    State.BLOCKED: "grouped g CROSS JOIN messages m ON m.id = g.id LEFT JOIN deliveries d ON d.id = g.id"
    " WHERE g.generation = ?1 AND coalesce(d.state, 0) = 0"
    " AND g.seq > (SELECT min(seq) FROM grouped WHERE generation = ?1 AND grp = g.grp)"
    " ORDER BY g.grp, g.seq LIMIT ?2",
    State.DEAD: "deliveries d CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.generation = ?1 AND d.state = 3 ORDER BY d.since, d.id LIMIT ?2",
}
_PEEK = {state: columns(source, content=True) for state, source in _SOURCES.items()}
_ENDED = "SELECT id, life FROM ended WHERE id IN carray(?) AND until > ?"
_FIND_AT_ONCE = 16
"""Messages that one look finds: with contents of 16 MiB they fill the memory of a small machine."""
_SIZES = {
    state: "SELECT count(*) FROM (SELECT sum(size) OVER (ROWS UNBOUNDED PRECEDING) AS total"
    f" FROM (SELECT length(m.content) AS size FROM {source})) WHERE total <= {MAX_BATCH_BYTES}"
    for state, source in _SOURCES.items()
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
        self._sought: dict[asyncio.AbstractEventLoop, deque[tuple[int, asyncio.Future[Life | None]]]] = {}
        """Who looks for which message, while a look is under way, by event loop."""
        self._looks: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="windlass-reader")

    async def run(self, query: Callable[[apsw.Connection], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, query)

    def _call(self, query: Callable[[apsw.Connection], R]) -> R:
        try:
            db = getattr(self._local, "db", None)
            if db is None:
                db = self._local.db = self._connect()
                self._opened.append(db)
            with db:  # one snapshot for all of the query's statements
                results = [query(db)]
            return results[0]
        except apsw.Error as error:
            raise StoreUnavailable(f"The store could not be read: {error}", retry_after=1) from error

    def close(self) -> None:
        self._pool.shutdown()
        for db in self._opened:
            db.close()

    async def peek(self, name: str, limit: int, state: State) -> list[Message]:
        queue = self._memory.queue(name)
        limit = min(limit, queue.counts[state])  # and no row is looked for that is not there
        if not limit:
            return []
        now = self._now()

        def query(db: apsw.Connection) -> list[Row]:
            if state is State.READY:
                fits = fitting(db, queue, limit, now)
                return fetch(db, LIVING_ROWS, bounds(db, queue, fits, now))
            fits = max(1, next(db.execute(_SIZES[state], (queue.generation, limit)))[0])
            return fetch(db, _PEEK[state], (queue.generation, fits))

        return [
            row.message(queue, lease_until=(row.due or 0) if state is State.LEASED else 0)
            for row in await self.run(query)
        ]

    async def oldest(self, name: str) -> int | None:
        queue = self._memory.queue(name)

        now = self._now()

        return await self.run(lambda db: oldest(db, queue, now)) if queue.counts[State.READY] else None

    async def find(self, number: int) -> Life | None:
        """Those who come while a look is under way share the next: a thread's turn costs more than a row."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Life | None] = loop.create_future()
        line = self._sought.get(loop)
        if line is None:
            line = self._sought[loop] = deque()
            look = loop.create_task(self._look(loop, line))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        line.append((number, found))
        return await found

    async def _look(
        self, loop: asyncio.AbstractEventLoop, line: deque[tuple[int, asyncio.Future[Life | None]]]
    ) -> None:
        try:
            while line:
                sought = [line.popleft() for _ in range(min(len(line), _FIND_AT_ONCE))]
                ids = [number for number, _ in sought]
                try:
                    lives = await self.run(lambda db, ids=ids: self._find(db, ids))  # type: ignore[misc]
                except Exception as error:  # noqa: BLE001 - each of those who wait raises it
                    for _, found in sought:
                        if not found.done():
                            found.set_exception(error)
                    continue
                for number, found in sought:
                    if not found.done():
                        found.set_result(lives.get(number))
        finally:
            del self._sought[loop]

    async def held(self) -> list[Held]:
        rows = await self.run(lambda db: fetch(db, _HELD, (-1,)))
        return [
            Held(
                row.message(queue, delivery=row.token or 0, lease_until=row.due or 0),
                row.holder or "",
                row.claim or "",
                bool(row.tentative),
                row.since or 0,
            )
            for row in rows
            if (queue := self._memory.by_generation.get(row.generation))
        ]

    async def untold(self, limit: int) -> list[End]:
        def query(db: apsw.Connection) -> list[End]:
            ends = [
                End(number, life.outcome, life)
                for number, text in db.execute(
                    "SELECT id, life FROM ended WHERE untold IS NOT NULL ORDER BY id LIMIT ?", (limit,)
                )
                if (life := _ended(number, msgspec.json.decode(text)))
            ]
            for row in fetch(db, _DIED, (limit,)):
                if queue := self._memory.by_generation.get(row.generation):
                    life = Life(row.message(queue), "dead", queue.name, events_of(row))
                    ends.append(End(row.id, None, life))
            return sorted(ends, key=lambda end: end.number)[:limit]

        return await self.run(query)

    def _find(self, db: apsw.Connection, ids: Sequence[int]) -> dict[int, Life]:
        lives: dict[int, Life] = {}
        for row in fetch(db, _BY_ID, (numbers(ids),)):
            queue = self._memory.by_generation.get(row.generation)
            if queue is not None:
                place = Transaction(db, self._memory, 0).place(queue, row)
                lives[row.id] = Life(row.message(queue), place.name.lower(), queue.name, events_of(row))
        ended = [number for number in ids if number not in lives]
        if ended:
            for number, text in db.execute(_ENDED, (numbers(ended), self._now())):
                lives[number] = _ended(number, msgspec.json.decode(text))
        return lives


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
