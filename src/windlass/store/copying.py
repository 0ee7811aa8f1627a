"""Copying a store: everything from a Source to a Target, read back and compared before it counts.

Both sides are summed up while they are read. The sum of a queue's ready messages has each one's place in the
order in it, so that another order is another sum; all other records are summed up in any order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from windlass.message import State
from windlass.store.transfer import (
    BATCH,
    BATCH_BYTES,
    Answer,
    Dedup,
    Ended,
    Installation,
    Living,
    Queue,
    Record,
    Source,
    Target,
)

_STATES = [state.name.lower() for state in State]
_RECORDS = {Ended: "records", Dedup: "dedup_ids", Answer: "idempotency_keys"}
COLUMNS = (*_STATES, *_RECORDS.values())
"""What is counted of a queue."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_WHOLE = 1 << 128


class Compared(msgspec.Struct, frozen=True):
    """A queue on both sides, or what belongs to none."""

    name: str
    source: dict[str, int]
    target: dict[str, int]
    same_order: bool
    """Whether the messages that are ready are the same in the same order."""
    same: bool
    """Whether all of it is the same, down to the last byte."""


class Report(msgspec.Struct, frozen=True):
    """What was copied, and whether it is the same."""

    queues: Sequence[Compared]
    installation: Compared
    """The secret, keys and runners."""
    messages: int
    renumbered: int
    """Messages that have another number now, and so another id."""
    letters: int
    """Leased messages of a dead-letter queue whose receipts are not known any more."""
    dropped: int
    """Records of queues that were deleted before."""
    seconds: float

    @property
    def same(self) -> bool:
        return self.installation.same and all(queue.same for queue in self.queues)


class Sums:
    """What one side holds, in numbers."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, str]] = Counter()
        """(queue, column) -> how many"""
        self.ready: Counter[int] = Counter()
        self.rest: Counter[int] = Counter()
        self.letters = 0

    def add(self, batch: Sequence[Record]) -> None:
        for record in batch:
            queue = record.queue
            if isinstance(record, Living):
                column = _STATES[record.state]
                if record.state is State.READY:
                    at = self.counts[queue, column]
                    self.ready[queue] = (self.ready[queue] + _sum((at, record))) % _WHOLE
                    self.counts[queue, column] = at + 1
                    continue
                if record.state is State.LEASED and record.home != queue:
                    self.letters += 1
            else:
                column = _RECORDS[type(record)]
            self.counts[queue, column] += 1
            self.rest[queue] = (self.rest[queue] + _sum(record)) % _WHOLE

    def of(self, queue: int) -> dict[str, int]:
        return {column: self.counts[queue, column] for column in COLUMNS}


def _sum(value: object) -> int:
    return int.from_bytes(blake2b(_encode(value), digest_size=16).digest())


Show = Callable[[int, int], object]
"""Told how many records were dealt with, and how many there are to deal with in all, as far as is known."""


class Copy:
    """One copy, from its beginning to its end."""

    def __init__(self, source: Source, target: Target, show: Show) -> None:
        self._source = source
        self._target = target
        self._show = show
        self._done = 0
        self._total = 0

    def run(self) -> Report:
        """Copy, compare, and commit where all is the same.

        Raises StartError where the source is served or the target is not empty, StoreUnavailable.
        """
        began = time.monotonic()
        source, target = self._source, self._target
        source.check_quiet()
        installation = source.installation()
        counted = source.counts()
        amount = sum(map(sum, counted.values()))
        renumbering = source.spread and not target.spread
        self._total = amount * (3 if renumbering else 2)
        target.begin(installation)
        if renumbering:
            target.number(self._shown(source.living(contents=False)), source.ended())
        read = Sums()
        for batch in self._batches(source):
            fitting = target.fit(batch)
            read.add(fitting)
            target.put(fitting)
        target.finish()
        written, found, stored = self._read_back()
        source.check_quiet()
        report = Report(
            queues=[_compare(queue, counted, stored, read, written) for queue in installation.queues],
            installation=_compare_installations(installation, found),
            messages=sum(
                read.counts[queue.number, state] for queue in installation.queues for state in _STATES
            ),
            renumbered=target.renumbered,
            letters=read.letters if source.spread != target.spread else 0,
            dropped=source.dropped,
            seconds=round(time.monotonic() - began, 3),
        )
        if report.same:
            target.commit()
        return report

    def _read_back(self) -> tuple[Sums, Installation, dict[int, list[int]]]:
        reading = self._target.reading()
        try:
            written = Sums()
            for batch in self._batches(reading):
                written.add(batch)
            return written, reading.installation(), reading.counts()
        finally:
            reading.close()

    def _batches(self, source: Source) -> Iterator[list[Record]]:
        """All that a store holds, in batches of one kind."""
        yield from _in_batches(self._shown(source.living()))
        for records in (source.ended(), source.dedups(), source.answers()):
            yield from _in_batches(records)

    def _shown(self, records: Iterator[Living]) -> Iterator[Living]:
        for record in records:
            yield record
            self._done += 1
            if self._done % BATCH == 0:
                self._show(self._done, self._total)


def _in_batches(
    records: Iterator[Living] | Iterator[Ended] | Iterator[Dedup] | Iterator[Answer],
) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += _size(record)
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(record: Record) -> int:
    if isinstance(record, Living):
        return len(record.content)
    if isinstance(record, Ended):
        return len(record.outcome or "")
    return 8 * len(record.numbers) if isinstance(record, Answer) else 0


def _compare(
    queue: Queue,
    counted: dict[int, list[int]],
    stored: dict[int, list[int]],
    read: Sums,
    written: Sums,
) -> Compared:
    """A queue on both sides: by their own counts, and by what was read."""
    number = queue.number
    source, target = read.of(number), written.of(number)
    same_order = read.ready[number] == written.ready[number] and source["ready"] == target["ready"]
    states = [source[state] for state in _STATES]
    return Compared(
        name=queue.name,
        source=source | dict(zip(_STATES, counted[number], strict=True)),
        target=target | dict(zip(_STATES, stored.get(number, [0] * len(_STATES)), strict=True)),
        same_order=same_order,
        same=same_order
        and source == target
        and states == counted[number] == stored.get(number)
        and read.rest[number] == written.rest[number],
    )


def _compare_installations(source: Installation, target: Installation) -> Compared:
    def amounts(side: Installation) -> dict[str, int]:
        return {"queues": len(side.queues), "keys": len(side.keys), "runners": len(side.runners)}

    def parts(side: Installation) -> list[object]:
        by_number = sorted(side.queues, key=lambda queue: queue.number)
        keys = sorted(side.keys, key=lambda key: key.id)
        return [side.secret, by_number, keys, sorted(side.runners, key=lambda runner: runner.number)]

    later = (
        target.last_queue >= source.last_queue
        and target.last_runner >= source.last_runner
        and (not source.queues or target.last_number >= source.last_number)
    )
    return Compared(
        name="",
        source=amounts(source),
        target=amounts(target),
        same_order=True,
        same=later and parts(source) == parts(target),
    )
