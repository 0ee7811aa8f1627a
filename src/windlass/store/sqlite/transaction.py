"""One transaction of the writer: the connection, and all that must happen if and only if it commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec

from windlass.clock import rfc3339
from windlass.message import State
from windlass.store.sqlite import ready
from windlass.store.sqlite.changes import FEW, ROWS, Change, Changes
from windlass.store.sqlite.counts import difference
from windlass.store.sqlite.memory import EXPIRING, GROUPED, Memory, QueueState
from windlass.store.sqlite.rows import BY_ID, Row, events_of, fetch, numbers

RESERVE = 1_000_000
"""Numbers reserved at a time: a crash leaves a gap, never a number given out twice."""

FOR_EVER = 1 << 62
"""A time that does not come, ms."""

_encode = msgspec.json.Encoder().encode


class Transaction:
    """The state of one commit under way. Verbs call its methods; `differences` and the rest take effect
    in memory only when the commit is on disk.

    It begins when something first needs the database: most commits are the one statement of `changes`.
    """

    __slots__ = (
        "_begun", "answers", "appended", "as_it_is", "changes", "died", "differences", "due", "ended", "ins",
        "memory", "next_number", "now", "on_commit", "outs", "ready", "reserved",
    )  # fmt: skip

    def __init__(self, db: apsw.Connection, memory: Memory, now: int) -> None:
        self.as_it_is = db
        """The connection, to read what no change that is not yet written could touch."""
        self.changes = Changes()
        self.appended: dict[int, int] = {}
        """Generation -> how many messages at its end are among those changes; -1: its front changes too."""
        self._begun = False
        self.memory = memory
        self.now = now
        self.differences: dict[int, list[int]] = {}
        self.ready: dict[str, int] = {}
        self.ended: list[int] = []
        self.died: list[int] = []
        self.ins: dict[int, int] = {}
        self.outs: dict[int, int] = {}
        self.due: int | None = None
        self.answers = 0
        self.next_number = memory.next_number
        self.reserved = memory.reserved
        self.on_commit: list[Callable[[], None]] = []

    # --- the database ----------------------------------------------------------------------------------

    @property
    def db(self) -> apsw.Connection:
        """The connection, with all that was changed so far: to read anything, and to write."""
        if not self._begun:
            self.as_it_is.execute("BEGIN IMMEDIATE")
            self._begun = True
        if self.changes:
            self.changes.write(self.as_it_is)
            self.appended.clear()
        return self.as_it_is

    def front(self, queue: QueueState, amount: int) -> apsw.Connection:
        """The connection, to read the first `amount` ready messages of a queue."""
        appended = self.appended.get(queue.generation, 0)
        if appended and (appended < 0 or self.counted(queue, State.READY) - appended < amount):
            return self.db
        return self.as_it_is

    def commit(self) -> None:
        if self._begun or len(self.changes) > ROWS:
            self.db.execute("COMMIT")
        elif self.changes:
            self.changes.write(self.as_it_is)

    def rollback(self) -> None:
        if self.as_it_is.in_transaction:
            self.as_it_is.execute("ROLLBACK")

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
        self.changes.add(Change.META, name, value)

    # --- a message comes in, moves, and leaves --------------------------------------------------------

    def head(self, queue: QueueState, group: str) -> int | None:
        """The number of the first living message of a group."""
        row = self.as_it_is.execute(
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
        tell: bool = False,
    ) -> bool:
        """End one message that is at `place`; True if a record is kept."""
        kept = self.remember(queue, row, how, outcome, tell=tell)
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
        if len(ids) <= FEW:
            kind = Change.ENDED if delivered else Change.GONE
            for number in ids:
                self.changes.add(kind, number)
        else:
            self.db.execute("DELETE FROM messages WHERE id IN carray(?)", (numbers(ids),))
            if delivered:
                self.db.execute("DELETE FROM deliveries WHERE id IN carray(?)", (numbers(ids),))

    def remember(
        self,
        queue: QueueState,
        row: Row,
        how: str,
        outcome: bytes | None,
        holder: str | None = None,
        *,
        tell: bool = False,
    ) -> bool:
        """Keep a record of a message that ends, if its queue or its outcome asks for one.

        With `tell` it is kept until somebody says that it may go.
        """
        keep = queue.settings.history_seconds
        if outcome is not None:
            keep = max(keep, queue.settings.outcome_ttl_seconds)
        if keep <= 0 and not tell:
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
        until = FOR_EVER if tell else self.now + round(keep * 1000)
        token = (row.token or 0) if how == "acknowledged" else 0
        self.changes.add(Change.RECORD, row.id, token, until, _encode(record), tell or None)
        self.falls_due(until)
        return True
