"""A guard in front of look-ups by key: a filter, then what is remembered, then the source, once for all.

It knows nothing of what it guards: keys are strings, values are whatever the source gives, and the source is
any coroutine function. It never says "absent" of a key whose write was answered for, by three rules:

- Whoever writes the source does so through `write`. The key is in the filter before the write begins.
- A query tells what the source held when it was asked, and that is its version. It is remembered only where
  no write of its key was under way or ended between then and its answer; and a write, as it begins and as it
  ends, drops what is remembered of its keys.
- A write whose outcome is unknown (a connection that broke in the commit) may still come to pass. For
  `doubt_seconds` nothing new is remembered then.

That is the whole truth for one process. Where several write one source, `Peers` tells each of the writes of
the others, as they begin and as they end, and whether it may answer from memory at all.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from cachetools import LRUCache, TTLCache

from windlass.errors import StoreUnavailable, WindlassError

V = TypeVar("V")
R = TypeVar("R")

Source = Literal["bloom_filter", "negative_cache", "cache", "database"]

_MANY = 100
"""Keys from which on a filter is faster with all at once."""
_ENTRY = 350
"""Bytes that an entry costs beside its key and value: the dictionaries and the links of the caches."""


class Filter(Protocol):
    """A set of keys that may take a stranger for a member, and never a member for a stranger."""

    def __contains__(self, key: str, /) -> bool: ...

    def add(self, key: str, /) -> object:
        """Take it in; any thread may ask meanwhile."""

    def update(self, keys: Collection[str], /) -> object:
        """Take many in, faster than one by one."""


class Peers(Protocol):
    """The other processes that write the same source; they are told of ours, and tell the guard of theirs."""

    def current(self) -> bool:
        """Whether this process knows of every write that was answered for; if not, the source has to say."""

    async def begin(self, keys: Collection[str]) -> object:
        """Tell that these keys are about to be written; returns once nobody answers who has not heard it.

        Raises StoreUnavailable where that cannot be; then nothing is written.
        """

    async def done(self, begun: object) -> None:
        """Tell that what `begin` gave was written; returns once that may be answered for.

        Raises StoreUnavailable where it may not be: it is written, and somebody may not know.
        """

    async def end(self, begun: object, *, sure: bool) -> None:
        """Tell that it was not written; not `sure`: it may still come to pass. Raises nothing."""


class Alone:
    """No others: this process is the only one that writes."""

    def current(self) -> bool:
        return True

    async def begin(self, keys: Collection[str]) -> object:
        """Nobody has to be told."""

    async def done(self, begun: object) -> None:
        """Nobody has to be told."""

    async def end(self, begun: object, *, sure: bool) -> None:
        """Nobody has to be told."""


class Answer(NamedTuple, Generic[V]):
    """What there is for a key, None where there is nothing, and who knew."""

    value: V | None
    source: Source


@dataclass(frozen=True, slots=True)
class Limits:
    """What a guard may remember. Bytes are those of keys, values and what keeps them."""

    cache_bytes: int = 64 << 20
    negative_bytes: int = 8 << 20
    negative_seconds: float = 60
    doubt_seconds: float = 60


@dataclass(slots=True)
class Counts:
    """Look-ups since the start. Those that wait, or that the source failed, are in `requests` alone."""

    requests: int = 0
    bloom_filter: int = 0
    negative_cache: int = 0
    cache: int = 0
    database: int = 0
    database_calls: int = 0

    @property
    def database_roundtrips_saved(self) -> int:
        """Look-ups that made no call of their own, those that shared one among them."""
        return self.requests - self.database_calls

    @property
    def roundtrip_reduction(self) -> float:
        """The part of the look-ups that made no call, 0 to 1."""
        return self.database_roundtrips_saved / self.requests if self.requests else 0.0


class Guard(Generic[V]):
    """Look-ups by key that reach the source only where they have to. Any thread, any event loop."""

    def __init__(
        self,
        filter: Filter,  # noqa: A002 - it is what it is called
        load: Callable[[str], Awaitable[V | None]],
        *,
        weigh: Callable[[V], int] = sys.getsizeof,
        limits: Limits | None = None,
        peers: Peers | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`filter` holds every key of the source; `load` asks the source; `weigh` gives a value's bytes."""
        self.filter = filter
        self.peers: Peers = peers or Alone()
        self._load = load
        self._limits = limits = limits or Limits()
        self._monotonic = monotonic
        self._cache: LRUCache[str, tuple[str, V]] = LRUCache(
            limits.cache_bytes,
            getsizeof=lambda entry: sys.getsizeof(entry[0]) + weigh(entry[1]) + _ENTRY,
        )
        # Apart from the cache, so that however many keys are absent, no value has to leave for them.
        self._absent: TTLCache[str, str] = TTLCache(
            limits.negative_bytes,
            limits.negative_seconds,
            timer=monotonic,
            getsizeof=lambda key: sys.getsizeof(key) + _ENTRY,
        )
        self._queries: dict[str, _Query[V]] = {}
        self._writing: Counter[str] = Counter()
        self._doubt_until = float("-inf")
        self._counts = Counts()
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()  # the event loop itself holds on to none

    async def get(self, key: str) -> Answer[V]:
        """What there is for a key. Raises what the source raises; then nothing is remembered."""
        return self.remembered(key) or await self.ask(key)

    def remembered(self, key: str) -> Answer[V] | None:
        """The answer from memory; None where the source has to be asked, and `ask` is the next step."""
        with self._lock:
            counts = self._counts
            counts.requests += 1
            if not self.peers.current():
                return None
            if key not in self.filter:
                counts.bloom_filter += 1
                return Answer(None, "bloom_filter")
            entry = self._cache.get(key)
            if entry is not None:
                counts.cache += 1
                return Answer(entry[1], "cache")
            if self._absent.get(key) is not None:
                counts.negative_cache += 1
                return Answer(None, "negative_cache")
            return None

    async def ask(self, key: str) -> Answer[V]:
        """The answer of the source, to one query for all who wait for this key."""
        while True:
            query = self._query(key)
            try:
                value = await asyncio.wrap_future(query.future)
            except _Abandoned:
                continue
            with self._lock:
                self._counts.database += 1
            return Answer(value, "database")

    async def write(self, keys: Collection[str], operation: Callable[[], Awaitable[R]], *, adding: bool) -> R:
        """Run an operation that writes these keys in the source; `adding`: they may be there afterwards.

        It runs to its end even where whoever asked for it is cancelled. A WindlassError of it means that
        nothing was written, but for StoreUnavailable, after which nobody knows, as after any other error.
        """
        return await asyncio.shield(self._run(self._write(keys, operation, adding)))

    def counts(self) -> Counts:
        """A copy of the counts."""
        with self._lock:
            return replace(self._counts)

    def sizes(self) -> dict[str, int]:
        """Entries and bytes of what is remembered."""
        with self._lock:
            self._absent.expire()
            return {
                "cache_entries": len(self._cache),
                "cache_bytes": int(self._cache.currsize),
                "negative_entries": len(self._absent),
                "negative_bytes": int(self._absent.currsize),
            }

    # --- queries ------------------------------------------------------------------------------------

    def _query(self, key: str) -> _Query[V]:
        """The query for a key that one who asks now may share, under way or new."""
        with self._lock:
            query = self._queries.get(key)
            if query is not None:
                if key not in self._writing and self.peers.current():
                    return query
                # A write that it is too old to see may have been answered for: share the one behind it.
                if query.next is None:
                    query.next = _Query()
                return query.next
            query = self._queries[key] = _Query()
            self._begin(query)
        self._run(self._answer(key, query))
        return query

    def _begin(self, query: _Query[V]) -> None:
        query.began = self._monotonic()
        self._counts.database_calls += 1

    async def _answer(self, key: str, query: _Query[V]) -> None:
        try:
            value = await self._load(key)
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            with self._lock:
                self._ended(key, query)
            query.future.set_exception(error)
        except BaseException:
            with self._lock:
                self._taken(key, query)
            for each in (query, query.next):
                if each is not None:
                    each.future.set_exception(_Abandoned())
            raise
        else:
            with self._lock:
                untouched = self._ended(key, query)
                if untouched and key not in self._writing and query.began >= self._doubt_until:
                    self._remember(key, value)
            query.future.set_result(value)

    def _ended(self, key: str, query: _Query[V]) -> bool:
        """Take a query away and begin the one behind it; whether no write of its key has taken it before."""
        untouched, behind = self._taken(key, query), query.next
        if behind is not None:
            self._queries.setdefault(key, behind)
            self._begin(behind)
            self._run(self._answer(key, behind))
        return untouched

    def _taken(self, key: str, query: _Query[V]) -> bool:
        if self._queries.get(key) is not query:
            return False
        del self._queries[key]
        return True

    def _remember(self, key: str, value: V | None) -> None:
        try:
            if value is None:
                self._absent[key] = key
            else:
                self._cache[key] = (key, value)
        except ValueError:
            pass  # larger than all that may be remembered

    # --- writes -------------------------------------------------------------------------------------

    def heard_begin(self, keys: Collection[str]) -> None:
        """Somebody else is about to write these keys, which may be there afterwards. Any thread."""
        with self._lock:
            self._writing.update(keys)
            self._drop(keys)
        self._take_in(keys)

    def heard_end(self, keys: Collection[str], *, sure: bool = True) -> None:
        """A write that was heard to begin has ended; not `sure`: it may still come to pass. Any thread."""
        if not sure:
            self._doubt()
        with self._lock:
            self._drop(keys)
            self._writing.subtract(keys)
            for key in keys:
                if self._writing[key] <= 0:
                    del self._writing[key]

    def forget(self) -> None:
        """Drop all that is remembered, and let no query that is under way teach any of it again."""
        with self._lock:
            self._cache.clear()
            self._absent.clear()
            self._queries.clear()

    def swap(self, filter: Filter) -> set[str]:  # noqa: A002
        """Ask and fill another filter from now on; the keys of writes under way, which it may not have."""
        with self._lock:
            self.filter = filter
            return set(self._writing)

    def doubt(self) -> float:
        """Seconds for which a write that has ended, nobody knows how, may still come to pass."""
        return max(0.0, self._doubt_until - self._monotonic())

    async def _write(self, keys: Collection[str], operation: Callable[[], Awaitable[R]], adding: bool) -> R:
        with self._lock:
            self._writing.update(keys)
            self._drop(keys)
        sure = True
        try:
            if adding:
                self._take_in(keys)
            begun = await self.peers.begin(keys)
            try:
                result = await operation()
            except BaseException as error:
                sure = isinstance(error, WindlassError) and not isinstance(error, StoreUnavailable)
                await self.peers.end(begun, sure=sure)
                raise
            await self.peers.done(begun)
            return result
        finally:
            self.heard_end(keys, sure=sure)

    def _take_in(self, keys: Collection[str]) -> None:
        if len(keys) >= _MANY:
            self.filter.update(keys)
            return
        for key in keys:
            self.filter.add(key)

    def _doubt(self) -> None:
        self._doubt_until = self._monotonic() + self._limits.doubt_seconds

    def _drop(self, keys: Collection[str]) -> None:
        """Forget what is known of these keys, and let no query that is under way teach it again."""
        for remembered in (self._cache, self._absent, self._queries):
            if remembered:  # a first load of a million keys need not look for each
                for key in keys:
                    remembered.pop(key, None)

    def _run(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever wanted to know has gone away, or is told


class _Query(Generic[V]):
    """A question that the source is being asked, for whoever wants to know, in whatever event loop."""

    __slots__ = ("began", "future", "next")

    def __init__(self) -> None:
        self.began = float("-inf")
        self.next: _Query[V] | None = None
        self.future: Future[V | None] = Future()
        self.future.set_running_or_notify_cancel()  # so that one who gives up takes nobody else along


class _Abandoned(Exception):  # noqa: N818 - nobody sees it
    """The event loop of this query has ended; another has to ask."""
