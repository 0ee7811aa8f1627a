"""What the store keeps in memory: an index of the queues, never the truth. All of it is read at the start.

Only the writer changes it, and only when a commit is on disk; the event loop reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

import msgspec

from windlass.message import QueueInfo, QueueSettings, State
from windlass.store.refusals import not_found

EXPIRING = 5
"""Index in a queue's counts, after the States: living messages with a ttl."""
GROUPED = 6
"""... and living messages of a group."""
COUNTS = 7

_MINUTE = 60


class Rate:
    """How many messages passed over the last minute: a ring of seconds."""

    __slots__ = ("_filled", "_ring")

    def __init__(self) -> None:
        self._ring: list[int] | None = None  # made when needed: most of ten thousand queues sleep
        self._filled = 0

    def add(self, second: int, count: int) -> None:
        if self._ring is None:
            self._ring = [0] * _MINUTE
            self._filled = second
        self._roll(second)
        self._ring[second % _MINUTE] += count

    def per_second(self, second: int) -> float:
        """The rate over the minute that ends with `second`. Not the writer asks, so it changes nothing."""
        ring = self._ring
        if ring is None:
            return 0.0
        last = self._filled
        seconds = range(max(second - _MINUTE, last - _MINUTE) + 1, last + 1)
        return round(sum(ring[passed % _MINUTE] for passed in seconds) / _MINUTE, 3)

    def _roll(self, second: int) -> None:
        assert self._ring is not None
        for passed in range(self._filled + 1, min(second, self._filled + _MINUTE) + 1):
            self._ring[passed % _MINUTE] = 0
        self._filled = max(second, self._filled)


class QueueState:
    """One queue: its row, its counts and its rates."""

    __slots__ = (
        "counts", "created_at", "generation", "ins", "lease", "name", "number", "outs", "past", "paused",
        "purged_at", "remembers", "settings",
    )  # fmt: skip

    def __init__(
        self, number: int, name: str, generation: int, settings: QueueSettings, paused: bool, created_at: int
    ) -> None:
        self.number = number
        self.name = name
        self.generation = generation
        self.paused = paused
        self.created_at = created_at
        self.purged_at: int | None = None
        """When it was last purged by somebody who wants purges apart."""
        self.counts = [0] * COUNTS
        self.ins = Rate()
        self.outs = Rate()
        self.configure(settings)

    def configure(self, settings: QueueSettings) -> None:
        self.settings = settings
        self.lease = round(settings.lease_seconds * 1000)
        self.remembers = settings.history_seconds > 0
        self.past = -1
        """See ready.past: a memory of where it got to."""

    @property
    def length(self) -> int:
        return sum(self.counts[:EXPIRING])

    def cutoff(self, now: int) -> int:
        """Messages enqueued at this moment (ms) or before are past the retention."""
        retention = self.settings.retention_seconds
        return now - round(retention * 1000) if retention is not None else -1

    def info(self, second: int) -> QueueInfo:
        counts = self.counts
        return QueueInfo(
            name=self.name,
            settings=self.settings,
            paused=self.paused,
            created_at=self.created_at,
            ready=counts[State.READY],
            leased=counts[State.LEASED],
            delayed=counts[State.DELAYED],
            dead=counts[State.DEAD],
            blocked=counts[State.BLOCKED],
            in_rate=self.ins.per_second(second),
            out_rate=self.outs.per_second(second),
        )


class Memory:
    """All queues by name, number and generation, and the counters of the installation."""

    def __init__(self) -> None:
        self.by_name: dict[str, QueueState] = {}
        self.by_number: dict[int, QueueState] = {}
        self.by_generation: dict[int, QueueState] = {}
        self.totals = [0] * COUNTS
        self.next_number = 1
        self.reserved = 1
        """Numbers below this one are reserved on disk, so a crash never gives one out twice."""
        self.log_entry = 0
        self.answers = 0
        self.retaining: set[int] = set()
        """Numbers of the queues with a retention."""
        self._version = 0
        self._names: tuple[int, list[str]] = (0, [])

    def queue(self, name: str) -> QueueState:
        try:
            return self.by_name[name]
        except KeyError:
            raise not_found(name) from None

    def put(self, queue: QueueState) -> None:
        self.by_name[queue.name] = queue
        self.by_number[queue.number] = queue
        self.by_generation[queue.generation] = queue
        self.configure(queue, queue.settings)
        self._version += 1

    def configure(self, queue: QueueState, settings: QueueSettings) -> None:
        queue.configure(settings)
        if settings.retention_seconds is None:
            self.retaining.discard(queue.number)
        else:
            self.retaining.add(queue.number)

    def remove(self, queue: QueueState) -> None:
        del self.by_name[queue.name], self.by_number[queue.number], self.by_generation[queue.generation]
        self.retaining.discard(queue.number)
        self._version += 1

    def regenerate(self, queue: QueueState, generation: int) -> None:
        """The queue's contents were abandoned."""
        del self.by_generation[queue.generation]
        queue.generation = generation
        self.by_generation[generation] = queue

    def count(self, queue: QueueState, differences: Sequence[int]) -> None:
        queue.counts = list(map(add, queue.counts, differences))
        self.totals = list(map(add, self.totals, differences))

    def names(self) -> list[str]:
        """All names in order, kept until a queue comes or goes."""
        version, names = self._version, self._names  # the version first: the writer raises it last
        if names[0] != version:
            names = self._names = (version, sorted(self.by_name))
        return names[1]


_decode_settings = msgspec.json.Decoder(QueueSettings).decode
encode_settings = msgspec.json.Encoder().encode


def decode_settings(text: str | bytes) -> QueueSettings:
    return _decode_settings(text)
