"""Writing a whole store on SQLite, for a copy of it: a file of its own, which is the database in the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec
from msgspec.structs import replace

from windlass.clock import rfc3339
from windlass.directory import DirectoryLock, sync_directory
from windlass.errors import StartError
from windlass.message import Sent, State
from windlass.store.sqlite import files
from windlass.store.sqlite.callers import write_key, write_runner
from windlass.store.sqlite.memory import COUNTS, EXPIRING, GROUPED, encode_settings
from windlass.store.sqlite.renumbering import Renumbering
from windlass.store.sqlite.source import SQLiteSource
from windlass.store.sqlite.transaction import FOR_EVER
from windlass.store.sqlite.writer import unavailable
from windlass.store.transfer import (
    Answer,
    Dedup,
    Ended,
    Installation,
    Living,
    Record,
    Source,
    Target,
    in_words,
    ordered,
)

_encode = msgspec.json.Encoder().encode


class _Run:
    """Messages that are ready, one after the other: a row of `ready`."""

    __slots__ = ("amount", "first", "number", "queue", "rank")

    def __init__(self, message: Living) -> None:
        self.queue, self.rank = message.queue, 9 - message.priority
        self.first, self.number, self.amount = message.place, message.number, 1

    def takes(self, message: Living) -> bool:
        """Take this one in if it follows on."""
        follows = (
            message.queue == self.queue
            and 9 - message.priority == self.rank
            and message.place == self.first + self.amount
            and message.number == self.number + self.amount
        )
        self.amount += follows
        return follows

    def row(self) -> tuple[int, int, int, int, int]:
        return self.queue, self.rank, self.first, self.number, self.amount


class SQLiteTarget(Target):
    """A data directory that has no queues yet. A queue's generation is its number."""

    spread = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._part = data_dir / files.COPY
        self._lock = DirectoryLock(data_dir)
        self._db: apsw.Connection | None = None
        self._counts: dict[int, list[int]] = {}
        self._run: _Run | None = None
        self._newest = 0
        self._last_number = 0
        self._renumbering: Renumbering | None = None

    # --- the beginning ----------------------------------------------------------------------------

    def begin(self, installation: Installation) -> None:
        self._refuse_what_is_there()
        try:
            self._db = db = apsw.Connection(str(self._part))
            # Until it is whole nobody needs it, so nothing is written twice and nothing waits for the disk.
            db.execute(f"PRAGMA page_size = {files.PAGE}")
            db.execute("PRAGMA journal_mode = OFF").fetchall()
            db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            files.migrate(db, self._part)
            sync_directory(self._data_dir)
            db.execute("BEGIN")
            self._put_installation(db, installation)
        except (apsw.Error, OSError) as error:
            raise unavailable(error) from error

    def _refuse_what_is_there(self) -> None:
        if self._part.exists():
            raise files.unfinished(self._data_dir)
        path = self._data_dir / files.DATABASE
        if path.exists():
            raise StartError(
                f"{self._data_dir} is not empty: it has {_contents(self._data_dir)}. Nothing was changed."
                f" Name another directory, or move {path}* away."
            )
        if path.with_name(path.name + "-wal").exists():
            raise StartError(
                f"{self._data_dir} is not empty: it has the log of a database, {path.name}-wal. Nothing was"
                " changed. Name another directory."
            )

    def _put_installation(self, db: apsw.Connection, installation: Installation) -> None:
        self._installation = installation
        self._last_number = installation.last_number
        self._names = {queue.number: queue.name for queue in installation.queues}
        numbers = {
            "next_queue": installation.last_queue + 1,
            "next_generation": installation.last_queue + 1,
            "next_runner": installation.last_runner + 1,
        }
        db.executemany(
            "INSERT INTO meta (name, value) VALUES (?, ?)",
            [("secret", installation.secret), *numbers.items()],
        )
        for queue in installation.queues:
            self._counts[queue.number] = [0] * COUNTS
            db.execute(
                "INSERT INTO queues (id, name, generation, settings, paused, created_at)"
                " VALUES (?1, ?2, ?1, ?3, ?4, ?5)",
                (
                    queue.number,
                    queue.name,
                    encode_settings(queue.settings).decode(),
                    queue.paused,
                    queue.created_at,
                ),
            )
        for key in installation.keys:
            write_key(db, key)
        for runner in installation.runners:
            write_runner(db, runner)

    # --- numbers ----------------------------------------------------------------------------------

    def number(self, living: Iterator[Living], ended: Iterator[Ended]) -> None:
        try:
            self._renumbering = Renumbering(self._opened(), self._part, self._installation)
            self._renumbering.gather(living, ended)
            self._last_number, self.renumbered = self._renumbering.settle()
        except apsw.Error as error:
            raise unavailable(error) from error

    def fit(self, batch: Sequence[Record]) -> Sequence[Record]:
        fitting = [_without_longest(record) for record in batch]
        return self._renumbering.fit(fitting) if self._renumbering is not None else fitting

    # --- records ----------------------------------------------------------------------------------

    def put(self, batch: Sequence[Record]) -> None:
        db = self._opened()
        try:
            self._put_living(db, [record for record in batch if isinstance(record, Living)])
            db.executemany(
                "INSERT INTO ended (id, token, until, life, untold) VALUES (?, ?, ?, ?, ?)",
                [self._ended_row(record) for record in batch if isinstance(record, Ended)],
            )
            db.executemany(
                "INSERT INTO dedup (queue, dedup_id, id, until) VALUES (?, ?, ?, ?)",
                [
                    (record.queue, record.dedup_id, record.number, record.until)
                    for record in batch
                    if isinstance(record, Dedup)
                ],
            )
            db.executemany(
                "INSERT INTO answers (key, fingerprint, answer, until) VALUES (?, ?, ?, ?)",
                [_answer_row(record) for record in batch if isinstance(record, Answer)],
            )
        except apsw.Error as error:
            raise unavailable(error) from error

    def _put_living(self, db: apsw.Connection, messages: Sequence[Living]) -> None:
        db.executemany(
            "INSERT INTO messages (id, generation, seq, at, rank, content, grp, headers, expires, home,"
            " origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    message.number,
                    message.queue,
                    message.place,
                    message.at,
                    9 - message.priority,
                    message.content,
                    message.group,
                    message.headers.encode() if message.headers is not None else None,
                    message.expires,
                    message.home if message.home != message.queue else None,
                    message.origin,
                )
                for message in messages
            ],
        )
        db.executemany(
            "INSERT INTO deliveries (id, generation, state, due, token, count, base, since, holder, lapsed,"
            " life, claim, tentative, forgiven, unseen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_delivery_row(message) for message in messages if message.past is not None],
        )
        db.executemany(
            "INSERT INTO grouped (generation, grp, seq, id) VALUES (?, ?, ?, ?)",
            [
                (message.queue, message.group, message.place, message.number)
                for message in messages
                if message.group is not None and message.state is not State.DEAD
            ],
        )
        db.executemany(
            "INSERT INTO fleeting (generation, rank, seq, id, expires) VALUES (?, ?, ?, ?, ?)",
            [
                (message.queue, 9 - message.priority, message.place, message.number, message.expires)
                for message in messages
                if message.state is State.READY and message.expires is not None
            ],
        )
        runs: list[_Run] = []
        for message in messages:
            self._count(message)
            if message.state is not State.READY or message.expires is not None:
                continue
            if self._run is None or not self._run.takes(message):
                runs += [self._run] if self._run is not None else []
                self._run = _Run(message)
        self._put_runs(runs)

    def _count(self, message: Living) -> None:
        row = self._counts[message.queue]
        row[message.state] += 1
        row[EXPIRING] += message.expires is not None
        row[GROUPED] += message.group is not None and message.state is not State.DEAD
        self._newest = max(self._newest, message.at)

    def _put_runs(self, runs: Sequence[_Run]) -> None:
        self._opened().executemany(
            "INSERT INTO ready (generation, rank, seq, id, amount) VALUES (?, ?, ?, ?, ?)",
            [run.row() for run in runs],
        )

    def _ended_row(self, record: Ended) -> tuple[Any, ...]:
        self._newest = max(self._newest, record.ended_at)
        events = [{"event": "sent", "at": record.at}, *map(ordered, record.events)]
        life = {
            "queue": record.home,
            "in_queue": self._names[record.queue],
            "state": record.how,
            "at": record.at,
            "deliveries": record.deliveries,
            "priority": record.priority,
            "group": record.group,
            "headers": record.headers,
            "events": [_dated(event) for event in events],
            "ended_at": record.ended_at,
            "outcome": record.outcome,
        }
        until, untold = (FOR_EVER, True) if record.until is None else (record.until, None)
        return record.number, record.token, until, _encode(life), untold

    # --- the end ----------------------------------------------------------------------------------

    def finish(self) -> None:
        db = self._opened()
        try:
            self._put_runs([self._run] if self._run is not None else [])
            db.execute(
                "INSERT INTO fleeting_blocks (generation, rank, block, latest)"
                " SELECT generation, rank, seq >> 8, max(expires) FROM fleeting GROUP BY 1, 2, 3"
            )
            db.executemany(
                "INSERT INTO counts (queue, upto, counts) VALUES (?, 0, ?)",
                [(number, _encode(row).decode()) for number, row in self._counts.items()],
            )
            db.executemany(
                "INSERT INTO meta (name, value) VALUES (?, ?)",
                [("next_number", self._last_number + 1), ("last_time", self._newest)],
            )
            db.execute("COMMIT")
            db.close()
        except apsw.Error as error:
            raise unavailable(error) from error
        self._db = None
        if self._renumbering is not None:
            self._renumbering.clear()

    def reading(self) -> Source:
        return SQLiteSource(apsw.Connection(str(self._part), flags=apsw.SQLITE_OPEN_READONLY))

    def commit(self) -> None:
        try:
            with self._part.open("rb+") as file:
                os.fsync(file.fileno())
            self._part.replace(self._data_dir / files.DATABASE)
            sync_directory(self._data_dir)
        except OSError as error:
            raise unavailable(error) from error

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        self._lock.close()

    def _opened(self) -> apsw.Connection:
        assert self._db is not None
        return self._db


