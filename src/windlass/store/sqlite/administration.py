"""Verbs that people call, not programs in a loop: queues come, change and go; redrive, cancel, keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from windlass.errors import Conflict, MessageGone, MessageLeased
from windlass.message import QueueInfo, QueueSettings, State
from windlass.store.base import Key, Runner
from windlass.store.refusals import compare, in_use, no_letter, own_letter, purged_lately
from windlass.store.sqlite import ready
from windlass.store.sqlite.callers import write_key, write_runner
from windlass.store.sqlite.memory import EXPIRING, GROUPED, Memory, QueueState, encode_settings
from windlass.store.sqlite.past import longer
from windlass.store.sqlite.rows import BY_ID, Row, columns, fetch, numbers
from windlass.store.sqlite.settling import move
from windlass.store.sqlite.transaction import Transaction

_BITE = 64
_DEAD_HERE = columns(
    "deliveries d CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.generation = ?1 AND d.state = 3 ORDER BY d.since, d.id LIMIT ?2",
)
# Letters that are ready, those of one queue after those of another; ?3 is the queue, or it is all of them.
_DEAD_LETTERS = columns(
    "messages m INDEXED BY messages_origin LEFT JOIN deliveries d ON d.id = m.id"
    " WHERE m.generation = ?1 AND m.origin BETWEEN ?3 AND ?4 AND EXISTS"
    " (SELECT 1 FROM ready r WHERE r.generation = ?1 AND r.rank = m.rank AND r.seq = m.seq)"
    " ORDER BY m.origin, m.seq LIMIT ?2",
)
_ANY = (0, 1 << 62)


def create_queue(tx: Transaction, name: str, named: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
    existing = tx.memory.by_name.get(name)
    if existing is not None:
        compare(name, existing.settings, named)
        return existing.info(tx.now // 1000), False
    settings = _settings(tx, name, QueueSettings(), named)
    queue = QueueState(_next(tx, "next_queue"), name, _next(tx, "next_generation"), settings, False, tx.now)
    tx.db.execute(
        "INSERT INTO queues (id, name, generation, settings, created_at) VALUES (?, ?, ?, ?, ?)",
        (queue.number, name, queue.generation, encode_settings(settings).decode(), tx.now),
    )
    tx.on_commit.append(lambda: tx.memory.put(queue))
    return queue.info(tx.now // 1000), True


def _next(tx: Transaction, name: str) -> int:
    """A number that was never given out: queues and generations are few, so each is written."""
    row = tx.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    number = row[0] if row else 1
    tx.set_meta(name, number + 1)
    return int(number)


def check_dead_letter(memory: Memory, name: str, settings: Mapping[str, Any]) -> None:
    """Raise Invalid where settings for queue `name` send its dead letters to itself, or to no queue."""
    target = settings.get("dead_letter")
    if target is not None and target == name:
        raise own_letter()
    if target is not None and target not in memory.by_name:
        raise no_letter(target)


def _settings(tx: Transaction, name: str, old: QueueSettings, changes: Mapping[str, Any]) -> QueueSettings:
    check_dead_letter(tx.memory, name, changes)
    if changes.get("retention_seconds") is not None:
        tx.falls_due(tx.now)  # from now on upkeep looks at this queue
    return msgspec.structs.replace(old, **changes)


def update_queue(
    tx: Transaction,
    name: str,
    changes: Mapping[str, Any],
    paused: bool | None,
    was: QueueSettings | None = None,
) -> QueueInfo:
    queue = tx.memory.queue(name)
    if was is not None and queue.settings != was:
        raise Conflict(f"Queue {name!r} has been changed since it was looked at.")
    settings = _settings(tx, name, queue.settings, changes)
    halted = queue.paused if paused is None else paused
    tx.db.execute(
        "UPDATE queues SET settings = ?, paused = ? WHERE id = ?",
        (encode_settings(settings).decode(), halted, queue.number),
    )
    if queue.paused and not halted:  # waiting receives find what lay there all the time
        waiting = queue.counts[State.READY]
        if waiting:
            tx.ready[name] = tx.ready.get(name, 0) + waiting

    def commit() -> None:
        tx.memory.configure(queue, settings)
        queue.paused = halted

    tx.on_commit.append(commit)
    changed = QueueState(queue.number, name, queue.generation, settings, halted, queue.created_at)
    changed.counts, changed.ins, changed.outs = queue.counts, queue.ins, queue.outs
    return changed.info(tx.now // 1000)


def delete_queue(tx: Transaction, name: str) -> None:
    queue = tx.memory.queue(name)
    for other in tx.memory.by_name.values():
        if other.settings.dead_letter == name and other is not queue:
            raise in_use(name, by=other.name)
    _abandon(tx, queue)
    tx.db.execute("DELETE FROM queues WHERE id = ?", (queue.number,))
    tx.db.execute("DELETE FROM counts WHERE queue = ?", (queue.number,))
    tx.on_commit.append(lambda: tx.memory.remove(queue))


def purge(tx: Transaction, name: str, apart: int) -> int:
    queue = tx.memory.queue(name)
    if apart and queue.purged_at is not None and tx.now < queue.purged_at + apart:
        raise purged_lately(name)
    amount = tx.length(queue)
    generation = _next(tx, "next_generation")
    _abandon(tx, queue)
    tx.db.execute("UPDATE queues SET generation = ? WHERE id = ?", (generation, queue.number))

    def commit() -> None:
        tx.memory.regenerate(queue, generation)
        if apart:
            queue.purged_at = tx.now

    tx.on_commit.append(commit)
    return amount


def _abandon(tx: Transaction, queue: QueueState) -> None:
    """Leave a queue's rows to upkeep: from this commit on nobody sees them."""
    generation = queue.generation
    tx.db.execute("INSERT INTO abandoned_generations (generation) VALUES (?)", (generation,))
    for kind in (*State, EXPIRING, GROUPED):
        tx.count(queue, kind, -tx.counted(queue, kind))
    tx.falls_due(tx.now)


