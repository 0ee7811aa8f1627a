"""What ends a delivery: acknowledge, extend, release, and a lease that runs out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.errors import ReceiptGone, ReceiptStale, WindlassError
from windlass.message import Acknowledgement, Settled, State
from windlass.store.sqlite import ready
from windlass.store.sqlite.memory import EXPIRING, QueueState
from windlass.store.sqlite.operation import Acknowledge
from windlass.store.sqlite.rows import BY_ID, SETTLING_BY_ID, Row, fetch, numbers
from windlass.store.sqlite.transaction import Transaction

_LIFE_LIMIT = 4_000
"""Characters of past events kept of one message; what follows is not recorded."""


def acknowledge(tx: Transaction, operations: Sequence[Acknowledge]) -> None:
    """Settle all acknowledgements of a commit with a handful of statements."""
    wanted: list[Acknowledge] = []
    recording = False
    for op in operations:
        try:
            queue = tx.memory.queue(op.queue)
            recording |= queue.remembers or any(ack.outcome is not None for ack in op.acknowledgements)
            wanted.append(op)
        except WindlassError as error:
            op.error = error
    ids = [ack.number for op in wanted for ack in op.acknowledgements]
    if not ids:
        for op in wanted:
            op.result = []
        return
    rows = {row.id: row for row in fetch(tx.db, BY_ID if recording else SETTLING_BY_ID, (numbers(ids),))}
    done: dict[int, tuple[int, bool]] = {}
    for op in wanted:
        op.result = [_settle(tx, op.queue, ack, rows, done) for ack in op.acknowledgements]
    tx.delete(list(done), delivered=True)


def _settle(
    tx: Transaction,
    name: str,
    ack: Acknowledgement,
    rows: dict[int, Row],
    done: dict[int, tuple[int, bool]],
) -> Settled:
    """Judge one receipt. `done` are those acknowledged before it in this commit: delivery, record kept."""
    if ack.number in done:
        delivery, kept = done[ack.number]
        return Settled.ACKNOWLEDGED if kept and delivery == ack.delivery else Settled.GONE
    row = rows.get(ack.number)
    if row is None:
        record = tx.db.execute(
            "SELECT token FROM ended WHERE id = ? AND until > ?", (ack.number, tx.now)
        ).fetchone()
        return Settled.ACKNOWLEDGED if record and record[0] == ack.delivery else Settled.GONE
    queue = tx.memory.by_generation.get(row.generation)
    if queue is None:
        return Settled.GONE  # purged, or deleted with its queue
    if queue.name != name or not _holds(tx, row, ack.delivery):
        return Settled.STALE
    kept = (queue.remembers or ack.outcome is not None) and tx.remember(
        queue, row, "acknowledged", ack.outcome
    )
    done[row.id] = (ack.delivery, kept)
    tx.forget(queue, row, State.LEASED)
    tx.outs[queue.number] = tx.outs.get(queue.number, 0) + 1
    return Settled.ACKNOWLEDGED


def _holds(tx: Transaction, row: Row, delivery: int) -> bool:
    """True while this delivery's lease runs. Only its deadline decides."""
    return row.state == State.LEASED and row.token == delivery and row.due is not None and row.due > tx.now


def _held(tx: Transaction, name: str, number: int, delivery: int) -> tuple[QueueState, Row]:
    tx.memory.queue(name)
    rows = fetch(tx.db, BY_ID, (numbers([number]),))
    queue = tx.memory.by_generation.get(rows[0].generation) if rows else None
    if queue is None:
        raise ReceiptGone
    if queue.name != name or not _holds(tx, rows[0], delivery):
        raise ReceiptStale
    return queue, rows[0]


def extend(tx: Transaction, name: str, number: int, delivery: int, lease: int) -> int:
    """Make the lease end `lease` ms from now."""
    _held(tx, name, number, delivery)
    due = tx.now + lease
    tx.db.execute("UPDATE deliveries SET due = ? WHERE id = ?", (due, number))
    tx.falls_due(due)
    return due


