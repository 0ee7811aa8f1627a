"""What runners tell of jobs under way: for people who watch, and for nothing else. In memory, and bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Any

import msgspec

MAX_EVENTS = 1_000
"""Events of one job that are kept."""
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of one job's events that are kept, as JSON; its last event is kept in any case."""
MAX_JOBS = 1_000
"""Jobs whose events are kept, those that were told of last."""
MAX_ALL = 64 * 1024 * 1024
"""Bytes of all jobs' events."""

Numbered = tuple[int, dict[str, Any]]

_encode = msgspec.json.Encoder().encode


class _Log:
    __slots__ = (
        "changed", "events", "foreign", "given", "heard", "last", "lost", "over", "size", "sizes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.events: deque[Numbered] = deque()
        self.sizes: deque[int] = deque()
        self.size = 0
        self.last = 0
        """The number of the newest event."""
        self.lost = 0
        """The number of the newest event that is not kept any more."""
        self.given = 0
        """The number of the newest event that somebody was given: what comes late stands behind it."""
        self.foreign: set[int] = set()
        """Numbers of the events that were told to other servers."""
        self.heard: dict[str, int] = {}
        """Server -> the number that it gave to the last event that was heard of it."""
        self.over = False
        self.changed: asyncio.Event | None = None
        """There while somebody waits."""

    def wake(self) -> None:
        if self.changed is not None:
            self.changed.set()
            self.changed = None


class Progress:
    """The events of all jobs. Numbers rise from one event to the next, over a restart, and from one server to
    another as far as their clocks agree: they are microseconds since the epoch, or the next that is free."""

    def __init__(self) -> None:
        self._logs: OrderedDict[int, _Log] = OrderedDict()
        self._next = 0
        self._size = 0
        self._listener: Callable[[int], None] | None = None

    def listen(self, listener: Callable[[int], None]) -> None:
        """Whom to tell of each job of which something was told here."""
        self._listener = listener

    def tell(self, job: int, *events: dict[str, Any], over: bool = False) -> None:
        """Add events; with `over` there will be no more."""
        log = self._log(job)
        self._next = max(self._next, time_ns() // 1_000)
        for event in events:
            self._add(log, self._next, event)
        log.over = log.over or over
        log.wake()
        self._make_room(log)
        if self._listener is not None:
            self._listener(job)

    def hear(self, job: int, server: str, events: Sequence[Numbered], *, over: bool) -> None:
        """Add events that another server was told, under its numbers, where nobody was given later ones."""
        log = self._log(job)
        for number, event in events:
            if number > log.heard.get(server, 0):
                log.heard[server] = number
                log.foreign.add(self._add(log, max(number, log.given + 1), event))
        log.over = log.over or over
        log.wake()
        self._make_room(log)

    def heard(self, job: int) -> dict[str, int]:
        """Server -> the number that it gave to the last event of this job that was heard of it."""
        log = self._logs.get(job)
        return log.heard if log is not None else {}

    def told_here(self, job: int, last: int) -> tuple[list[Numbered], bool]:
        """The events that were told to this server behind number `last`; and if the job is over."""
        log = self._logs.get(job)
        if log is None or log.last <= last:
            return [], False
        return [each for each in log.events if each[0] > last and each[0] not in log.foreign], log.over

    def _add(self, log: _Log, number: int, event: dict[str, Any]) -> int:
        """Put an event in its place by its number, or by the next that is free, which is returned."""
        at = len(log.events)
        while at and log.events[at - 1][0] > number:
            at -= 1
        while at and log.events[at - 1][0] == number:
            number += 1
            while at < len(log.events) and log.events[at][0] <= number:
                at += 1
        size = len(_encode(event))
        log.events.insert(at, (number, event))
        log.sizes.insert(at, size)
        log.last = log.events[-1][0]
        self._next = max(self._next, number + 1)
        log.size += size
        self._size += size
        while len(log.events) > MAX_EVENTS or (log.size > MAX_BYTES and len(log.events) > 1):
            self._lose_oldest(log)
        return number

    def end(self, job: int, event: dict[str, Any]) -> None:
        """The job has ended without anybody's word. Does nothing where nothing was told of it."""
        if job in self._logs:
            self.tell(job, event, over=True)

    async def after(self, job: int, last: int, wait: float) -> tuple[list[Numbered], bool]:
        """The events behind number `last`, after `wait` seconds at most for the first; and if it is over.

        Where some are not kept any more, `{"event": "lost"}` stands for them.
        """
        log = self._log(job)
        if log.last <= last and not log.over:
            changed = log.changed = log.changed or asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await changed.wait()
            log = self._log(job)  # another one, where there was no room for it meanwhile
        lost: list[Numbered] = [(log.lost, {"event": "lost"})] if log.lost > last else []
        log.given = log.last
        return lost + [each for each in log.events if each[0] > last], log.over

    def wake_all(self) -> None:
        """Let everybody look again."""
        for log in self._logs.values():
            log.wake()

    def _log(self, job: int) -> _Log:
        log = self._logs.get(job)
        if log is None:
            log = self._logs[job] = _Log()
        self._logs.move_to_end(job)
        if len(self._logs) > MAX_JOBS:
            self._make_room(log)
        return log

    def _lose_oldest(self, log: _Log) -> None:
        number, _ = log.events.popleft()
        size = log.sizes.popleft()
        log.size -= size
        self._size -= size
        log.lost = number
        log.foreign.discard(number)

    def _make_room(self, but: _Log) -> None:
        """Forget the jobs that were told of, or asked for, the longest ago."""
        while len(self._logs) > MAX_JOBS or self._size > MAX_ALL:
            job, log = next(iter(self._logs.items()))
            if log is but:
                return
            del self._logs[job]
            self._size -= log.size
            log.wake()
