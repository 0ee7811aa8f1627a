"""What may leave a queue now, in the order in which it leaves: the tables `ready` and `fleeting`.

Finding the next message costs the same whatever lies before it that may not leave any more:

- A ready message with a ttl is in `fleeting`. `fleeting_blocks` knows the latest expiry in each run of 256
  numbers, so a block that is over is passed with one row, and upkeep deletes such rows before all else.
- What a retention ends is all that came before a moment. Numbers and times of entry rise together, so the
  last number that is past is found by halving, and remembered.

A queue without either has its next messages at the very front of `ready`, whose rows are runs: messages that
were sent one after the other and have not been touched since are one row, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from windlass.message import MAX_BATCH_BYTES
from windlass.store.sqlite.changes import Change
from windlass.store.sqlite.memory import EXPIRING, GROUPED, QueueState
from windlass.store.sqlite.rows import OF_RUN, Row, columns, fetch, few_columns, numbers

if TYPE_CHECKING:
    from windlass.store.sqlite.transaction import Transaction

PLAIN_RANK = 9
"""Of messages without a priority."""

_FRONT = (
    "ready r CROSS JOIN messages m ON m.id BETWEEN r.id AND r.id + r.amount - 1"
    " LEFT JOIN deliveries d ON d.id = m.id WHERE r.generation = ?1 ORDER BY r.rank, r.seq, m.id LIMIT ?2"
)
_FRONT_ROWS = columns(_FRONT, content=True, run=OF_RUN)
_PLAIN_ROWS = few_columns(_FRONT)
_FRONT_SIZE = f"SELECT sum(size) FROM (SELECT length(m.content) AS size FROM {_FRONT})"
# The first of each of many queues.
_FIRSTS = few_columns(
    "carray(?1) q CROSS JOIN ready r ON r.generation = q.value AND (r.rank, r.seq) ="
    " (SELECT rank, seq FROM ready WHERE generation = q.value ORDER BY rank, seq LIMIT 1)"
    " CROSS JOIN messages m ON m.id = r.id LEFT JOIN deliveries d ON d.id = m.id"
)
# Behind a number (?4): the run in which it lies leads on, without it.
_LIVING = """
    SELECT id, rank, seq FROM (
        SELECT m.id AS id, k.rank AS rank, m.seq AS seq
          FROM ranks k
         CROSS JOIN ready r ON r.generation = ?1 AND r.rank = k.rank AND r.seq >=
               coalesce((SELECT max(seq) FROM ready WHERE generation = ?1 AND rank = k.rank AND seq <= ?4), 0)
         CROSS JOIN messages m ON m.id BETWEEN r.id + max(0, ?4 + 1 - r.seq) AND r.id + r.amount - 1
         ORDER BY k.rank, r.seq, m.id LIMIT ?2)
    UNION ALL
    SELECT id, rank, seq FROM (
        SELECT f.id AS id, f.rank AS rank, f.seq AS seq
          FROM ranks k
         CROSS JOIN fleeting_blocks b
            ON b.generation = ?1 AND b.rank = k.rank AND b.block >= ?4 >> 8 AND b.latest > ?3
         CROSS JOIN fleeting f
            ON f.generation = ?1 AND f.rank = b.rank AND f.seq BETWEEN b.block << 8 AND (b.block << 8) + 255
               AND f.seq > ?4 AND f.expires > ?3
         ORDER BY k.rank, b.block, f.seq LIMIT ?2)
    ORDER BY rank, seq LIMIT ?2
