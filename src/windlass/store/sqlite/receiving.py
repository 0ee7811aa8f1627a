"""receive: take the first ready messages of a queue, for all requests of a commit at once."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.errors import WindlassError
from windlass.message import Message, State
from windlass.store.sqlite.memory import EXPIRING, QueueState
from windlass.store.sqlite.operation import Receive
from windlass.store.sqlite.transaction import (
    COLUMNS,
    WITH_CONTENT,
    Row,
    Transaction,
    fetch,
    numbers,
    values,
)

_FROM_READY = "ready r CROSS JOIN messages m ON m.id = r.id LEFT JOIN deliveries d ON d.id = r.id WHERE r.generation = ?1"
_HEADS = COLUMNS.format(content=WITH_CONTENT, source=_FROM_READY + " ORDER BY r.rank, r.seq LIMIT ?2")
_LIVING_HEADS = COLUMNS.format(
    content=WITH_CONTENT,
    source=_FROM_READY
    + " AND (m.expires IS NULL OR m.expires > ?3) AND m.at > ?4 ORDER BY r.rank, r.seq LIMIT ?2",
)
_LEASE = (
    "INSERT INTO deliveries (since, holder, due, id, generation, state, token, count)",
    "(?1, ?2, ?3, ?, ?, 1, ?, ?)",
    "ON CONFLICT (id) DO UPDATE SET since = excluded.since, holder = excluded.holder, due = excluded.due,"
    " state = 1, token = excluded.token, count = excluded.count",
)
_ROWS = 64
_ONE_BY_ONE = 16
"""Rows read at a time from a queue with groups, where a taken message may bring the next one up."""


def receive(tx: Transaction, operations: Sequence[Receive]) -> None:
    """Serve all receives of a commit, in the order in which they came."""
    by_queue: dict[str, list[Receive]] = {}
    for op in operations:
        if op.abandoned:
            op.result = []
        else:
            by_queue.setdefault(op.queue, []).append(op)
    for name, ops in by_queue.items():
        try:
            queue = tx.memory.queue(name)
        except WindlassError as error:
            for op in ops:
                op.error = error
            continue
        if queue.paused or tx.counted(queue, State.READY) <= 0:
            for op in ops:
                op.result = []
        elif tx.plain(queue):
            _serve_plain(tx, queue, ops)
        else:
            for op in ops:
                _serve(tx, queue, op)


def _serve_plain(tx: Transaction, queue: QueueState, ops: Sequence[Receive]) -> None:
    """No groups, no ttl: what is ready is a prefix, taken by one range and dealt out."""
    rows = fetch(tx.db, _HEADS, (queue.generation, sum(op.limit for op in ops)))
    if rows:
        last = rows[-1]
        tx.db.execute(
            "DELETE FROM ready WHERE generation = ? AND (rank, seq) <= (?, ?)",
            (queue.generation, last.rank, last.seq),
        )
        tx.count(queue, State.READY, -len(rows))
    removed: list[Row] = []
    start = 0
    for op in ops:
        mine = rows[start : start + op.limit]
        start += op.limit
        if op.lease is None:
            op.result = [row.message(queue, handed_out=True) for row in mine]
            removed += mine
        else:
            op.result = _lease(tx, queue, mine, op)
    if removed:
        _remove(tx, queue, removed, ops[0].holder)


def _serve(tx: Transaction, queue: QueueState, op: Receive) -> None:
    """With groups or ttls: what has expired is passed over, and a removal may bring up the next of its
    group, which then competes with the rest just as in a receive of its own."""
    op.result = []
    left = op.limit
    while left > 0:
        limit = min(left, _ONE_BY_ONE)
        taken = fetch(tx.db, _LIVING_HEADS, (queue.generation, limit, tx.now, cutoff(queue, tx.now)))
        if not taken:
            return
        if op.lease is None:
            grouped = next((n for n, row in enumerate(taken, 1) if row.grp is not None), len(taken))
            del taken[grouped:]
        left -= len(taken)
        keys = [value for row in taken for value in (queue.generation, row.rank, row.seq)]
        tx.db.execute(
            f"DELETE FROM ready WHERE (generation, rank, seq) IN ({values('', '(?, ?, ?)', len(taken))})",
            keys,
        )
        tx.count(queue, State.READY, -len(taken))
        if op.lease is None:
            op.result += [row.message(queue, handed_out=True) for row in taken]
            _remove(tx, queue, taken, op.holder)
        else:
            op.result += _lease(tx, queue, taken, op)


def cutoff(queue: QueueState, now: int) -> int:
    """Messages enqueued at this moment (ms) or before are past their queue's retention."""
    retention = queue.settings.retention_seconds
    return now - round(retention * 1000) if retention is not None else -1


def _remove(tx: Transaction, queue: QueueState, rows: Sequence[Row], holder: str) -> None:
    """Messages that are no longer in `ready` leave for good, handed out without a lease."""
    tx.delete([row.id for row in rows], any(row.token is not None for row in rows))
    tx.outs[queue.number] = tx.outs.get(queue.number, 0) + len(rows)
    if queue.remembers:
        for row in rows:
            tx.remember(queue, row, "received", None, holder)
    for row in rows:
        tx.ended.append(row.id)
        if row.expires is not None:
            tx.count(queue, EXPIRING, -1)
        if row.grp is not None:
            tx.leave_group(queue, row)


def _lease(tx: Transaction, queue: QueueState, rows: Sequence[Row], op: Receive) -> list[Message]:
    """Messages that are no longer in `ready` are leased."""
    if not rows:
        return []
    lease = queue.lease if op.lease == -1 else op.lease
    assert lease is not None
    due = tx.now + lease
    tx.falls_due(due)
    tx.count(queue, State.LEASED, len(rows))
    if len(rows) >= 8 and all(row.token is None for row in rows):
        tx.db.execute(
            "INSERT INTO deliveries (since, holder, due, id, generation, state, token, count)"
            " SELECT ?1, ?2, ?3, value, ?4, 1, 1, 1 FROM carray(?5)",
            (tx.now, op.holder, due, queue.generation, numbers(row.id for row in rows)),
        )
    else:
        for start in range(0, len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            bindings = [
                value
                for row in chunk
                for value in (row.id, queue.generation, (row.token or 0) + 1, (row.count or 0) + 1)
            ]
            tx.db.execute(
                values(_LEASE[0], _LEASE[1], len(chunk), _LEASE[2]), (tx.now, op.holder, due, *bindings)
            )
    return [
        row.message(queue, handed_out=True, delivery=(row.token or 0) + 1, lease_until=due) for row in rows
    ]
