"""One transaction of the writer: the connection, and all that must happen if and only if it commits."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import apsw
import msgspec

from windlass.clock import rfc3339
from windlass.message import Message, State
from windlass.store.sqlite.counts import difference
from windlass.store.sqlite.memory import EXPIRING, GROUPED, Memory, QueueState

RESERVE = 1_000_000
"""Numbers reserved at a time: a crash leaves a gap, never a number given out twice."""

_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, array_like=True, gc=False):
    """A living message as the writer handles it: ids and small columns; the content beside it."""

    id: int
    generation: int
    seq: int
    at: int
    rank: int
    grp: str | None
    headers: str | None
    expires: int | None
    home: int | None
    origin: int | None
    token: int | None
    """None: it has no row in `deliveries`."""
    count: int | None
    base: int | None
    state: int | None
    due: int | None
    since: int | None
    holder: str | None
    lapsed: int | None
    life: str | None
    size: int
    content: bytes = b""

    def message(
        self, queue: QueueState, *, handed_out: bool = False, delivery: int = 0, lease_until: int = 0
    ) -> Message:
        return Message(
            self.home or queue.number,
            self.id,
            self.content,
            self.at,
            (self.count or 0) + handed_out,
            9 - self.rank,
            self.grp,
            self.headers.encode() if self.headers is not None else None,
            delivery,
            lease_until,
        )


_decode_rows = msgspec.json.Decoder(list[Row]).decode

# One row of JSON for all messages, and their contents end to end: the interpreter's lock is let go and
# taken once a statement, not once a message, while the event loop wants it too.
COLUMNS = """
    SELECT json_group_array(json_array(id, generation, seq, at, rank, grp, headers, expires, home, origin,
               token, count, base, state, due, since, holder, lapsed, life, length(content))),
           CAST(group_concat(CAST(content AS TEXT), '') AS BLOB)
      FROM (SELECT m.id AS id, m.generation AS generation, m.seq AS seq, m.at AS at, m.rank AS rank,
                   m.grp AS grp, CAST(m.headers AS TEXT) AS headers, m.expires AS expires, m.home AS home,
                   m.origin AS origin, d.token AS token, d.count AS count, d.base AS base,
                   d.state AS state, d.due AS due, d.since AS since, d.holder AS holder,
                   d.lapsed AS lapsed, d.life AS life, {content} AS content
              FROM {source})
"""
WITH_CONTENT = "m.content"
WITHOUT_CONTENT = "x''"

BY_ID = COLUMNS.format(
    content=WITHOUT_CONTENT,
    source="carray(?1) c CROSS JOIN messages m ON m.id = c.value LEFT JOIN deliveries d ON d.id = m.id",
)


def fetch(db: apsw.Connection, sql: str, bindings: Sequence[Any] | dict[str, Any]) -> list[Row]:
    """Run a query made from COLUMNS."""
    text, contents = next(db.execute(sql, bindings))
    rows = _decode_rows(text)
    if contents:
        start = 0
        for row in rows:
            end = start + row.size
            row.content = contents[start:end]
            start = end
    return rows


def numbers(ids: Iterable[int]) -> Any:
    """Many numbers as one binding: `x IN carray(?)`."""
    return apsw.carray(array("q", ids))


@lru_cache(maxsize=256)
def values(prefix: str, row: str, count: int, suffix: str = "") -> str:
    """An INSERT of `count` rows in one statement."""
    return f"{prefix} VALUES {','.join([row] * count)} {suffix}"


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

    def plain(self, queue: QueueState) -> bool:
        """queue.plain as this transaction sees it."""
        row = self.differences.get(queue.number)
        if row and (row[EXPIRING] or row[GROUPED]):
            return not self.counted(queue, EXPIRING) and not self.counted(queue, GROUPED) and queue.plain
        return queue.plain

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

    def insert_ready(self, queue: QueueState, number: int, seq: int, rank: int) -> None:
        self.db.execute(
            "INSERT INTO ready (generation, rank, seq, id) VALUES (?, ?, ?, ?)",
            (queue.generation, rank, seq, number),
        )
        self.became_ready(queue)

    def head(self, queue: QueueState, group: str) -> int | None:
        """The number of the first living message of a group."""
        row = self.db.execute(
            "SELECT id FROM grouped WHERE generation = ? AND grp = ? ORDER BY seq LIMIT 1",
            (queue.generation, group),
        ).fetchone()
        return row[0] if row else None

    def enter(self, queue: QueueState, number: int, seq: int, rank: int, group: str | None) -> None:
        """A message without delay comes into a queue: it is ready, or blocked behind its group."""
        if group is not None:
            self.join_group(queue, number, seq, group)
            if self.head(queue, group) != number:
                self.count(queue, State.BLOCKED, 1)
                return
        self.insert_ready(queue, number, seq, rank)

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
            "SELECT m.id, m.seq, m.rank, d.state FROM grouped g JOIN messages m ON m.id = g.id"
            " LEFT JOIN deliveries d ON d.id = m.id"
            " WHERE g.generation = ? AND g.grp = ? ORDER BY g.seq LIMIT 1",
            (queue.generation, row.grp),
        ).fetchone()
        if following is not None:
            number, seq, rank, state = following
            if state != State.DELAYED:
                self.count(queue, State.BLOCKED, -1)
                self.insert_ready(queue, number, seq, rank)

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
        """End one message that is at `place`; True if a record is kept. `ready` is cleaned here too."""
        kept = self.remember(queue, row, how, outcome, holder)
        if place is State.READY:
            self.db.execute(
                "DELETE FROM ready WHERE generation = ? AND rank = ? AND seq = ?",
                (queue.generation, row.rank, row.seq),
            )
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


def events_of(row: Row) -> list[dict[str, Any]]:
    """A living message's past: sent, and what `life` kept, and the lease that runs."""
    events: list[dict[str, Any]] = [{"event": "sent", "at": rfc3339(row.at).decode()}]
    if row.life:
        for event in msgspec.json.decode(f"[{row.life}]"):
            for name in ("at", "until"):
                if isinstance(event.get(name), int):
                    event[name] = rfc3339(event[name]).decode()
            events.append(event)
    if row.state == State.LEASED and row.since is not None and row.due is not None:
        events.append(
            {
                "event": "leased",
                "at": rfc3339(row.since).decode(),
                "until": rfc3339(row.due).decode(),
                "by": row.holder,
            }
        )
    elif row.state == State.DELAYED and row.due is not None:
        events.append({"event": "delayed", "until": rfc3339(row.due).decode()})
    return events
