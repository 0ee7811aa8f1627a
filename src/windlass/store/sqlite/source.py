"""Reading a whole store on SQLite, for a copy of it: what transfer.py names, row by row."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import msgspec

from windlass.directory import DirectoryLock
from windlass.errors import StartError
from windlass.message import Sent, State
from windlass.store.sqlite import counts, files
from windlass.store.sqlite.callers import read_keys, read_runners
from windlass.store.sqlite.memory import Memory, QueueState, decode_settings
from windlass.store.sqlite.rows import numbers
from windlass.store.transfer import BATCH, Answer, Dedup, Ended, Installation, Living, Past, Queue, Source

_COLUMNS = (
    "m.id, m.generation, m.seq, m.at, m.rank, m.content, m.grp, CAST(m.headers AS TEXT), m.expires, m.home,"
    " m.origin, d.state, d.due, d.token, d.count, d.base, d.since, d.holder, d.lapsed, d.life, d.claim,"
    " d.tentative, d.forgiven, d.unseen"
)
_BY_ID = (
    f"SELECT {_COLUMNS} FROM carray(?) c CROSS JOIN messages m ON m.id = c.value"
    " LEFT JOIN deliveries d ON d.id = m.id"
)
_OUT = (
    f"SELECT {_COLUMNS} FROM deliveries d CROSS JOIN messages m ON m.id = d.id"
    " WHERE d.state != 0 ORDER BY d.id"
)
"""Leased, delayed and dead, of all queues."""
_RUNS = "SELECT rank, seq, id, amount FROM ready WHERE generation = ? ORDER BY rank, seq"
_FLEETING = "SELECT rank, seq, id FROM fleeting WHERE generation = ? ORDER BY rank, seq"
_GROUPED = (
    "SELECT g.id FROM grouped g LEFT JOIN deliveries d ON d.id = g.id"
    " WHERE g.generation = ?1 AND coalesce(d.state, 0) = 0"
    " AND g.seq > (SELECT min(seq) FROM grouped WHERE generation = ?1 AND grp = g.grp) ORDER BY g.grp, g.seq"
)

_decode_events = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_sent = msgspec.json.Decoder(Sent).decode


def last(meta: dict[str, Any], name: str) -> int:
    """The last number that was given out of those that `meta` counts under this name."""
    return int(meta.get(name, 1)) - 1


def open_source(data_dir: Path) -> SQLiteSource:
    """The store of a data directory, which is taken for it. Raises what StartError covers."""
    if not (data_dir / files.DATABASE).exists() and not (data_dir / files.COPY).exists():
        raise StartError(f"There is no store in {data_dir}: it has no {files.DATABASE}.")
    lock = DirectoryLock(data_dir)
    try:
        return SQLiteSource(files.open_database(data_dir, "full", killed=lock.killed), lock)
    except BaseException:
        lock.close(clean=not lock.killed)
        raise


class SQLiteSource(Source):
    """A database that nobody writes."""

    spread = False

    def __init__(self, db: apsw.Connection, lock: DirectoryLock | None = None) -> None:
        self._db = db
        self._lock = lock
        self._memory = Memory()
        for row in db.execute("SELECT id, name, generation, settings, paused, created_at FROM queues"):
            number, name, generation, settings, paused, created_at = row
            self._memory.put(
                QueueState(number, name, generation, decode_settings(settings), bool(paused), created_at)
            )
        counts.load(db, self._memory)

    def installation(self) -> Installation:
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        return Installation(
            secret=meta["secret"],
            queues=[
                Queue(queue.number, queue.name, queue.settings, queue.paused, queue.created_at)
                for queue in self._queues()
            ],
            keys=read_keys(self._db),
            runners=read_runners(self._db),
            last_queue=last(meta, "next_queue"),
            last_runner=last(meta, "next_runner"),
            last_number=last(meta, "next_number"),
        )

    def _queues(self) -> list[QueueState]:
        return [self._memory.by_number[number] for number in sorted(self._memory.by_number)]

    def counts(self) -> dict[int, list[int]]:
        return {queue.number: list(queue.counts[: len(State)]) for queue in self._queues()}

    # --- messages ---------------------------------------------------------------------------------

    def living(self, *, contents: bool = True) -> Iterator[Living]:  # noqa: ARG002 - they are read all the same
        for queue in self._queues():
            yield from self._by_id(self._ready(queue.generation), State.READY)
            blocked = self._db.execute(_GROUPED, (queue.generation,))
            yield from self._by_id((row[0] for row in blocked), State.BLOCKED)
        for row in self._db.execute(_OUT):
            queue_of = self._memory.by_generation.get(row[1])
            if queue_of is not None:  # else it was purged, and waits to be swept
                yield _living(queue_of.number, row, State(row[11]))

    def _ready(self, generation: int) -> Iterator[int]:
        """Numbers in the order in which the messages would leave."""
        runs = (
            (rank, seq + n, number + n)
            for rank, seq, number, amount in self._db.execute(_RUNS, (generation,))
            for n in range(amount)
        )
        fleeting = self._db.execute(_FLEETING, (generation,))
        return (number for _, _, number in heapq.merge(runs, fleeting))

    def _by_id(self, ids: Iterator[int], state: State) -> Iterator[Living]:
        while some := list(islice(ids, BATCH)):
            for row in self._db.execute(_BY_ID, (numbers(some),)):
                yield _living(self._memory.by_generation[row[1]].number, row, state)

    # --- records ----------------------------------------------------------------------------------

    def ended(self) -> Iterator[Ended]:
        for number, token, until, text, untold in self._db.execute(
            "SELECT id, token, until, life, untold FROM ended ORDER BY id"
        ):
            life = msgspec.json.decode(text)
            queue = self._memory.by_name.get(life["in_queue"])
            if queue is None:
                self.dropped += 1
                continue
            yield Ended(
                queue=queue.number,
                home=life["queue"],
                number=number,
                at=life["at"],
                deliveries=life["deliveries"],
                priority=life["priority"],
                group=life["group"],
                headers=life["headers"],
                events=[_undated(event) for event in life["events"][1:]],
                ended_at=life["ended_at"],
                how=life["state"],
                outcome=life["outcome"],
                token=token,
                until=None if untold else until,
            )

    def dedups(self) -> Iterator[Dedup]:
        for queue, dedup_id, number, until in self._db.execute(
            "SELECT queue, dedup_id, id, until FROM dedup ORDER BY queue, dedup_id"
        ):
            if queue in self._memory.by_number:
                yield Dedup(queue, dedup_id, number, until)
            else:
                self.dropped += 1

    def answers(self) -> Iterator[Answer]:
        for key, fingerprint, text, until in self._db.execute(
            "SELECT key, fingerprint, answer, until FROM answers ORDER BY key"
        ):
            sent = _decode_sent(text)
            if sent.queue in self._memory.by_number:
                yield Answer(sent.queue, key, fingerprint, list(sent.numbers), sent.duplicates, until)
            else:
                self.dropped += 1

    # --- life -------------------------------------------------------------------------------------

    def check_quiet(self) -> None:
        """The directory's lock tells, and whoever made this has it."""

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.close()