def _without_longest(record: Record) -> Record:
    """Here a lease's limit is not remembered: whoever opens the store says it again."""
    if isinstance(record, Living) and record.past is not None and record.past.longest:
        return replace(record, past=replace(record.past, longest=0))
    return record


def _delivery_row(message: Living) -> tuple[Any, ...]:
    past = message.past
    assert past is not None
    leased, dead = message.state is State.LEASED, message.state is State.DEAD
    return (
        message.number,
        message.queue,
        int(State.READY if message.state is State.BLOCKED else message.state),
        past.due,
        past.token,
        past.count,
        past.base,
        message.at if dead else past.since,
        past.holder,
        1 if past.lapsed else None,
        ",".join(_encode(ordered(event)).decode() for event in past.events) or None,
        past.claim,
        1 if leased and past.tentative else None,
        past.forgiven,
        past.unseen,
    )


def _answer_row(record: Answer) -> tuple[Any, ...]:
    sent = Sent(record.queue, list(record.numbers), record.duplicates)
    return record.key, record.fingerprint, _encode(sent), record.until


def _dated(event: dict[str, Any]) -> dict[str, Any]:
    """An event whose times are texts."""
    return {
        name: rfc3339(value).decode() if name in ("at", "until") and isinstance(value, int) else value
        for name, value in event.items()
    }


def _contents(data_dir: Path) -> str:
    """What a database that is there has in it, in a few words."""
    try:
        db = files.connect(data_dir, "full", read_only=True)
        try:
            names = [name for (name,) in db.execute("SELECT name FROM queues")]
        finally:
            db.close()
    except apsw.Error:
        return f"a database that cannot be read, {files.DATABASE}"
    return f"a database, {files.DATABASE}, with {in_words(names)}"
