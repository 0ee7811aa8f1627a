"""What time brings: leases, delays and ttls run out, abandoned rows are swept, old records go.

All of it in steps: a step looks at its watch between small bites and stops after `BUDGET`, so that no
request ever waits for a whole purge or for ten million leases that end together. While requests come and
more is to do than a step holds, upkeep takes a tenth of the writer's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from windlass.message import State
from windlass.store.sqlite import past, ready
from windlass.store.sqlite.memory import EXPIRING, Memory, QueueState
from windlass.store.sqlite.rows import Row, columns, fetch, numbers
from windlass.store.sqlite.settling import end_delivery
from windlass.store.sqlite.transaction import FOR_EVER, Transaction

BUDGET = 0.004
"""Seconds of writer time a step may begin new work in; the last bite takes it to 5 ms at most."""
BITE = 256
_REST = 9
"""How much longer than a step that was cut short upkeep rests while requests come."""
_TWO_EVENTS = 200
"""Characters of a lease and its end in a message's past, but for the holder's name."""
_RETENTION_EVERY = 1_000
"""How often queues with a retention are looked at, ms."""

_DUE = columns(
    "deliveries d CROSS JOIN messages m ON m.id = d.id WHERE d.due <= ?1 ORDER BY d.due LIMIT ?2",
)
_EXPIRED = columns(
    "messages m LEFT JOIN deliveries d ON d.id = m.id"
    " WHERE m.expires IS NOT NULL AND m.expires <= ?1 ORDER BY m.expires LIMIT ?2",
)
_OLD = columns("""(
    SELECT m.id
      FROM ranks k CROSS JOIN ready r ON r.generation = ?1 AND r.rank = k.rank AND r.seq <= ?2
     CROSS JOIN messages m ON m.id BETWEEN r.id AND r.id + min(r.amount - 1, ?2 - r.seq)
    UNION ALL
    SELECT r.id FROM ranks k CROSS JOIN fleeting r ON r.generation = ?1 AND r.rank = k.rank AND r.seq <= ?2
     LIMIT ?3) r CROSS JOIN messages m ON m.id = r.id LEFT JOIN deliveries d ON d.id = r.id""")
_OLD_DEAD = columns(
    "deliveries d CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.generation = ?1 AND d.state = 3 AND d.since <= ?2 ORDER BY d.since LIMIT ?3",
)
_OVER_BLOCKS = """
    DELETE FROM fleeting_blocks WHERE (generation, rank, block) IN
        (SELECT generation, rank, block FROM fleeting_blocks WHERE latest <= ? LIMIT ?)
"""
# A lease of an ordinary message that ran out: its row joins `life` and it is ready again.
_BACK = """
    UPDATE deliveries SET state = 0, due = NULL, since = NULL, holder = NULL,
           life = CASE WHEN state = 2 THEN life ELSE
                  coalesce(life || ',', '') || '{"event":"leased","at":' || since || ',"until":' || due
                  || ',"by":' || json_quote(holder) || '},{"event":"lease_expired","at":' || due || '}' END
     WHERE id IN carray(?)
