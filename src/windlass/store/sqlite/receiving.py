"""receive: take the first ready messages of a queue, for all requests of a commit at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from windlass.errors import WindlassError
from windlass.message import MAX_BATCH_BYTES, State
from windlass.store.operation import Receive
from windlass.store.sqlite import ready
from windlass.store.sqlite.changes import FEW, Change
from windlass.store.sqlite.memory import EXPIRING, GROUPED, QueueState
from windlass.store.sqlite.rows import Row, columns, fetch, numbers
from windlass.store.sqlite.transaction import Transaction

_FEW_SINGLES = 64
"""Receives of one message each that are served together without a look at what that comes to."""
_FEW = 16
"""Rows read at a time while each removal may bring up the next of its group."""
# At most ?4 messages of a group behind the number ?3, with ?5 bytes of content in all.
_FOLLOWERS = columns(
    "(SELECT id, seq FROM"
    " (SELECT g.id AS id, g.seq AS seq, sum(length(m.content)) OVER (ORDER BY g.seq) AS total FROM"
    " (SELECT id, seq FROM grouped WHERE generation = ?1 AND grp = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4) g"
    " CROSS JOIN messages m ON m.id = g.id) WHERE total <= ?5) g"
    " CROSS JOIN messages m ON m.id = g.id LEFT JOIN deliveries d ON d.id = g.id ORDER BY g.seq",
    content=True,
)


def receive(tx: Transaction, operations: Sequence[Receive]) -> None:
    """Serve all receives of a commit, in the order in which they came."""
    by_queue: dict[str, list[Receive]] = {}
    for op in operations:
        if op.abandoned:
            op.result = []
        else:
            by_queue.setdefault(op.queue, []).append(op)
    single: dict[int, tuple[QueueState, Receive]] = {}
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
        elif len(by_queue) > 1 and len(ops) == 1 and ops[0].limit == 1 and _is_simple(tx, queue):
            single[queue.generation] = (queue, ops[0])
        else:
            _serve(tx, queue, ops)
    if single:
        _serve_firsts(tx, single)


def _is_simple(tx: Transaction, queue: QueueState) -> bool:
    return ready.is_plain(tx, queue) and ready.timeless(tx, queue)


def _serve_firsts(tx: Transaction, single: dict[int, tuple[QueueState, Receive]]) -> None:
    """Receives of one message each from many queues: one look serves them all."""
    for row in ready.firsts(tx, [queue for queue, _ in single.values()]):
        queue, op = single.pop(row.generation)
        _take_front(tx, queue, [(op, [row])], [row])
    for _, op in single.values():
        op.result = []


def _serve(tx: Transaction, queue: QueueState, ops: Sequence[Receive]) -> None:
    """Serve all receives of one queue."""
    if not (tx.counted(queue, GROUPED) > 0 and any(op.whole_groups for op in ops)):
        _serve_heads(tx, queue, ops)
        return
    for op in ops:
        if op.whole_groups and op.lease is not None:
            _serve_groups(tx, queue, op)
        else:
            _serve_heads(tx, queue, [op])


def _serve_groups(tx: Transaction, queue: QueueState, op: Receive) -> None:
    """Lease what is ready, and right after each message of a group those that are blocked behind it alone."""
    limit = op.limit
    if ready.size(tx, queue, limit) > MAX_BATCH_BYTES:
        limit = ready.fitting(tx.db, queue, limit, tx.now)
    timeless = ready.timeless(tx, queue)
    heads: list[Row] = []
    taken: list[Row] = []
    room = MAX_BATCH_BYTES
    for head in ready.heads(tx, queue, limit, timeless=timeless):
        if len(taken) == op.limit or (taken and head.size > room):
            break
        heads.append(head)
        mine = [head]
        if head.grp is not None and len(taken) + 1 < op.limit:
            mine += _followers(tx, queue, head, op.limit - len(taken) - 1, room - head.size)
        room -= sum(row.size for row in mine)
        taken += mine
    if not heads:
        op.result = []
        return
    tx.count(queue, State.BLOCKED, len(heads) - len(taken))
    tx.count(queue, State.READY, len(taken) - len(heads))  # from where they are handed out
    if timeless:
        _take_front(tx, queue, [(op, taken)], heads)
    else:
        ready.leave(tx, heads)
        _hand_out(tx, queue, [(op, taken)])


def _followers(tx: Transaction, queue: QueueState, head: Row, most: int, room: int) -> list[Row]:
    """Those of its group that are blocked behind a message alone: `most`, with `room` bytes of content."""
    found = fetch(tx.db, _FOLLOWERS, (queue.generation, head.grp, head.seq, most, room))
    blocked = takewhile(lambda row: row.state in (None, State.READY), found)
    cutoff = queue.cutoff(tx.now)
    return [row for row in blocked if row.at > cutoff and (row.expires is None or row.expires > tx.now)]


def _serve_heads(tx: Transaction, queue: QueueState, ops: Sequence[Receive]) -> None:
    """Take what all ask for together, and deal it out. A removal may bring up the next of its group, which
    then competes with the rest just as in a receive of its own."""
    wanted = sum(op.limit for op in ops)
    batched = wanted > _FEW_SINGLES or any(op.limit > 1 for op in ops)
    if batched and ready.size(tx, queue, wanted) > MAX_BATCH_BYTES:
        if len(ops) > 1:
            for op in ops:
                _serve_heads(tx, queue, [op])
            return
        wanted = ready.fitting(tx.db, queue, wanted, tx.now)
    careful = tx.counted(queue, GROUPED) > 0 and any(op.lease is None for op in ops)
    taken: dict[Receive, list[Row]] = {op: [] for op in ops}
    waiting = list(ops)
    amount = wanted
    while waiting and amount:
        timeless = ready.timeless(tx, queue)  # anew: the last message with a ttl may just have left
        rows = ready.heads(tx, queue, min(amount, _FEW) if careful else amount, timeless=timeless)
        if not rows:
            break
        dealt: list[tuple[Receive, list[Row]]] = []
        start = 0
        while waiting and start < len(rows):
            op = waiting[0]
            mine = rows[start : start + op.limit - len(taken[op])]
            cut = len(mine)
            if careful:  # a removal brings up contents that nobody has measured
                cut = min(_until_grouped(mine) if op.lease is None else cut, _fitting(mine, taken[op]))
                if not cut:
                    waiting.pop(0)
                    continue
            dealt.append((op, mine[:cut]))
            taken[op] += mine[:cut]
            start += cut
            if len(taken[op]) == op.limit:
                waiting.pop(0)
            if cut and mine[cut - 1].grp is not None and op.lease is None:
                break
        rows = rows[:start]
        if not rows:
            break
        amount -= len(rows)
        if timeless:
            _take_front(tx, queue, dealt, rows)
        else:
            ready.leave(tx, rows)
            _hand_out(tx, queue, dealt)
    for op in ops:
        if op.result is None:
            op.result = []


def _until_grouped(rows: Sequence[Row]) -> int:
    """How many rows there are up to the first of a group, that one included."""
    return next((n for n, row in enumerate(rows, 1) if row.grp is not None), len(rows))


def _fitting(rows: Sequence[Row], taken: Sequence[Row]) -> int:
    """How many of `rows` an answer that holds `taken` has room for; one in any case."""
    room = MAX_BATCH_BYTES - sum(row.size for row in taken)
    for n, row in enumerate(rows):
        room -= row.size
        if room < 0 and (n or taken):
            return n
    return len(rows)


def _take_front(
    tx: Transaction, queue: QueueState, dealt: Sequence[tuple[Receive, list[Row]]], rows: Sequence[Row]
) -> None:
    """The first messages of a timeless queue go to those who asked."""
    ready.leave_front(tx, queue, rows)
    _hand_out(tx, queue, dealt)


def _hand_out(tx: Transaction, queue: QueueState, dealt: Sequence[tuple[Receive, list[Row]]]) -> None:
    """Messages that are no longer in `ready` go to those who asked."""
    tx.count(queue, State.READY, -sum(len(rows) for _, rows in dealt))
    removed: list[Row] = []
    leased: list[tuple[Receive, int, list[Row]]] = []
    for op, rows in dealt:
        if op.lease is not None:
            due = tx.now + (queue.lease if op.lease == -1 else op.lease)
            messages = [
                row.message(queue, handed_out=True, delivery=(row.token or 0) + 1, lease_until=due)
                for row in rows
            ]
            if rows:
                leased.append((op, due, rows))
        else:
            messages = [row.message(queue, handed_out=True) for row in rows]
            removed += rows
            if queue.remembers:
                for row in rows:
                    tx.remember(queue, row, "received", None, op.holder)
        op.result = op.result + messages if op.result else messages
    if leased:
        _lease(tx, queue, leased)
    if removed:
        _remove(tx, queue, removed)


def _remove(tx: Transaction, queue: QueueState, rows: Sequence[Row]) -> None:
    """Messages that are no longer in `ready` leave for good, handed out without a lease."""
    tx.delete([row.id for row in rows], any(row.token is not None for row in rows))
    tx.outs[queue.number] = tx.outs.get(queue.number, 0) + len(rows)
    for row in rows:
        tx.ended.append(row.id)
        if row.expires is not None:
            tx.count(queue, EXPIRING, -1)
        if row.grp is not None:
            tx.leave_group(queue, row)


def _lease(tx: Transaction, queue: QueueState, leased: Sequence[tuple[Receive, int, list[Row]]]) -> None:
    """Messages that are no longer in `ready` are leased, each until its moment."""
    for op, due, rows in leased:
        tx.count(queue, State.LEASED, len(rows))
        tx.falls_due(due)
        if len(rows) > FEW and op.claim is None and all(row.token is None for row in rows):
            tx.db.execute(
                "INSERT INTO deliveries (since, holder, due, id, generation, state, token, count)"
                " SELECT ?1, ?2, ?3, value, ?4, 1, 1, 1 FROM carray(?5)",
                (tx.now, op.holder, due, queue.generation, numbers(row.id for row in rows)),
            )
        else:
            for row in rows:
                tx.changes.add(
                    Change.LEASE, row.id, queue.generation, tx.now, due, (row.token or 0) + 1,
                    (row.count or 0) + 1, op.holder, op.claim,
                )  # fmt: skip
