"""What ends a delivery: acknowledge, extend, release, and a lease that runs out."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from windlass.errors import ReceiptGone, ReceiptStale, WindlassError
from windlass.message import Acknowledgement, Extension, Settled, State
from windlass.store.operation import Acknowledge, Extend
from windlass.store.sqlite import ready
from windlass.store.sqlite.changes import Change
from windlass.store.sqlite.memory import EXPIRING, Memory, QueueState
from windlass.store.sqlite.past import longer
from windlass.store.sqlite.rows import BY_ID, SETTLING_BY_ID, Row, fetch, numbers
from windlass.store.sqlite.transaction import Transaction

FORGIVEN = 10
"""Deliveries of a message that may be given back without counting, and as many that may run out unseen."""


def acknowledge(tx: Transaction, operations: Sequence[Acknowledge]) -> None:
    """Settle all acknowledgements of a commit with a handful of statements."""
    wanted: list[Acknowledge] = []
    recording = False
    for op in operations:
        try:
            queue = tx.memory.queue(op.queue)
            recording |= queue.remembers or any(
                ack.tell or ack.outcome is not None for ack in op.acknowledgements
            )
            wanted.append(op)
        except WindlassError as error:
            op.error = error
    ids = [ack.number for op in wanted for ack in op.acknowledgements]
    if not ids:
        for op in wanted:
            op.result = []
        return
    rows = {
        row.id: row for row in fetch(tx.as_it_is, BY_ID if recording else SETTLING_BY_ID, (numbers(ids),))
    }
    done: dict[int, tuple[Acknowledgement, bool]] = {}
    for op in wanted:
        op.result = [_settle(tx, op.queue, ack, rows, done) for ack in op.acknowledgements]
    tx.delete(list(done), delivered=True)


def _settle(
    tx: Transaction,
    name: str,
    ack: Acknowledgement,
    rows: dict[int, Row],
    done: dict[int, tuple[Acknowledgement, bool]],
) -> Settled:
    """Judge one receipt. `done`: what was acknowledged before it in this commit, and if a record is kept."""
    if ack.number in done:
        first, kept = done[ack.number]
        same = (first.delivery, first.holder) == (ack.delivery, ack.holder)
        return Settled.ACKNOWLEDGED if kept and same else Settled.GONE
    row = rows.get(ack.number)
    if row is None:
        return _settled_before(tx, ack)
    queue = tx.memory.by_generation.get(row.generation)
    if queue is None:
        return Settled.GONE  # purged, or deleted with its queue
    if queue.name != name:
        return Settled.STALE
    place = State.LEASED
    if not _holds(tx, row, ack.delivery, ack.holder):
        found = _after_its_lease(tx, queue, row, ack) if ack.late else Settled.STALE
        if isinstance(found, Settled):
            return found
        row, place = found, tx.place(queue, found)
        if place is State.READY:
            ready.leave(tx, [row])
    kept = (queue.remembers or ack.tell or ack.outcome is not None) and tx.remember(
        queue, row, "acknowledged", ack.outcome, ack.holder, tell=ack.tell
    )
    done[row.id] = (ack, kept)
    tx.forget(queue, row, place)
    tx.outs[queue.number] = tx.outs.get(queue.number, 0) + 1
    return Settled.ACKNOWLEDGED


def _settled_before(tx: Transaction, ack: Acknowledgement) -> Settled:
    """What is said of a message that has ended: to whoever repeats an acknowledgement, that it is done."""
    record = tx.as_it_is.execute(
        "SELECT token, life FROM ended WHERE id = ? AND until > ?", (ack.number, tx.now)
    ).fetchone()
    if record is None or not record[0]:
        return Settled.GONE
    if ack.holder is None:
        same = record[0] == ack.delivery
    else:
        same = msgspec.json.decode(record[1])["events"][-1].get("by") == ack.holder
    return Settled.ACKNOWLEDGED if same else Settled.GONE


def _holds(tx: Transaction, row: Row, delivery: int, holder: str | None = None) -> bool:
    """True while this delivery's, or this holder's, lease runs. Only its deadline decides."""
    if row.state != State.LEASED or row.due is None or row.due <= tx.now:
        return False
    return row.token == delivery if holder is None else row.holder == holder


def _after_its_lease(tx: Transaction, queue: QueueState, row: Row, ack: Acknowledgement) -> Row | Settled:
    """The message that a late acknowledgement ends, as it is now, or what is said of its receipt."""
    if ack.holder is not None or row.token != ack.delivery:
        return Settled.STALE
    rows = fetch(tx.db, BY_ID, (numbers([row.id]),))  # upkeep may have been at it in this commit
    if rows and rows[0].state == State.LEASED:  # or is behind: that comes first, it may have been its last
        end_delivery(tx, queue, rows[0], "lease_expired")
        rows = fetch(tx.db, BY_ID, (numbers([row.id]),))
    if not rows:
        return Settled.GONE
    lives_on = rows[0].state == State.DEAD or rows[0].generation != queue.generation
    return Settled.STALE if lives_on else rows[0]


def extend(tx: Transaction, operations: Sequence[Extend]) -> None:
    """Let all the leases of a commit go on, with one look and a change each."""
    wanted: list[Extend] = []
    for op in operations:
        try:
            if op.queue is not None:
                tx.memory.queue(op.queue)
            wanted.append(op)
        except WindlassError as error:
            op.error = error
    ids = [extension.number for op in wanted for extension in op.extensions]
    rows = {row.id: row for row in fetch(tx.as_it_is, SETTLING_BY_ID, (numbers(ids),))} if ids else {}
    for op in wanted:
        op.result = [_extend(tx, op.queue, extension, rows) for extension in op.extensions]


def _extend(tx: Transaction, name: str | None, extension: Extension, rows: dict[int, Row]) -> int | Settled:
    row = rows.get(extension.number)
    queue = tx.memory.by_generation.get(row.generation) if row is not None else None
    if row is None or queue is None:
        return Settled.GONE
    if name not in (None, queue.name) or not _holds(tx, row, extension.delivery, extension.holder):
        return Settled.STALE
    assert row.due is not None
    due = row.due if extension.lease is None else tx.now + extension.lease
    if extension.longest is not None and row.since is not None:
        due = min(due, row.since + extension.longest)
    tx.changes.add(Change.EXTEND, row.id, due)
    tx.falls_due(due)
    return due


def resume(db: apsw.Connection, memory: Memory, now: int) -> None:
    """Give each confirmed claim a whole lease from `now`: its holder could not extend it while no process
    was there. Before anything else happens to a store that opens."""
    due = [
        (now + queue.lease, number)
        for number, generation in db.execute(
            "SELECT id, generation FROM deliveries INDEXED BY deliveries_claimed"
            " WHERE claim IS NOT NULL AND tentative IS NULL AND state = 1"
        )
        if (queue := memory.by_generation.get(generation))
    ]
    with db:  # one commit
        db.executemany("UPDATE deliveries SET due = max(due, ?) WHERE id = ?", due)


def release(
    tx: Transaction,
    name: str,
    number: int,
    delivery: int,
    delay: int,
    holder: str | None,
    reason: str,
    counts: bool,
    last: bool,
) -> None:
    """Give the message back."""
    tx.memory.queue(name)
    rows = fetch(tx.db, BY_ID, (numbers([number]),))
    queue = tx.memory.by_generation.get(rows[0].generation) if rows else None
    if queue is None:
        raise ReceiptGone
    if queue.name != name or not _holds(tx, rows[0], delivery, holder):
        raise ReceiptStale
    end_delivery(tx, queue, rows[0], "given_back", delay, reason=reason, counts=counts, last=last)


def end_delivery(
    tx: Transaction,
    queue: QueueState,
    row: Row,
    how: str,
    delay: int = 0,
    *,
    reason: str = "",
    counts: bool = True,
    last: bool = False,
) -> None:
    """A delivery failed: the message is ready again, or delayed, or has had its last chance."""
    over = row.lapsed or (row.expires is not None and row.expires <= tx.now)
    if over or row.at <= queue.cutoff(tx.now):
        tx.end(queue, row, "expired", place=State.LEASED)
        return
    forgiven = not last and not counts and (row.forgiven or 0) < FORGIVEN
    # Who gives a message back has had it.
    unseen = how == "lease_expired" and bool(row.tentative) and (row.unseen or 0) < FORGIVEN
    free = forgiven or unseen
    why = f',"reason":{msgspec.json.encode(reason).decode()}' if reason else ""
    uncounted = ',"counts":false' if free else ""
    life = longer(row.life, _lease_event(row), f'{{"event":"{how}","at":{tx.now}{why}{uncounted}}}')
    limit = queue.settings.max_deliveries
    if last or (limit is not None and not free and (row.count or 0) - (row.base or 0) >= limit):
        die(tx, queue, row, life)
        return
    tx.count(queue, State.LEASED, -1)
    due = tx.now + delay if delay else None
    state = State.DELAYED if delay else State.READY
    tx.db.execute(
        "UPDATE deliveries SET state = ?2, due = ?3, since = NULL, holder = NULL, life = ?4, claim = NULL,"
        " tentative = NULL, count = count - ?5 - ?6, forgiven = forgiven + ?5, unseen = unseen + ?6"
        " WHERE id = ?1",
        (row.id, int(state), due, life, forgiven, unseen),
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
    tx.died.append(row.id)
    name = queue.settings.dead_letter
    target = tx.memory.by_name.get(name) if name is not None else None
    event = f'{{"event":"dead","at":{tx.now},"reason":"max_deliveries","deliveries":{row.count}'
    if target is None:
        tx.db.execute(
            "UPDATE deliveries SET state = ?, due = NULL, since = ?, holder = NULL, life = ?,"
            " tentative = NULL WHERE id = ?",
            (int(State.DEAD), row.at, longer(life, event + "}"), row.id),
        )
        tx.count(queue, State.DEAD, 1)
        return
    life = longer(life, event + f',"from":"{queue.name}","to":"{target.name}"}}')
    tx.db.execute(
        "UPDATE deliveries SET generation = ?, state = 0, due = NULL, since = NULL, holder = NULL,"
        " claim = NULL, tentative = NULL, base = count, life = ? WHERE id = ?",
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
