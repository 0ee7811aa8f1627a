"""send: many requests become few statements."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from windlass.errors import IdempotencyFull, IdempotencyKeyReused, QueueFull, TooLarge, WindlassError
from windlass.message import Options, Sent, State
from windlass.store.operation import Send
from windlass.store.sqlite import ready
from windlass.store.sqlite.changes import FEW, Change
from windlass.store.sqlite.memory import EXPIRING, QueueState
from windlass.store.sqlite.ready import PLAIN_RANK
from windlass.store.sqlite.transaction import Transaction

ANSWER_KEPT = 24 * 3600 * 1000
"""How long an Idempotency-Key is remembered, ms."""
MAX_ANSWERS = 1_000_000
"""Idempotency-Keys remembered at most."""

_encode = msgspec.json.Encoder().encode
_decode_sent = msgspec.json.Decoder(Sent).decode


def send(tx: Transaction, operations: Sequence[Send]) -> None:
    """Run all sends of a commit: plain ones together, the others message by message."""
    plain: list[tuple[QueueState, Send]] = []
    special: list[tuple[QueueState, Send]] = []
    coming: dict[str, int] = {}
    for op in operations:
        try:
            queue = tx.memory.queue(op.queue)
            if op.options is not None or op.once is not None:
                special.append((queue, op))
                continue
            _check_size(queue, op.contents)
            if queue.settings.max_length is not None:
                amount = len(op.contents)
                _check_room(tx, queue, amount, coming.get(op.queue, 0))
                coming[op.queue] = coming.get(op.queue, 0) + amount
            plain.append((queue, op))
        except WindlassError as error:
            op.error = error
    if plain:
        _send_plain(tx, plain)
    for queue, op in special:
        try:
            op.result = _send_special(tx, queue, op)
        except WindlassError as error:
            op.error = error


def _check_size(queue: QueueState, contents: Sequence[bytes]) -> None:
    largest = len(contents[0]) if len(contents) == 1 else max(map(len, contents), default=0)
    if largest > queue.settings.max_message_bytes:
        raise TooLarge(
            f"The content has {largest:,} bytes; queue {queue.name!r} takes at most"
            f" {queue.settings.max_message_bytes:,} (max_message_bytes).",
            field="content",
        )


def _check_room(tx: Transaction, queue: QueueState, amount: int, coming: int = 0) -> None:
    settings = queue.settings
    if settings.max_length is not None and tx.length(queue) + coming + amount > settings.max_length:
        raise QueueFull(
            f"Queue {queue.name!r} holds {tx.length(queue) + coming:,} messages of at most"
            f" {settings.max_length:,} (max_length). Try again when some have left.",
            retry_after=1,
        )


def _send_plain(tx: Transaction, sends: Sequence[tuple[QueueState, Send]]) -> None:
    """Messages without options: those of a queue have numbers one after the other."""
    by_queue: dict[QueueState, list[Send]] = {}
    amount = 0
    for queue, op in sends:
        by_queue.setdefault(queue, []).append(op)
        amount += len(op.contents)
    number = tx.allocate(amount)
    for queue, ops in by_queue.items():
        start = number
        contents: list[bytes] = []
        for op in ops:
            following = number + len(op.contents)
            op.result = Sent(queue.number, range(number, following))
            contents += op.contents
            number = following
        if len(contents) <= FEW:
            for n, content in enumerate(contents, start):
                tx.changes.add(Change.MESSAGE, n, queue.generation, tx.now, content)
        else:
            tx.db.execute(
                "INSERT OR ROLLBACK INTO messages (id, generation, seq, at, rank, content)"
                " SELECT ?1 + rowid, ?2, ?1 + rowid, ?3, 9, value FROM carray(?4)",
                (start - 1, queue.generation, tx.now, apsw.carray(tuple(contents))),
            )
        ready.append(tx, queue, start, len(contents))
        tx.ins[queue.number] = tx.ins.get(queue.number, 0) + len(contents)


def _send_special(tx: Transaction, queue: QueueState, op: Send) -> Sent:
    """Messages with options, or under an Idempotency-Key. Raises before it has written anything."""
    once = op.once
    if once is not None:
        known = _answered(tx, once.key)
        if known is not None and known[2] > tx.now:
            if known[0] != once.fingerprint:
                raise IdempotencyKeyReused(field="Idempotency-Key")
            return _decode_sent(known[1])
        if known is None and tx.memory.answers + tx.answers >= MAX_ANSWERS:
            raise IdempotencyFull(
                f"{MAX_ANSWERS:,} Idempotency-Keys are remembered, the most there may be; each is kept 24 h.",
                retry_after=60,
            )
    options_of = op.options or [Options()] * len(op.contents)
    _check_size(queue, op.contents)
    new = _count_new(tx, queue, options_of)
    if new:  # what is there already takes no room
        _check_room(tx, queue, new)
    numbers: list[int] = []
    duplicates: list[bool] = []
    for content, options in zip(op.contents, options_of, strict=True):
        known_number = _known(tx, queue, options.dedup_id)
        if known_number is None:
            number = tx.allocate(1)
            _insert(tx, queue, number, content, options)
            numbers.append(number)
        else:
            numbers.append(known_number)
        duplicates.append(known_number is not None)
    sent = Sent(queue.number, numbers, duplicates if any(duplicates) else None)
    tx.ins[queue.number] = tx.ins.get(queue.number, 0) + len(numbers) - sum(duplicates)
    if once is not None:
        tx.db.execute(
            "INSERT OR REPLACE INTO answers (key, fingerprint, answer, until) VALUES (?, ?, ?, ?)",
            (once.key, once.fingerprint, _encode(sent), tx.now + ANSWER_KEPT),
        )
        tx.answers += known is None
        tx.falls_due(tx.now + ANSWER_KEPT)
    return sent


def _answered(tx: Transaction, key: bytes) -> tuple[bytes, bytes, int] | None:
    """(fingerprint, answer, until) of what was answered under this Idempotency-Key."""
    row: tuple[bytes, bytes, int] | None = tx.db.execute(
        "SELECT fingerprint, answer, until FROM answers WHERE key = ?", (key,)
    ).fetchone()
    return row


def _count_new(tx: Transaction, queue: QueueState, options_of: Sequence[Options]) -> int:
    """How many of these messages are not there yet under their dedup id."""
    if queue.settings.max_length is None:
        return 0
    ids = [options.dedup_id for options in options_of if options.dedup_id is not None]
    if queue.settings.dedup_window_seconds <= 0:
        return len(options_of)
    return len(options_of) - len(ids) + sum(_known(tx, queue, dedup_id) is None for dedup_id in set(ids))


def _known(tx: Transaction, queue: QueueState, dedup_id: str | None) -> int | None:
    """The number of the message first sent under this dedup id, inside the window."""
    if dedup_id is None:
        return None
    row = tx.db.execute(
        "SELECT id FROM dedup WHERE queue = ? AND dedup_id = ? AND until > ?",
        (queue.number, dedup_id, tx.now),
    ).fetchone()
    return row[0] if row else None


def _insert(tx: Transaction, queue: QueueState, number: int, content: bytes, options: Options) -> None:
    now, db, rank = tx.now, tx.db, PLAIN_RANK - options.priority
    expires = now + options.ttl if options.ttl is not None else None
    db.execute(
        "INSERT INTO messages (id, generation, seq, at, rank, content, grp, headers, expires)"
        " VALUES (?1, ?2, ?1, ?3, ?4, ?5, ?6, ?7, ?8)",
        (number, queue.generation, now, rank, content, options.group, options.headers, expires),
    )
    if expires is not None:
        tx.count(queue, EXPIRING, 1)
        tx.falls_due(expires)
    if options.dedup_id is not None and queue.settings.dedup_window_seconds > 0:
        until = now + round(queue.settings.dedup_window_seconds * 1000)
        db.execute(
            "INSERT OR REPLACE INTO dedup (queue, dedup_id, id, until) VALUES (?, ?, ?, ?)",
            (queue.number, options.dedup_id, number, until),
        )
        tx.falls_due(until)
    if options.delay:
        due = now + options.delay
        db.execute(
            "INSERT INTO deliveries (id, generation, state, due) VALUES (?, ?, ?, ?)",
            (number, queue.generation, int(State.DELAYED), due),
        )
        tx.falls_due(due)
        if options.group is not None:
            tx.join_group(queue, number, number, options.group)
        tx.count(queue, State.DELAYED, 1)
    else:
        tx.enter(queue, number, number, rank, options.group, expires)
