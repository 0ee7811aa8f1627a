"""What runners tell of jobs under way: for people who watch, and for nothing else. In memory, and bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
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
    __slots__ = ("changed", "events", "last", "lost", "over", "size", "sizes")

    def __init__(self) -> None:
        self.events: deque[Numbered] = deque()
        self.sizes: deque[int] = deque()
        self.size = 0
        self.last = 0
        """The number of the newest event."""
        self.lost = 0
        """The number of the newest event that is not kept any more."""
        self.over = False
        self.changed: asyncio.Event | None = None
        """There while somebody waits."""

    def wake(self) -> None:
        if self.changed is not None:
            self.changed.set()
            self.changed = None


class Progress:
    """The events of all jobs. Numbers rise from one event to the next, also over a restart."""

    def __init__(self) -> None:
        self._logs: OrderedDict[int, _Log] = OrderedDict()
        self._next = time_ns() // 1_000  # nobody tells a million events a second
        self._size = 0

    def tell(self, job: int, *events: dict[str, Any], over: bool = False) -> None:
        """Add events; with `over` there will be no more."""
        log = self._log(job)
        for event in events:
            size = len(_encode(event))
            log.events.append((self._next, event))
            log.sizes.append(size)
            log.last = self._next
            self._next += 1
            log.size += size
            self._size += size
            while len(log.events) > MAX_EVENTS or (log.size > MAX_BYTES and len(log.events) > 1):
                self._lose_oldest(log)
        log.over = log.over or over
        log.wake()
        self._make_room(log)

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

    def _make_room(self, but: _Log) -> None:
        """Forget the jobs that were told of, or asked for, the longest ago."""
        while len(self._logs) > MAX_JOBS or self._size > MAX_ALL:
            job, log = next(iter(self._logs.items()))
            if log is but:
                return
            del self._logs[job]
            self._size -= log.size
            log.wake()
