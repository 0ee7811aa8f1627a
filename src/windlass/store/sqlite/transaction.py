"""One transaction of the writer: the connection, and all that must happen if and only if it commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec

from windlass.clock import rfc3339
from windlass.message import State
from windlass.store.sqlite import ready
from windlass.store.sqlite.counts import difference
from windlass.store.sqlite.memory import EXPIRING, GROUPED, Memory, QueueState
from windlass.store.sqlite.rows import BY_ID, Row, events_of, fetch, numbers

RESERVE = 1_000_000
"""Numbers reserved at a time: a crash leaves a gap, never a number given out twice."""

_encode = msgspec.json.Encoder().encode


class Transaction:
    """The state of one commit under way. Verbs call its methods; `differences` and the rest take effect
    in memory only when the commit is on disk."""

    __slots__ = (
        "answers", "db", "differences", "due", "ended", "ins", "memory", "next_number", "now", "on_commit",
        "outs", "ready", "reserved",
    )  # fmt: skip

    def __init__(self, db: apsw.Connection, memory: Memory, now: int) -> None:
        self.db = db
        self.memory = memory
        self.now = now
        self.differences: dict[int, list[int]] = {}
        self.ready: dict[str, int] = {}
        self.ended: list[int] = []
        self.ins: dict[int, int] = {}
        self.outs: dict[int, int] = {}
        self.due: int | None = None
        self.answers = 0
        self.next_number = memory.next_number
        self.reserved = memory.reserved
        self.on_commit: list[Callable[[], None]] = []

    # --- counting -----------------------------------------------------------------------------------

    def count(self, queue: QueueState, kind: int, amount: int) -> None:
        difference(self.differences, queue.number, kind, amount)

    def counted(self, queue: QueueState, kind: int) -> int:
        """A count as this transaction sees it."""
        row = self.differences.get(queue.number)
        return queue.counts[kind] + (row[kind] if row else 0)

    def length(self, queue: QueueState) -> int:
        row = self.differences.get(queue.number)
        return queue.length + (sum(row[:EXPIRING]) if row else 0)

    def became_ready(self, queue: QueueState, amount: int = 1) -> None:
        self.count(queue, State.READY, amount)
        self.ready[queue.name] = self.ready.get(queue.name, 0) + amount

    def falls_due(self, moment: int) -> None:
        if self.due is None or moment < self.due:
            self.due = moment

    def allocate(self, amount: int) -> int:
        """The first of `amount` new numbers."""
        first = self.next_number
        self.next_number = first + amount
        if self.next_number > self.reserved:
            self.reserved = self.next_number + RESERVE
            self.set_meta("next_number", self.reserved)
        return first

    def set_meta(self, name: str, value: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    # --- a message comes in, moves, and leaves --------------------------------------------------------

    def head(self, queue: QueueState, group: str) -> int | None:
        """The number of the first living message of a group."""
        row = self.db.execute(
            "SELECT id FROM grouped WHERE generation = ? AND grp = ? ORDER BY seq LIMIT 1",
            (queue.generation, group),
        ).fetchone()
        return row[0] if row else None

    def enter(
        self, queue: QueueState, number: int, seq: int, rank: int, group: str | None, expires: int | None
    ) -> None:
        """A message without delay comes into a queue: it is ready, or blocked behind its group."""
        if group is not None:
            former = self.head(queue, group)
            self.join_group(queue, number, seq, group)
            if self.head(queue, group) != number:
                self.count(queue, State.BLOCKED, 1)
                return
            if former is not None:
                self._step_back(queue, former)
        ready.enter(self, queue, number, seq, rank, expires)

    def _step_back(self, queue: QueueState, number: int) -> None:
        """An older message of its group came in by way of a dead letter: if `number` is ready, it waits."""
        row = fetch(self.db, BY_ID, (numbers([number]),))[0]
        if row.state in (None, State.READY):
            ready.leave(self, [row])
            self.count(queue, State.READY, -1)
            self.count(queue, State.BLOCKED, 1)

    def join_group(self, queue: QueueState, number: int, seq: int, group: str) -> None:
        self.db.execute(
            "INSERT INTO grouped (generation, grp, seq, id) VALUES (?, ?, ?, ?)",
            (queue.generation, group, seq, number),
        )
        self.count(queue, GROUPED, 1)

    def leave_group(self, queue: QueueState, row: Row) -> None:
        """The message is no longer of its group; whoever was blocked behind it alone is ready."""
        if row.grp is None:
            return
        was_head = self.head(queue, row.grp) == row.id
        self.db.execute(
            "DELETE FROM grouped WHERE generation = ? AND grp = ? AND seq = ?",
            (queue.generation, row.grp, row.seq),
        )
        self.count(queue, GROUPED, -1)
        if not was_head:
            return
        following = self.db.execute(
            "SELECT m.id, m.seq, m.rank, m.expires, d.state FROM grouped g JOIN messages m ON m.id = g.id"
            " LEFT JOIN deliveries d ON d.id = m.id"
            " WHERE g.generation = ? AND g.grp = ? ORDER BY g.seq LIMIT 1",
            (queue.generation, row.grp),
        ).fetchone()
        if following is not None:
            number, seq, rank, expires, state = following
            if state in (None, State.READY):  # else it is delayed, or leased since before this one came
                self.count(queue, State.BLOCKED, -1)
                ready.enter(self, queue, number, seq, rank, expires)

    def place(self, queue: QueueState, row: Row) -> State:
        """Where a message of this row is now."""
        if row.state is not None and row.state != State.READY:
            return State(row.state)
        if row.grp is not None and self.head(queue, row.grp) != row.id:
            return State.BLOCKED
        return State.READY

    def end(
        self,
        queue: QueueState,
        row: Row,
        how: str,
        *,
        place: State,
        outcome: bytes | None = None,
        holder: str | None = None,
    ) -> bool:
        """End one message that is at `place`; True if a record is kept."""
        kept = self.remember(queue, row, how, outcome, holder)
        if place is State.READY:
            ready.leave(self, [row])
        self.delete([row.id], row.token is not None)
        self.forget(queue, row, place)
        return kept

    def forget(self, queue: QueueState, row: Row, place: State) -> None:
        """Take a message that is deleted out of the counts and its group, and tell who waits for its end."""
        self.count(queue, place, -1)
        if row.expires is not None:
            self.count(queue, EXPIRING, -1)
        if place is not State.DEAD:
            self.leave_group(queue, row)
        self.ended.append(row.id)

    def delete(self, ids: Sequence[int], delivered: bool) -> None:
        if len(ids) == 1:
            self.db.execute("DELETE FROM messages WHERE id = ?", ids)
            if delivered:
                self.db.execute("DELETE FROM deliveries WHERE id = ?", ids)
        elif ids:
            self.db.execute("DELETE FROM messages WHERE id IN carray(?)", (numbers(ids),))
            if delivered:
                self.db.execute("DELETE FROM deliveries WHERE id IN carray(?)", (numbers(ids),))

    def remember(
        self, queue: QueueState, row: Row, how: str, outcome: bytes | None, holder: str | None = None
    ) -> bool:
        """Keep a record of a message that ends, if its queue or its outcome asks for one."""
        keep = queue.settings.history_seconds
        if outcome is not None:
            keep = max(keep, queue.settings.outcome_ttl_seconds)
        if keep <= 0:
            return False
        events = events_of(row)
        event: dict[str, Any] = {"event": how, "at": rfc3339(self.now).decode()}
        if holder:
            event["by"] = holder
        events.append(event)
        record = {
            "queue": row.home or queue.number,
            "in_queue": queue.name,
            "state": how,
            "at": row.at,
            "deliveries": (row.count or 0) + (how == "received"),
            "priority": 9 - row.rank,
            "group": row.grp,
            "headers": row.headers,
            "events": events,
            "ended_at": self.now,
            "outcome": outcome.decode() if outcome is not None else None,
        }
        until = self.now + round(keep * 1000)
        self.db.execute(
            "INSERT OR REPLACE INTO ended (id, token, until, life) VALUES (?, ?, ?, ?)",
            (row.id, (row.token or 0) if how == "acknowledged" else 0, until, _encode(record)),
        )
        self.falls_due(until)
        return True
