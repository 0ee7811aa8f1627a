"""What time brings: leases, delays and ttls run out, abandoned rows are swept, old records go.

All of it in steps: a step looks at its watch between small bites and stops after `BUDGET`, so that no
request ever waits for a whole purge or for ten million leases that end together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import apsw

from windlass.message import State
from windlass.store.sqlite.memory import EXPIRING, Memory, QueueState
from windlass.store.sqlite.receiving import cutoff
from windlass.store.sqlite.settling import end_delivery
from windlass.store.sqlite.transaction import (
    COLUMNS,
    WITHOUT_CONTENT,
    Row,
    Transaction,
    fetch,
    numbers,
)

BUDGET = 0.004
"""Seconds of writer time a step may begin new work in; the last bite takes it to 5 ms at most."""
_BITE = 256
_RETENTION_EVERY = 1_000
"""How often queues with a retention are looked at, ms."""

_DUE = COLUMNS.format(
    content=WITHOUT_CONTENT,
    source="deliveries d CROSS JOIN messages m ON m.id = d.id WHERE d.due <= ?1 ORDER BY d.due LIMIT ?2",
)
_EXPIRED = COLUMNS.format(
    content=WITHOUT_CONTENT,
    source="messages m LEFT JOIN deliveries d ON d.id = m.id"
    " WHERE m.expires IS NOT NULL AND m.expires <= ?1 ORDER BY m.expires LIMIT ?2",
)
_OLD = COLUMNS.format(
    content=WITHOUT_CONTENT,
    source="ready r CROSS JOIN messages m ON m.id = r.id LEFT JOIN deliveries d ON d.id = r.id"
    " WHERE r.generation = ?1 AND r.rank = ?2 AND m.at <= ?3 ORDER BY r.seq LIMIT ?4",
)
_OLD_DEAD = COLUMNS.format(
    content=WITHOUT_CONTENT,
    source="deliveries d CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.generation = ?1 AND d.state = 3 AND m.at <= ?2 ORDER BY d.id LIMIT ?3",
)
# A lease of an ordinary message that ran out: its row joins `life` and it is ready again.
_BACK = """
    UPDATE deliveries SET state = 0, due = NULL, since = NULL, holder = NULL,
           life = CASE WHEN state = 2 OR length(coalesce(life, '')) > 3800 THEN life ELSE
                  coalesce(life || ',', '') || '{"event":"leased","at":' || since || ',"until":' || due || ',"by":'
                  || json_quote(holder) || '},{"event":"lease_expired","at":' || due || '}' END
     WHERE id IN carray(?)
"""
_READY = (
    "INSERT INTO ready (generation, rank, seq, id)"
    " SELECT generation, rank, seq, id FROM messages WHERE id IN carray(?)"
)


class Watch:
    """Says when a step has had its time."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + BUDGET

    @property
    def over(self) -> bool:
        return time.perf_counter() >= self._end