def _living(queue: int, row: Sequence[Any], state: State) -> Living:
    (
        number, _, seq, at, rank, content, group, headers, expires, home, origin, known, due, token, count,
        base, since, holder, lapsed, life, claim, tentative, forgiven, unseen,
    ) = row  # fmt: skip
    leased = state is State.LEASED
    past = None
    if known is not None:
        past = Past(
            due=due,
            token=token,
            count=count,
            base=base,
            since=since if leased else None,
            holder=(holder or "") if leased else None,
            lapsed=bool(lapsed) and leased,
            events=_decode_events(f"[{life}]") if life else [],
            claim=claim if leased or state is State.DEAD else None,
            tentative=bool(tentative) and leased,
            forgiven=forgiven,
            unseen=unseen,
            longest=0,
        )
    return Living(
        queue=queue,
        home=home or queue,
        number=number,
        place=seq,
        state=state,
        at=at,
        priority=9 - rank,
        content=content,
        group=group,
        headers=headers,
        expires=expires,
        origin=origin,
        past=past,
    )


def _undated(event: dict[str, Any]) -> dict[str, Any]:
    """An event with its times as numbers again."""
    return {
        name: _moment(value) if name in ("at", "until") and isinstance(value, str) else value
        for name, value in event.items()
    }


def _moment(text: str) -> int:
    """What clock.rfc3339 wrote, as ms."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
