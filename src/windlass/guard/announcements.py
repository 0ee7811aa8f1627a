"""What a server has announced in the journal: its own writes, until their ends are there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from windlass.errors import StoreUnavailable
from windlass.guard.journal import Entry


def _future() -> Future[None]:
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()  # so that one who gives up takes nothing along
    return future


@dataclass(slots=True, eq=False)
class Announcement:
    """A write of ours. `outcome` is what its writer says in the end: "none" of it was written."""

    keys: tuple[str, ...]
    begin_by: float
    answer_by: float = math.inf
    outcome: Literal["", "written", "none", "unknown"] = ""
    number: int = 0
    """Under which it was announced; 0: it has to be."""
    position: int = 0
    """Where it lies in the log; 0 as long as we have not read it there."""
    heard: bool = False
    """Nobody answers any more who has not heard of it."""
    begun: Future[None] = field(default_factory=_future)
    """That it may run."""
    ended: Future[None] = field(default_factory=_future)
    """That it may be answered for."""

    def fail(self, detail: str) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(StoreUnavailable(detail, retry_after=1))


class Announcements:
    """Those of one server, in the thread of its rounds."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._all: list[Announcement] = []
        self._by_number: dict[int, Announcement] = {}
        self._last_number = 0
        self._stray: set[int] = set()
        """Numbers of ours that lie in the log, and are not announced."""

    def __len__(self) -> int:
        return len(self._all)

    def add(self, announcement: Announcement) -> None:
        self._all.append(announcement)

    def due(self) -> Iterator[Entry]:
        """What has to be told; again and again, until it is read in the log."""
        me = self._server
        for each in list(self._all):
            if each.outcome == "none" and not each.position:
                self._remove(each)  # should it be in the log all the same, it is a stray one
                continue
            if not each.number:
                self._last_number += 1
                each.number = self._last_number
                self._by_number[each.number] = each
            if not each.position:
                yield Entry("begin", me, each.number, me, each.keys)
            elif each.outcome and (each.heard or each.outcome != "written"):
                yield Entry("end", me, each.number, me, sure=each.outcome != "unknown")
        for number in self._stray:
            yield Entry("end", me, number, me)

    def read(self, position: int, entry: Entry) -> None:
        """An entry of the log about a write of ours."""
        each = self._by_number.get(entry.number)
        if entry.kind == "begin":
            if each is None:
                self._stray.add(entry.number)
            elif not each.position:
                each.position = position
            return
        self._stray.discard(entry.number)
        if each is None:
            return
        if entry.by == self._server:
            self._remove(each)
            if not each.ended.done():
                each.ended.set_result(None)
        else:  # it was given up, and the others may have forgotten it
            self._again(each)

    def announce_again(self) -> None:
        """Nothing in the log can be relied on."""
        for each in self._all:
            self._again(each)
        self._stray.clear()

    def heard(self, position: int) -> bool:
        """Everybody has read up to here; whether there are some that nobody may have heard yet."""
        waiting = False
        for each in self._all:
            if each.position and not each.heard:
                each.heard = each.position <= position
                waiting |= not each.heard
                if each.heard and not each.begun.done():
                    each.begun.set_result(None)
        return waiting

    def first(self) -> float:
        """The position of the first in the log."""
        return min((each.position for each in self._all if each.position), default=math.inf)

    def give_up(self, now: float) -> None:
        """Tell those who have waited too long."""
        for each in self._all:
            if not each.begun.done() and now >= each.begin_by:
                each.outcome = "none"
                each.fail("The other servers could not be told of this write in time. Nothing was written.")
            elif each.outcome == "written" and not each.ended.done() and now >= each.answer_by:
                each.fail(
                    "It was written, but the other servers could not be told. Look whether it is there."
                )

    def fail(self, detail: str) -> None:
        """Tell all who wait."""
        for each in self._all:
            each.fail(detail)

    def _again(self, each: Announcement) -> None:
        self._by_number.pop(each.number, None)
        each.number = each.position = 0
        each.heard = False

    def _remove(self, each: Announcement) -> None:
        self._all.remove(each)
        self._by_number.pop(each.number, None)
