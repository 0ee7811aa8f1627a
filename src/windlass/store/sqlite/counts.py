"""How many messages each queue holds, kept exactly and cheaply.

Writing a row for each queue that a commit touched would dirty a page for each. Instead a commit appends
one entry with its differences to count_log, and upkeep now and then writes the sums to `counts` and cuts
the log. At the start the log's tail is added up, so a crash at any point leaves the counts right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import apsw
import msgspec

from windlass.store.sqlite.changes import Change
from windlass.store.sqlite.memory import COUNTS, Memory

if TYPE_CHECKING:
    from windlass.store.sqlite.transaction import Transaction

FOLD_AFTER = 2_000
"""Log entries that start a fold."""
_SLICE = 500
"""Queues folded in one step of upkeep: well under 5 ms."""

_encode = msgspec.json.Encoder().encode
_decode_log = msgspec.json.Decoder(dict[int, list[int]]).decode
_decode_counts = msgspec.json.Decoder(list[int]).decode


def load(db: apsw.Connection, memory: Memory) -> set[int]:
    """Fill in every queue's counts: the folded ones and the log after them. Returns the queues in the log."""
    upto: dict[int, int] = {}
    logged: set[int] = set()
    for number, entry, text in db.execute("SELECT queue, upto, counts FROM counts"):
        if queue := memory.by_number.get(number):
            memory.count(queue, _decode_counts(text))
            upto[number] = entry
        memory.log_entry = max(memory.log_entry, entry)
    for entry, text in db.execute("SELECT entry, differences FROM count_log ORDER BY entry"):
        memory.log_entry = max(memory.log_entry, entry)
        for number, differences in _decode_log(text).items():
            queue = memory.by_number.get(number)
            if queue is not None and entry > upto.get(number, -1):
                memory.count(queue, differences)
                logged.add(number)
    return logged


def append(tx: Transaction) -> None:
    """Log one commit's differences."""
    tx.changes.add(Change.COUNTS, tx.memory.log_entry + 1, _encode(tx.differences).decode())


class Fold:
    """Writes the sums of the queues in the log, a slice at a time, and then cuts the log."""

    def __init__(self) -> None:
        self._cut = 0
        """Entries up to here are cut."""
        self._end = 0
        """Entries up to here will be cut by the pass under way."""
        self._touched: set[int] = set()
        self._pass: list[int] = []
        self._done = 0

    def touched(self, queues: Iterable[int]) -> None:
        self._touched.update(queues)

    def due(self, entry: int) -> bool:
        return bool(self._pass) or entry - self._cut >= FOLD_AFTER

    def step(self, db: apsw.Connection, memory: Memory) -> None:
        """Fold a slice: a transaction of its own, so that memory holds just what the log says."""
        if not self._pass:
            self._end = memory.log_entry
            self._pass, self._touched, self._done = sorted(self._touched), set(), 0
        batch = self._pass[self._done : self._done + _SLICE]
        rows = [
            (number, memory.log_entry, _encode(queue.counts).decode())
            for number in batch
            if (queue := memory.by_number.get(number))
        ]
        db.executemany("INSERT OR REPLACE INTO counts (queue, upto, counts) VALUES (?, ?, ?)", rows)
        if self._done + _SLICE >= len(self._pass):
            db.execute("DELETE FROM count_log WHERE entry <= ?", (self._end,))

    def stepped(self) -> None:
        """The step is on disk."""
        self._done += _SLICE
        if self._done >= len(self._pass):
            self._pass, self._cut = [], self._end


def difference(into: dict[int, list[int]], queue: int, kind: int, amount: int) -> None:
    """Note `amount` more of `kind` for a queue."""
    row = into.get(queue)
    if row is None:
        row = into[queue] = [0] * COUNTS
    row[kind] += amount