"""
LIVING_ROWS = columns(
    f"({_LIVING}) r CROSS JOIN messages m ON m.id = r.id LEFT JOIN deliveries d ON d.id = r.id"
    " ORDER BY r.rank, r.seq",
    content=True,
)
_LIVING_SIZE = f"SELECT sum(length(m.content)) FROM ({_LIVING}) r CROSS JOIN messages m ON m.id = r.id"
FITTING = (
    "SELECT count(*) FROM (SELECT sum(length(m.content)) OVER (ORDER BY r.rank, r.seq) AS total"
    f" FROM ({_LIVING}) r CROSS JOIN messages m ON m.id = r.id) WHERE total <= {MAX_BATCH_BYTES}"
)
# The first message of rank k in a run behind the number ?2: the run in which that lies, or the one after it.
_NEXT_IN_RUNS = """
      ready r ON r.generation = ?1 AND r.rank = k.rank AND r.seq = coalesce(
            (SELECT seq
               FROM (SELECT seq, amount FROM ready WHERE generation = ?1 AND rank = k.rank AND seq <= ?2
                      ORDER BY seq DESC LIMIT 1)
              WHERE seq + amount - 1 > ?2),
            (SELECT min(seq) FROM ready WHERE generation = ?1 AND rank = k.rank AND seq > ?2))
 CROSS JOIN messages m ON m.id = r.id + max(0, ?2 + 1 - r.seq)
"""
_BEHIND = f"""
    SELECT m.seq, m.at FROM ranks k CROSS JOIN {_NEXT_IN_RUNS}
    UNION ALL
    SELECT f.seq, m.at
      FROM ranks k
     CROSS JOIN fleeting f
        ON f.generation = ?1 AND f.rank = k.rank
           AND f.seq = (SELECT min(seq) FROM fleeting WHERE generation = ?1 AND rank = k.rank AND seq > ?2)
     CROSS JOIN messages m ON m.id = f.id
"""
# The oldest of a rank is its first, among those with a ttl the first of a block that is not over.
_OLDEST = f"""
    SELECT min(at) FROM (
        SELECT m.at FROM ranks k CROSS JOIN {_NEXT_IN_RUNS}
        UNION ALL
        SELECT (SELECT m.at
                  FROM fleeting_blocks b
                 CROSS JOIN fleeting f ON f.generation = ?1 AND f.rank = k.rank
                       AND f.seq BETWEEN b.block << 8 AND (b.block << 8) + 255 AND f.seq > ?2
                       AND f.expires > ?3
                 CROSS JOIN messages m ON m.id = f.id
                 WHERE b.generation = ?1 AND b.rank = k.rank AND b.block >= ?2 >> 8 AND b.latest > ?3
                 ORDER BY b.block, f.seq LIMIT 1)
          FROM ranks k)
"""


def heads(tx: Transaction, queue: QueueState, limit: int, *, timeless: bool) -> list[Row]:
    """The next messages to leave, at most `limit`: by leave_front where `timeless`, by leave elsewhere."""
    if timeless:
        plain = is_plain(tx, queue)
        front = tx.front(queue, limit)
        return fetch(front, _PLAIN_ROWS if plain else _FRONT_ROWS, (queue.generation, limit))
    queue.past = past(tx.db, queue, tx.now)
    return fetch(tx.db, LIVING_ROWS, (queue.generation, limit, tx.now, queue.past))


def firsts(tx: Transaction, queues: Sequence[QueueState]) -> list[Row]:
    """The first message of each of these timeless and plain queues, if it has one."""
    for queue in queues:
        tx.front(queue, 1)
    return fetch(tx.as_it_is, _FIRSTS, (numbers(queue.generation for queue in queues),))


def size(tx: Transaction, queue: QueueState, limit: int) -> int:
    """Bytes of content of the next `limit` messages."""
    if timeless(tx, queue):
        row = tx.front(queue, limit).execute(_FRONT_SIZE, (queue.generation, limit)).fetchone()
    else:
        row = tx.db.execute(_LIVING_SIZE, bounds(tx.db, queue, limit, tx.now)).fetchone()
    return int(row[0] or 0) if row else 0


def fitting(db: apsw.Connection, queue: QueueState, limit: int, now: int) -> int:
    """How many of the next `limit` messages one answer may hold: 16 MiB of content, but one in any case."""
    row = next(db.execute(FITTING, bounds(db, queue, limit, now)))
    return max(1, int(row[0]))


def is_plain(tx: Transaction, queue: QueueState) -> bool:
    """True where a receive needs few_columns only."""
    return not queue.remembers and not tx.counted(queue, GROUPED)


def timeless(tx: Transaction, queue: QueueState) -> bool:
    """True where nothing that is ready can run out."""
    return queue.settings.retention_seconds is None and not tx.counted(queue, EXPIRING)


def bounds(db: apsw.Connection, queue: QueueState, limit: int, now: int) -> tuple[int, int, int, int]:
    """The bindings of LIVING_ROWS and FITTING."""
    return queue.generation, limit, now, past(db, queue, now)


def past(db: apsw.Connection, queue: QueueState, now: int) -> int:
    """The highest number that the queue's retention has ended, among those ready; -1 without retention."""
    if queue.settings.retention_seconds is None:
        return -1
    limit = queue.cutoff(now)

    def last(number: int) -> int | None:
        """The number right behind `number`, if that is past too."""
        seq, at = min(db.execute(_BEHIND, (queue.generation, number)), default=(0, limit + 1))
        return seq if at <= limit else None

    low, step = queue.past, 1
    high = None
    while high is None:  # all up to `low` are past
        following = last(low + step - 1)
        if following is None:
            high = low + step - 1
        else:
            low, step = following, step * 2
    while low < high:  # ... and all behind `high` are not
        middle = (low + high) // 2
        following = last(middle)
        if following is None:
            high = middle
        else:
            low = following
    return low