def release(tx: Transaction, name: str, number: int, delivery: int, delay: int) -> None:
    """Give the message back."""
    queue, row = _held(tx, name, number, delivery)
    end_delivery(tx, queue, row, "given_back", delay)


def end_delivery(tx: Transaction, queue: QueueState, row: Row, how: str, delay: int = 0) -> None:
    """A delivery failed: the message is ready again, or delayed, or has had its last chance."""
    over = row.lapsed or (row.expires is not None and row.expires <= tx.now)
    if over or row.at <= queue.cutoff(tx.now):
        tx.end(queue, row, "expired", place=State.LEASED)
        return
    life = _longer(row.life, _lease_event(row), f'{{"event":"{how}","at":{tx.now}}}')
    limit = queue.settings.max_deliveries
    if limit is not None and (row.count or 0) - (row.base or 0) >= limit:
        die(tx, queue, row, life)
        return
    tx.count(queue, State.LEASED, -1)
    due = tx.now + delay if delay else None
    state = State.DELAYED if delay else State.READY
    tx.db.execute(
        "UPDATE deliveries SET state = ?, due = ?, since = NULL, holder = NULL, life = ? WHERE id = ?",
        (int(state), due, life, row.id),
    )
    if due is not None:
        tx.count(queue, State.DELAYED, 1)
        tx.falls_due(due)
    elif row.grp is not None and tx.head(queue, row.grp) != row.id:  # a dead letter came before it
        tx.count(queue, State.BLOCKED, 1)
    else:
        ready.enter(tx, queue, row.id, row.seq, row.rank, row.expires)


def die(tx: Transaction, queue: QueueState, row: Row, life: str) -> None:
    """After its last delivery a message goes to the dead-letter queue, or stays as dead."""
    tx.leave_group(queue, row)
    if row.expires is not None:
        # A dead letter is kept for people to look at: its ttl ends with its life.
        tx.db.execute("UPDATE messages SET expires = NULL WHERE id = ?", (row.id,))
        tx.count(queue, EXPIRING, -1)
    tx.count(queue, State.LEASED, -1)
    name = queue.settings.dead_letter
    target = tx.memory.by_name.get(name) if name is not None else None
    event = f'{{"event":"dead","at":{tx.now},"reason":"max_deliveries","deliveries":{row.count}'
    if target is None:
        tx.db.execute(
            "UPDATE deliveries SET state = ?, due = NULL, since = ?, holder = NULL, life = ? WHERE id = ?",
            (int(State.DEAD), row.at, _longer(life, event + "}"), row.id),
        )
        tx.count(queue, State.DEAD, 1)
        return
    life = _longer(life, event + f',"from":"{queue.name}","to":"{target.name}"}}')
    tx.db.execute(
        "UPDATE deliveries SET generation = ?, state = 0, due = NULL, since = NULL, holder = NULL,"
        " base = count, life = ? WHERE id = ?",
        (target.generation, life, row.id),
    )
    move(tx, row, queue, target, origin=queue.number)
    tx.enter(target, row.id, row.seq, row.rank, row.grp, None)


def move(tx: Transaction, row: Row, source: QueueState, target: QueueState, origin: int | None) -> None:
    """The message's row goes to another queue; whoever calls places it there."""
    home = row.home or source.number
    tx.db.execute(
        "UPDATE messages SET generation = ?, home = ?, origin = ? WHERE id = ?",
        (target.generation, home if home != target.number else None, origin, row.id),
    )


def _lease_event(row: Row) -> str:
    holder = msgspec.json.encode(row.holder or "").decode()
    return f'{{"event":"leased","at":{row.since or 0},"until":{row.due or 0},"by":{holder}}}'


def _longer(life: str | None, *events: str) -> str:
    """`life` with more events, as long as there is room."""
    text = ",".join((life, *events) if life else events)
    return text if len(text) <= _LIFE_LIMIT or not life else life