class Upkeep:
    """Knows when something is next due, and does it step by step."""

    def __init__(self, db: apsw.Connection, memory: Memory) -> None:
        self._db = db
        self._memory = memory
        self.next = 0
        """When the next step is due, ms; 0: now."""
        self._retention_at = 0

    def falls_due(self, moment: int) -> None:
        self.next = min(self.next, moment)

    def step(self, tx: Transaction) -> Callable[[], None]:
        """Work for at most 5 ms inside `tx`. Call what it returns when the transaction is on disk."""
        watch = Watch()
        jobs = (self._due, self._expired, self._retention, self._sweep, self._records)
        finished = all(self._repeat(job, tx, watch) for job in jobs)
        moment = self._next_due() if finished else tx.now
        if finished and any(q.settings.retention_seconds is not None for q in self._memory.by_name.values()):
            moment = min(moment, self._retention_at)

        def done() -> None:
            self.next = moment

        return done

    def _repeat(self, job: Callable[[Transaction], bool], tx: Transaction, watch: Watch) -> bool:
        """Take bites until nothing is left (True) or the time is up (False)."""
        while not watch.over:
            if not job(tx):
                return True
        return False

    def _next_due(self) -> int:
        """The earliest time in any index: a seek each."""
        moments = [
            row[0]
            for table, column in (
                ("deliveries", "due"),
                ("messages", "expires"),
                ("dedup", "until"),
                ("answers", "until"),
                ("ended", "until"),
            )
            for row in self._db.execute(f"SELECT min({column}) FROM {table} WHERE {column} IS NOT NULL")
        ]
        return min((moment for moment in moments if moment is not None), default=1 << 62)

    # --- leases and delays --------------------------------------------------------------------------

    def _due(self, tx: Transaction) -> bool:
        rows = fetch(tx.db, _DUE, (tx.now, _BITE))
        simple: dict[int, list[Row]] = {}
        for row in rows:
            queue = self._memory.by_generation.get(row.generation)
            if queue is None:
                self._delete(tx, [row])
            elif row.state == State.DELAYED:
                if row.grp is None:
                    simple.setdefault(queue.number, []).append(row)
                else:
                    _promote(tx, queue, row)
            elif (
                row.grp is None
                and queue.settings.max_deliveries is None
                and not row.lapsed
                and row.expires is None
                and row.at > cutoff(queue, tx.now)
            ):
                simple.setdefault(queue.number, []).append(row)
            else:
                end_delivery(tx, queue, row, "lease_expired")
        back = [row.id for group in simple.values() for row in group]
        if back:
            tx.db.execute(_BACK, (numbers(back),))
            tx.db.execute(_READY, (numbers(back),))
        for number, group in simple.items():
            queue = self._memory.by_number[number]
            for state in (State.LEASED, State.DELAYED):
                amount = sum(row.state == state for row in group)
                if amount:
                    tx.count(queue, state, -amount)
            tx.became_ready(queue, len(group))
        return bool(rows)

    # --- ttl and retention --------------------------------------------------------------------------

    def _expired(self, tx: Transaction) -> bool:
        rows = fetch(tx.db, _EXPIRED, (tx.now, _BITE))
        for row in rows:
            queue = self._memory.by_generation.get(row.generation)
            if queue is None:
                self._delete(tx, [row])
            elif row.state == State.LEASED:
                # Whoever holds it may finish; it will not be handed out again.
                tx.db.execute("UPDATE messages SET expires = NULL WHERE id = ?", (row.id,))
                tx.db.execute("UPDATE deliveries SET lapsed = 1 WHERE id = ?", (row.id,))
                tx.count(queue, EXPIRING, -1)
        self._end_all(tx, (row for row in rows if row.state != State.LEASED))
        return bool(rows)

    def _end_all(self, tx: Transaction, rows: Iterable[Row]) -> None:
        """End expired messages that are not leased."""
        plain: list[Row] = []
        for row in rows:
            queue = self._memory.by_generation.get(row.generation)
            if queue is None:
                continue
            place = tx.place(queue, row)
            if place is State.READY and row.grp is None and not queue.remembers:
                plain.append(row)
                tx.forget(queue, row, place)
            else:
                tx.end(queue, row, "expired", place=place)
        if plain:
            ids = [row.id for row in plain]
            tx.db.execute(
                "DELETE FROM ready WHERE (generation, rank, seq) IN"
                " (SELECT generation, rank, seq FROM messages WHERE id IN carray(?))",
                (numbers(ids),),
            )
            tx.delete(ids, delivered=any(row.token is not None for row in plain))

    def _retention(self, tx: Transaction) -> bool:
        if tx.now < self._retention_at:
            return False
        for queue in self._memory.by_name.values():
            if queue.settings.retention_seconds is None:
                continue
            limit = cutoff(queue, tx.now)
            rows = fetch(tx.db, _OLD_DEAD, (queue.generation, limit, _BITE))
            for rank in range(10) if queue.counts[State.READY] else ():
                head = tx.db.execute(
                    "SELECT m.at FROM ready r JOIN messages m ON m.id = r.id"
                    " WHERE r.generation = ? AND r.rank = ? ORDER BY r.seq LIMIT 1",
                    (queue.generation, rank),
                ).fetchone()
                if head is not None and head[0] <= limit:  # within a rank the oldest is first
                    rows += fetch(tx.db, _OLD, (queue.generation, rank, limit, _BITE))
            if rows:
                self._end_all(tx, rows)
                return True
        self._retention_at = tx.now + _RETENTION_EVERY
        return False

    # --- sweeping -----------------------------------------------------------------------------------

    def _sweep(self, tx: Transaction) -> bool:
        """Delete a bite of an abandoned generation. Each index that holds a row leads to it; what is
        leased or delayed goes when its time comes."""
        for generation in list(self._memory.abandoned):
            for table in ("ready", "grouped"):
                ids = [
                    row[0]
                    for row in tx.db.execute(
                        f"SELECT id FROM {table} WHERE generation = ? LIMIT ?", (generation, _BITE)
                    )
                ]
                if ids:
                    self._delete_ids(tx, table, generation, ids)
                    return True
            dead = [
                row[0]
                for row in tx.db.execute(
                    "SELECT id FROM deliveries WHERE generation = ? AND state = 3 LIMIT ?",
                    (generation, _BITE),
                )
            ]
            if dead:
                tx.delete(dead, delivered=True)
                return True
            tx.db.execute("DELETE FROM abandoned_generations WHERE generation = ?", (generation,))
            tx.on_commit.append(lambda generation=generation: self._memory.abandoned.discard(generation))  # type: ignore[misc]
        return False

    def _delete_ids(self, tx: Transaction, table: str, generation: int, ids: list[int]) -> None:
        keys = {"ready": "(generation, rank, seq)", "grouped": "(generation, grp, seq)"}[table]
        tx.db.execute(
            f"DELETE FROM {table} WHERE {keys} IN"
            f" (SELECT {keys[1:-1]} FROM {table} WHERE generation = ? LIMIT ?)",
            (generation, len(ids)),
        )
        # A leased or delayed message of a group stays until it is due; its row in `deliveries` leads to it.
        waiting = {
            row[0]
            for row in tx.db.execute(
                "SELECT id FROM deliveries WHERE id IN carray(?) AND due IS NOT NULL", (numbers(ids),)
            )
        }
        tx.delete([number for number in ids if number not in waiting], delivered=True)

    def _delete(self, tx: Transaction, rows: list[Row]) -> None:
        """Delete rows of an abandoned generation."""
        tx.delete([row.id for row in rows], delivered=True)

    # --- records ------------------------------------------------------------------------------------

    def _records(self, tx: Transaction) -> bool:
        """Forget what need not be remembered any more."""
        more = False
        for table, key in (("dedup", "(queue, dedup_id)"), ("answers", "key"), ("ended", "id")):
            tx.db.execute(
                f"DELETE FROM {table} WHERE {key} IN"
                f" (SELECT {key.strip('()')} FROM {table} WHERE until <= ? LIMIT ?)",
                (tx.now, _BITE),
            )
            gone = tx.db.changes()
            if table == "answers":
                tx.answers -= gone
            more = more or gone > 0
        return more


def _promote(tx: Transaction, queue: QueueState, row: Row) -> None:
    """A delay of a message of a group is over."""
    tx.db.execute("UPDATE deliveries SET state = 0, due = NULL WHERE id = ?", (row.id,))
    tx.count(queue, State.DELAYED, -1)
    assert row.grp is not None
    if tx.head(queue, row.grp) == row.id:
        tx.insert_ready(queue, row.id, row.seq, row.rank)
    else:
        tx.count(queue, State.BLOCKED, 1)