def oldest(db: apsw.Connection, queue: QueueState, now: int) -> int | None:
    """When the oldest ready message was enqueued: the first of a rank is its oldest."""
    first = db.execute(_OLDEST, (queue.generation, past(db, queue, now), now)).fetchone()
    return first[0] if first else None


def enter(tx: Transaction, queue: QueueState, number: int, seq: int, rank: int, expires: int | None) -> None:
    """A message becomes ready."""
    if expires is None:
        tx.db.execute(
            "INSERT INTO ready (generation, rank, seq, id) VALUES (?, ?, ?, ?)",
            (queue.generation, rank, seq, number),
        )
    else:
        tx.db.execute(
            "INSERT INTO fleeting (generation, rank, seq, id, expires) VALUES (?, ?, ?, ?, ?)",
            (queue.generation, rank, seq, number, expires),
        )
        tx.db.execute(
            "INSERT INTO fleeting_blocks (generation, rank, block, latest) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET latest = max(latest, excluded.latest)",
            (queue.generation, rank, seq >> 8, expires),
        )
    tx.became_ready(queue)


def enter_all(tx: Transaction, queue: QueueState, rows: Sequence[Row]) -> None:
    """Messages of one queue become ready: the same with few statements."""
    lasting = [row.id for row in rows if row.expires is None]
    if lasting:
        tx.db.execute(
            "INSERT INTO ready (generation, rank, seq, id)"
            " SELECT generation, rank, seq, id FROM messages WHERE id IN carray(?)",
            (numbers(lasting),),
        )
    fleeting = [row.id for row in rows if row.expires is not None]
    if fleeting:
        tx.db.execute(
            "INSERT INTO fleeting (generation, rank, seq, id, expires)"
            " SELECT generation, rank, seq, id, expires FROM messages WHERE id IN carray(?)",
            (numbers(fleeting),),
        )
        tx.db.execute(
            "INSERT INTO fleeting_blocks (generation, rank, block, latest)"
            " SELECT generation, rank, seq >> 8, max(expires) FROM messages WHERE id IN carray(?)"
            " GROUP BY 1, 2, 3 ON CONFLICT DO UPDATE SET latest = max(latest, excluded.latest)",
            (numbers(fleeting),),
        )
    tx.became_ready(queue, len(rows))


def append(tx: Transaction, queue: QueueState, first: int, amount: int) -> None:
    """New plain messages, `amount` numbers from `first` on, are ready."""
    tx.changes.add(Change.RUN, queue.generation, PLAIN_RANK, first, first, amount)
    if tx.appended.get(queue.generation, 0) >= 0:
        tx.appended[queue.generation] = tx.appended.get(queue.generation, 0) + amount
    tx.became_ready(queue, amount)


def leave_front(tx: Transaction, queue: QueueState, rows: Sequence[Row]) -> None:
    """The first messages of a timeless queue, just read, are ready no more."""
    first, last = rows[0], rows[-1]
    taken = last.seq + 1 - last.run
    if taken == last.amount:
        tx.changes.add(Change.FRONT, queue.generation, last.rank, last.run)
    else:
        if (first.rank, first.run) != (last.rank, last.run):
            tx.changes.add(Change.FRONT, queue.generation, last.rank, last.run - 1)
        tx.changes.add(Change.TRIM, queue.generation, last.rank, last.run, taken)
    tx.appended[queue.generation] = -1