"""


# Where rows of a generation lie, one a message, and their keys.
_PLACES = {
    "fleeting": "generation, rank, seq",
    "grouped": "generation, grp, seq",
}


class Watch:
    """Says when a step has had its time."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def over(self) -> bool:
        return self.spent >= BUDGET

    @property
    def spent(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._start


Job = Callable[[Transaction, Watch], bool]
"""Takes a bite. True: there may be more."""


class Upkeep:
    """Knows when something is next due, and does it step by step."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.next = 0
        """When the next step is due, ms; 0: now."""
        self._retention_at = 0
        self._retaining: Iterator[int] = iter(())
        """The queues with a retention that this round has not looked at."""
        self._round_began = -1
        self._rest_until = 0.0
        """Until when (perf_counter) requests go before a backlog; 0: there is none."""
        self._requests = False
        """Whether requests came since the last step."""

    @property
    def due(self) -> int | None:
        """`next`, or None: never."""
        return self.next if self.next < FOR_EVER else None

    def falls_due(self, moment: int) -> None:
        self.next = min(self.next, moment)

    def put_off(self, moment: int) -> None:
        """No step before `moment`."""
        self.next = max(self.next, moment)

    def turn(self, now: int, requests: bool) -> bool:
        """Whether this commit does a step: something is due, and it does not crowd the requests out."""
        self._requests = self._requests or requests
        return now >= self.next and (not self._requests or time.perf_counter() >= self._rest_until)

    def step(self, tx: Transaction) -> Callable[[], None]:
        """Work for at most 5 ms inside `tx`. Call what it returns when the transaction is on disk."""
        watch = Watch()
        jobs: tuple[Job, ...] = (
            self._blocks, self._due, self._expired, self._retention, self._sweep, self._records,
        )  # fmt: skip
        finished = all(self._repeat(job, tx, watch) for job in jobs)
        moment = self._next_due(tx) if finished else tx.now
        if finished and self._memory.retaining:
            moment = min(moment, self._retention_at)
        self._requests = False
        self._rest_until = 0.0 if finished else time.perf_counter() + _REST * watch.spent

        def done() -> None:
            self.next = moment

        return done

    def _repeat(self, job: Job, tx: Transaction, watch: Watch) -> bool:
        """Take bites until nothing is left (True) or the time is up (False)."""
        while not watch.over:
            if not job(tx, watch):
                return True
        return False

    def _next_due(self, tx: Transaction) -> int:
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
            for row in tx.db.execute(f"SELECT min({column}) FROM {table} WHERE {column} IS NOT NULL")
        ]
        return min((moment for moment in moments if moment is not None), default=FOR_EVER)

    # --- leases and delays --------------------------------------------------------------------------

    def _due(self, tx: Transaction, watch: Watch) -> bool:
        rows = fetch(tx.db, _DUE, (tx.now, BITE))
        simple: dict[int, list[Row]] = {}
        swept: list[int] = []
        for row in rows:
            queue = self._memory.by_generation.get(row.generation)
            if queue is None:
                swept.append(row.id)
            elif row.state == State.DEAD:  # whoever had to be told of it was, long ago
                tx.forget(queue, row, State.DEAD)
                swept.append(row.id)
            elif row.grp is None and _just_ready(queue, row, tx.now):
                simple.setdefault(queue.number, []).append(row)
            elif watch.over:
                continue  # the next step finds it again
            elif row.state == State.DELAYED:
                _promote(tx, queue, row)
            else:
                end_delivery(tx, queue, row, "lease_expired")
        tx.delete(swept, delivered=True)
        back = [row.id for group in simple.values() for row in group]
        if back:
            tx.db.execute(_BACK, (numbers(back),))
        for number, group in simple.items():
            queue = self._memory.by_number[number]
            for state in (State.LEASED, State.DELAYED):
                amount = sum(row.state == state for row in group)
                if amount:
                    tx.count(queue, state, -amount)
            ready.enter_all(tx, queue, group)
        return bool(rows)

    # --- ttl and retention --------------------------------------------------------------------------

    def _blocks(self, tx: Transaction, watch: Watch) -> bool:  # noqa: ARG002 - set-based
        """First of all: receives pass a block that is over by way of its row here."""
        tx.db.execute(_OVER_BLOCKS, (tx.now, BITE))
        return tx.db.changes() > 0

    def _expired(self, tx: Transaction, watch: Watch) -> bool:
        rows = fetch(tx.db, _EXPIRED, (tx.now, BITE))
        leased = [row for row in rows if row.state == State.LEASED]
        if leased:
            # Whoever holds one may finish; it will not be handed out again.
            ids = [row.id for row in leased]
            tx.db.execute("UPDATE messages SET expires = NULL WHERE id IN carray(?)", (numbers(ids),))
            tx.db.execute("UPDATE deliveries SET lapsed = 1 WHERE id IN carray(?)", (numbers(ids),))
            for row in leased:
                if queue := self._memory.by_generation.get(row.generation):
                    tx.count(queue, EXPIRING, -1)
        self._end_all(tx, (row for row in rows if row.state != State.LEASED), watch)
        return bool(rows)

    def _end_all(self, tx: Transaction, rows: Iterable[Row], watch: Watch) -> None:
        """End messages that ran out and are not leased."""
        simple: list[Row] = []
        delivered: list[Row] = []
        swept: list[int] = []
        for row in rows:
            queue = self._memory.by_generation.get(row.generation)
            if queue is None:
                swept.append(row.id)  # `fleeting` leads to the block, not to the row: see _sweep
            elif row.grp is None and not queue.remembers:
                place = State.READY if row.state is None else State(row.state)
                if place is State.READY:
                    simple.append(row)
                else:
                    delivered.append(row)
                tx.forget(queue, row, place)
            elif not watch.over:
                tx.end(queue, row, "expired", place=tx.place(queue, row))
        if simple:
            ready.leave(tx, simple)
        tx.delete(swept, delivered=True)
        simple += delivered
        tx.delete([row.id for row in simple], delivered=any(row.token is not None for row in simple))

    def _retention(self, tx: Transaction, watch: Watch) -> bool:
        """Look at one queue."""
        if tx.now < self._retention_at:
            return False
        number = next(self._retaining, None)
        if number is None:
            if self._round_began == tx.now:
                self._retention_at = tx.now + _RETENTION_EVERY
                self._round_began = -1
                return False
            self._round_began = tx.now
            self._retaining = iter(sorted(self._memory.retaining))
            return True
        queue = self._memory.by_number.get(number)
        if queue is None:
            return True
        rows = fetch(tx.db, _OLD_DEAD, (queue.generation, queue.cutoff(tx.now), BITE))
        if tx.counted(queue, State.READY):
            queue.past = ready.past(tx.db, queue, tx.now)
            rows += fetch(tx.db, _OLD, (queue.generation, queue.past, BITE))
        if rows:
            self._retaining = chain([number], self._retaining)
            self._end_all(tx, rows, watch)
        return True

    # --- sweeping -----------------------------------------------------------------------------------

    def _sweep(self, tx: Transaction, watch: Watch) -> bool:  # noqa: ARG002 - set-based
        """Delete a bite of an abandoned generation. Each table that holds a row leads to it; what is
        leased or delayed goes when its time comes."""
        row = tx.db.execute("SELECT generation FROM abandoned_generations LIMIT 1").fetchone()
        if row is None:
            return False
        ids = ready.take(tx, row[0], BITE)
        if ids:
            tx.delete(ids, delivered=True)
            return True
        for table, place in _PLACES.items():
            ids = [
                found[0]
                for found in tx.db.execute(
                    f"DELETE FROM {table} WHERE ({place}) IN"
                    f" (SELECT {place} FROM {table} WHERE generation = ? LIMIT ?) RETURNING id",
                    (*row, BITE),
                )
            ]
            if ids:
                if table == "grouped":
                    # One that is leased or delayed stays until it is due; `deliveries` leads to it.
                    waiting = tx.db.execute(
                        "SELECT id FROM deliveries WHERE id IN carray(?) AND due IS NOT NULL", (numbers(ids),)
                    )
                    ids = sorted(set(ids) - {found[0] for found in waiting})
                tx.delete(ids, delivered=True)
                return True
        dead = [
            found[0]
            for found in tx.db.execute(
                "SELECT id FROM deliveries WHERE generation = ? AND state = 3 LIMIT ?", (*row, BITE)
            )
        ]
        tx.db.execute(
            "DELETE FROM fleeting_blocks WHERE (generation, rank, block) IN"
            " (SELECT generation, rank, block FROM fleeting_blocks WHERE generation = ? LIMIT ?)",
            (*row, BITE),
        )
        if dead or tx.db.changes():
            tx.delete(dead, delivered=True)
            return True
        tx.db.execute("DELETE FROM abandoned_generations WHERE generation = ?", row)
        return True

    # --- records ------------------------------------------------------------------------------------

    def _records(self, tx: Transaction, watch: Watch) -> bool:  # noqa: ARG002 - set-based
        """Forget what need not be remembered any more."""
        more = False
        for table, key in (("dedup", "(queue, dedup_id)"), ("answers", "key"), ("ended", "id")):
            tx.db.execute(
                f"DELETE FROM {table} WHERE {key} IN"
                f" (SELECT {key.strip('()')} FROM {table} WHERE until <= ? LIMIT ?)",
                (tx.now, BITE),
            )
            gone = tx.db.changes()
            if table == "answers":
                tx.answers -= gone
            more = more or gone > 0
        return more


def _just_ready(queue: QueueState, row: Row, now: int) -> bool:
    """True where a message without a group, whose lease or delay is over, only becomes ready, with room for
    that in its past."""
    if row.state == State.DELAYED:
        return True
    limit = queue.settings.max_deliveries
    return (
        not row.lapsed
        and row.claim is None
        and len(row.life or "") + len(row.holder or "") < past.LIMIT - _TWO_EVENTS
        and (row.expires is None or row.expires > now)
        and row.at > queue.cutoff(now)
        and (limit is None or (row.count or 0) - (row.base or 0) < limit)
    )


def _promote(tx: Transaction, queue: QueueState, row: Row) -> None:
    """A delay of a message of a group is over."""
    tx.db.execute("UPDATE deliveries SET state = 0, due = NULL WHERE id = ?", (row.id,))
    tx.count(queue, State.DELAYED, -1)
    assert row.grp is not None
    if tx.head(queue, row.grp) == row.id:
        ready.enter(tx, queue, row.id, row.seq, row.rank, row.expires)
    else:
        tx.count(queue, State.BLOCKED, 1)
