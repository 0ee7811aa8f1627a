"""What a server remembers of what all share: names and numbers of queues, keys, runners. Never the truth."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from windlass.store.base import Key, Runner
from windlass.store.refusals import not_found

encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(Key).decode
decode_runner = msgspec.msgpack.Decoder(Runner).decode


_REMEMBERED = 10_000
"""Changes made here while the registry is read, at most."""


class Mark(NamedTuple):
    """What memory held when a read of the registry began."""

    done: int
    """The number of the last change that was made here."""
    version: int


class Memory:
    """Replaced as a whole when others changed something; single entries are this server's own doing."""

    def __init__(self) -> None:
        self.version = -1
        """Of the registry, when it was read last."""
        self.numbers: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.ready: dict[int, int] = {}
        """Messages ready by queue, as the last answer had it."""
        self.keys: dict[str, Key] = {}
        self.runners: dict[int, Runner] = {}
        self.claimed: set[int] = set()
        """Queues in which there were claims, or ends that somebody has to be told of."""
        self._lock = threading.Lock()
        self._done = 0
        self._own: deque[tuple[int, Callable[[], object]]] = deque(maxlen=_REMEMBERED)
        """What was done here last, and its number."""
        self._sorted: list[str] | None = None

    def mark(self) -> Mark:
        """For whoever reads the registry now: what is done here from now on, that may not show."""
        with self._lock:
            return Mark(self._done, self.version)

    def read(
        self,
        since: Mark,
        version: int,
        names: Mapping[bytes, bytes],
        keys: Mapping[bytes, bytes],
        runners: Mapping[bytes, bytes],
    ) -> None:
        """Take what the registry held after the mark `since`, and what was done here meanwhile."""
        with self._lock:
            if version < self.version != since.version:
                return  # another read was faster, and saw more; else the registry itself was set back
            self.numbers = {name.decode(): int(number) for name, number in names.items()}
            self.names = {number: name for name, number in self.numbers.items()}
            self.keys = {key_id.decode(): _decode_key(packed) for key_id, packed in keys.items()}
            self.runners = {int(number): decode_runner(packed) for number, packed in runners.items()}
            for done, change in self._own:
                if done > since.done:
                    change()
            self._sorted = None
            self.version = version  # last: whoever sees it, without the lock, takes the rest for read

    def do(self, change: Callable[[], object]) -> None:
        """Note a change that was made here, in this object's dictionaries."""
        with self._lock:
            self._done += 1
            self._own.append((self._done, change))
            change()
            self._sorted = None

    def put(self, name: str, number: int) -> None:
        self.do(partial(self._put, name, number))

    def _put(self, name: str, number: int) -> None:
        former = self.numbers.get(name)
        if former is not None:
            self.names.pop(former, None)
        self.numbers[name] = number
        self.names[number] = name

    def remove(self, name: str) -> None:
        self.do(partial(self._remove, name, self.numbers.get(name)))

    def _remove(self, name: str, number: int | None) -> None:
        if number is not None and self.numbers.get(name) == number:
            del self.numbers[name]
            self.names.pop(number, None)
            self.ready.pop(number, None)
            self.claimed.discard(number)

    def number(self, name: str) -> int:
        """Raises QueueNotFound."""
        try:
            return self.numbers[name]
        except KeyError:
            raise not_found(name) from None

    def page(self, prefix: str, after: str, limit: int) -> list[str]:
        """Names in order, behind `after`."""
        with self._lock:
            if self._sorted is None:
                self._sorted = sorted(self.numbers)
            names = self._sorted
        start = max(bisect_right(names, after), bisect_left(names, prefix))
        found = names[start : start + limit]
        return [name for name in found if name.startswith(prefix)]