def leave(tx: Transaction, rows: Iterable[Row]) -> None:
    """These messages are ready no more."""
    lasting: dict[tuple[int, int], list[int]] = {}
    fleeting: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        if row.expires is None:
            lasting.setdefault((row.generation, row.rank), []).append(row.seq)
        else:
            fleeting.setdefault((row.generation, row.rank), []).append(row)
    for (generation, rank), seqs in lasting.items():
        tx.db.execute(
            "DELETE FROM ready WHERE generation = ? AND rank = ? AND seq IN carray(?) AND amount = 1",
            (generation, rank, numbers(seqs)),
        )
        if tx.db.changes() < len(seqs):
            _cut_out(tx, generation, rank, sorted(seqs))
    for (generation, rank), group in fleeting.items():
        _leave_fleeting(tx, generation, rank, group)


def _cut_out(tx: Transaction, generation: int, rank: int, seqs: Sequence[int]) -> None:
    """Take messages out of the runs in which they lie; what is left of a run are shorter ones."""
    at = 0
    while at < len(seqs):
        seq = seqs[at]
        found = tx.db.execute(
            "SELECT seq, id, amount FROM ready WHERE generation = ? AND rank = ? AND seq <= ?"
            " ORDER BY seq DESC LIMIT 1",
            (generation, rank, seq),
        ).fetchone()
        at += 1
        if found is None or found[0] + found[2] <= seq:
            continue  # it was alone, and is gone
        run, number, amount = found
        following = seq + 1
        while at < len(seqs) and seqs[at] == following < run + amount:
            following, at = following + 1, at + 1
        tx.db.execute(
            "DELETE FROM ready WHERE generation = ? AND rank = ? AND seq = ?", (generation, rank, run)
        )
        for start, end in ((run, seq), (following, run + amount)):
            if start < end:
                tx.db.execute(
                    "INSERT INTO ready (generation, rank, seq, id, amount) VALUES (?, ?, ?, ?, ?)",
                    (generation, rank, start, number + start - run, end - start),
                )


def take(tx: Transaction, generation: int, limit: int) -> list[int]:
    """Take up to `limit` messages of an abandoned generation out of its runs; returns their numbers."""
    taken: list[int] = []
    runs: list[Any] = tx.db.execute(
        "SELECT rank, seq, id, amount FROM ready WHERE generation = ? ORDER BY rank, seq LIMIT ?",
        (generation, limit),
    ).fetchall()
    for rank, seq, number, amount in runs:
        some = min(amount, limit - len(taken))
        taken += range(number, number + some)
        if some < amount:
            tx.changes.add(Change.TRIM, generation, rank, seq, some)
        elif some:
            tx.changes.add(Change.FRONT, generation, rank, seq)
    return taken


def _leave_fleeting(tx: Transaction, generation: int, rank: int, rows: Sequence[Row]) -> None:
    tx.db.execute(
        "DELETE FROM fleeting WHERE generation = ? AND rank = ? AND seq IN carray(?)",
        (generation, rank, numbers(row.seq for row in rows)),
    )
    blocks = numbers(sorted({row.seq >> 8 for row in rows}))
    within = (
        "FROM fleeting f WHERE f.generation = ?1 AND f.rank = ?2"
        " AND f.seq BETWEEN block << 8 AND (block << 8) + 255"
    )
    where = "WHERE generation = ?1 AND rank = ?2 AND block IN carray(?3)"
    tx.db.execute(
        f"DELETE FROM fleeting_blocks {where} AND NOT EXISTS (SELECT 1 {within})", (generation, rank, blocks)
    )
    tx.db.execute(
        f"UPDATE fleeting_blocks SET latest = (SELECT max(f.expires) {within}) {where} AND latest <= ?4",
        (generation, rank, blocks, max(map(_expires, rows))),
    )


def _expires(row: Row) -> int:
    assert row.expires is not None
    return row.expires
