"""A server's place in the log of one epoch, and all that it knows from there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from windlass.guard.announcements import Announcements
from windlass.guard.journal import BEGIN, Entry, Page, Standing

LEASE = 2.0
"""Seconds from before a round was sent in which memory may be trusted."""
LAPSE = LEASE + 0.5
"""Seconds of silence after which nobody's lease can last; clocks do not run more apart than that."""
DOUBT = 60.0
"""Seconds after which a write of a server that has lapsed counts as ended, and the server is struck out."""


class Hearer(Protocol):
    """Who is told of the writes of others: a guard."""

    def heard_begin(self, keys: Collection[str]) -> None: ...

    def heard_end(self, keys: Collection[str], *, sure: bool = True) -> None: ...

    def forget(self) -> None: ...


class Pending(NamedTuple):
    """A write of another that is under way."""

    keys: tuple[str, ...]
    position: int
    since: float


@dataclass(slots=True)
class Other:
    """Another server: its last words, and since when we know them."""

    words: str
    since: float
    lapsed: bool = False


@dataclass(slots=True, eq=False)
class Place:
    """After the entry at `position`, from 1, whose id is `last`. In the thread of the rounds."""

    epoch: str
    position: int
    last: bytes = BEGIN
    taken: bool = False
    """Whether a page was read from here; until then the place is only a plan."""
    settled: bool = False
    settled_told: bool = False
    write_from: float = math.inf
    announced: int = 0
    """The position of the last announcement of another, and of the last that they know we have read."""
    told: int = 0
    ids: deque[bytes] = field(default_factory=deque)
    """Of the last entries of the log, that of the one at `position` at the end."""
    pending: dict[tuple[str, int], Pending] = field(default_factory=dict)
    given_up: set[tuple[str, int]] = field(default_factory=set)
    others: dict[str, Other] = field(default_factory=dict)

    def read(self, page: Page, heard: float, me: str, ours: Announcements, guard: Hearer) -> bool:
        """Take in what was written; whether others wait for us to say so."""
        for at, entry in page.entries:
            self.position += 1
            self.last = at
            self.ids.append(at)
            write = entry.who, entry.number
            if entry.who == me:
                ours.read(self.position, entry)
            elif entry.kind == "begin":
                self.announced = self.position
                if write not in self.pending:
                    self.pending[write] = Pending(entry.keys, self.position, heard)
                    guard.heard_begin(entry.keys)
            elif (known := self.pending.pop(write, None)) is not None:
                self.given_up.discard(write)
                guard.heard_end(known.keys, sure=entry.sure)
        while self.position - len(self.ids) < page.base:
            self.ids.popleft()
        return self.announced > self.told

    def look_around(self, page: Page, sent: float, heard: float, me: str) -> int:
        """How far everybody has read of whom we do not know that his lease is over.

        A server that speaks has new words each time. With the same words in a page that was asked for LAPSE
        seconds after they were first read, it has not spoken in between.
        """
        words_of = {name: words for name, words in page.servers.items() if name != me}
        for name in self.others.keys() - words_of.keys():
            del self.others[name]
        slowest = self.position
        for name, words in words_of.items():
            other = self.others.get(name)
            if other is None or other.words != words:
                other = self.others[name] = Other(words, heard)
            other.lapsed = sent - other.since >= LAPSE
            if not other.lapsed:
                standing = Standing.read(words)
                slowest = min(slowest, standing.position if standing.epoch == self.epoch else -1)
        for write, pending in self.pending.items():
            if self._gone(write[0]) and heard - pending.since >= DOUBT:
                self.given_up.add(write)
        return slowest

    def silent(self, now: float) -> list[tuple[str, str]]:
        """(name, words) of the servers that have said nothing for very long."""
        return [(name, other.words) for name, other in self.others.items() if now - other.since >= DOUBT]

    def servers(self) -> int:
        """Those that have not lapsed, with us."""
        return 1 + sum(not other.lapsed for other in self.others.values())

    def given_up_by(self, me: str) -> list[Entry]:
        """The ends of writes that nobody else will tell of."""
        return [Entry("end", who, number, me, sure=False) for who, number in self.given_up]

    def cut(self, slowest: int, ours: Announcements) -> tuple[bytes, int] | None:
        """(id, position) of the entry with which the log may begin: nobody needs what is before it."""
        begun = (pending.position for pending in self.pending.values())
        keep = int(min(slowest, ours.first(), *begun))
        front = self.position - len(self.ids)
        return (self.ids[keep - 1 - front], keep) if keep - 1 > front else None

    def leave(self, guard: Hearer) -> None:
        """Nothing will be heard any more of what is under way."""
        for pending in self.pending.values():
            guard.heard_end(pending.keys, sure=False)

    def _gone(self, server: str) -> bool:
        other = self.others.get(server)
        return other is None or other.lapsed