def cancel(
    tx: Transaction,
    name: str,
    number: int,
    leased: bool,
    how: str,
    outcome: bytes | None,
) -> None:
    tx.memory.queue(name)
    rows = fetch(tx.db, BY_ID, (numbers([number]),))
    queue = tx.memory.by_generation.get(rows[0].generation) if rows else None
    if queue is None or queue.name != name:
        raise MessageGone
    place = tx.place(queue, rows[0])
    if place is State.LEASED and not leased:
        raise MessageLeased("The message is leased. Wait until its lease is over, or acknowledge it.")
    tx.end(queue, rows[0], how, place=place, outcome=outcome, tell=outcome is not None)


def redrive(tx: Transaction, name: str, limit: int) -> tuple[int, bool]:
    """A bite of a redrive: own dead, then letters that came here, then own letters elsewhere."""
    queue = tx.memory.queue(name)
    limit = min(limit, _BITE)
    rows = fetch(tx.db, _DEAD_HERE, (queue.generation, limit))
    for row in rows:  # a letter that died once more here goes back too
        _restart(tx, queue, tx.memory.by_number.get(row.origin or 0, queue), row, place=State.DEAD)
    if rows:
        return len(rows), False
    rows = fetch(tx.db, _DEAD_LETTERS, (queue.generation, limit, *_ANY))
    source = queue
    if not rows and queue.settings.dead_letter is not None:
        source = tx.memory.queue(queue.settings.dead_letter)
        rows = fetch(tx.db, _DEAD_LETTERS, (source.generation, limit, queue.number, queue.number))
    for row in rows:
        # A letter whose queue is gone stays a message of this one.
        target = tx.memory.by_number.get(row.origin or 0, source)
        _restart(tx, source, target, row, place=State.READY)
    return len(rows), not rows


def _restart(tx: Transaction, source: QueueState, target: QueueState, row: Row, place: State) -> None:
    """Give a dead message a new start at the end of a queue: same id, no deliveries, a new number."""
    seq = tx.allocate(1)
    if place is State.READY:
        ready.leave(tx, [row])
        tx.leave_group(source, row)
    tx.count(source, place, -1)
    move(tx, row, source, target, origin=None)
    tx.db.execute("UPDATE messages SET seq = ?, at = ? WHERE id = ?", (seq, tx.now, row.id))
    event = f'{{"event":"redriven","at":{tx.now}}}'
    tx.db.execute(
        "UPDATE deliveries SET generation = ?, state = 0, due = NULL, since = NULL, count = 0, base = 0,"
        " life = ? WHERE id = ?",
        (target.generation, longer(row.life, event), row.id),
    )
    tx.enter(target, row.id, seq, row.rank, row.grp, row.expires)


def add_key(tx: Transaction, key: Key) -> None:
    write_key(tx.db, key)


def remove_key(tx: Transaction, key_id: str) -> bool:
    tx.db.execute("DELETE FROM keys WHERE id = ?", (key_id,))
    return tx.db.changes() > 0


def told(tx: Transaction, number: int, keep: int) -> None:
    until = tx.now + keep
    tx.db.execute(
        "UPDATE ended SET untold = NULL, until = ? WHERE id = ? AND untold IS NOT NULL", (until, number)
    )
    known = tx.db.changes()
    tx.db.execute(
        "UPDATE deliveries SET claim = NULL, due = ? WHERE id = ? AND state = 3 AND claim IS NOT NULL",
        (until, number),
    )
    if known or tx.db.changes():
        tx.falls_due(until)


def add_runner(tx: Transaction, runner: Runner) -> Runner:
    numbered = msgspec.structs.replace(runner, number=_next(tx, "next_runner"))
    write_runner(tx.db, numbered)
    return numbered


def seen_runner(tx: Transaction, number: int, at: int) -> None:
    tx.db.execute("UPDATE runners SET seen_at = ? WHERE id = ?", (at, number))


def remove_runner(tx: Transaction, number: int) -> None:
    tx.db.execute("DELETE FROM runners WHERE id = ?", (number,))
