"""Several servers of one store in one process: each with a memory of its own, on one event loop and clock.

`OneSQLite` makes them of one SQLite store, behind which any store that is really shared can take its place.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.contract.bench import Bench
from tests.contract.http.served import settled
from tests.contract.yard import Yard
from windlass.clock import Clock, ManualClock
from windlass.errors import QueueNotFound
from windlass.message import (
    Acknowledgement,
    End,
    Extension,
    Held,
    Life,
    Message,
    Once,
    Options,
    QueueInfo,
    QueueSettings,
    Sent,
    Settled,
    State,
)
from windlass.store import Caller, Changes, Key, Runner, Store, open_store

R = TypeVar("R")

_LOOKS = frozenset({"find", "held", "untold", "oldest", "peek", "runner"})


class Several(ABC):
    """A store that any number of servers have open."""

    silent = False
    """True: no server hears of what others do, unless it asks. Nothing that is told gets through."""

    def __init__(self, home: Path, clock: ManualClock) -> None:
        self.home = home
        self.clock = clock

    @abstractmethod
    def open(self) -> Store:
        """The store, as one more server has it."""

    @abstractmethod
    def attend_to_nothing(self) -> None:
        """Let pass the time for which servers hear of the queues that they attended, if that is known."""

    @abstractmethod
    def listens(self, queue: str) -> bool:
        """Whether a server that attends to a queue would hear what others do in it now."""

    @abstractmethod
    def close(self) -> None:
        """Close what the servers have left open."""


class OneSQLite(Several):
    """One SQLite store. Each server sees it through a `View`."""

    def __init__(self, home: Path, clock: ManualClock) -> None:
        super().__init__(home, clock)
        self.store = open_store(home, clock=clock, synchronous="off")
        self.views: list[View] = []
        self.turns: dict[str, float] = {}
        self.settled: dict[str, str] = {}

    def open(self) -> Store:
        self.views.append(View(self))
        return self.views[-1]

    def attend_to_nothing(self) -> None:
        for view in self.views:
            view.attended.clear()

    def listens(self, queue: str) -> bool:
        return any(queue in view.attended for view in self.views)

    def close(self) -> None:
        self.store.close()


class View(Store):
    """What one server sees of a store that others have open: its memory is behind until it asks or hears."""

    kind = "SQLite, shared"
    shared = True

    def __init__(self, several: OneSQLite) -> None:
        self._several = several
        self._store = several.store
        self.secret = self._store.secret
        self.calls: Counter[str] = Counter()
        self._listeners: list[Callable[[Changes], None]] = []
        self._hearers: defaultdict[str, list[Callable[[bytes], None]]] = defaultdict(list)
        self.attended: set[str] = set()
        self._hot: set[asyncio.Future[Any]] = set()
        """What a commit is to bring. At the moment at which it tells of its changes, it has brought it."""
        self._stepping = 0
        """Other writes under way, of which that cannot be seen."""
        self._closed = False
        self._numbers: dict[str, int] = {}
        self._keys: list[Key] = []
        self._runners: list[Runner] = []
        self._read()
        self._store.listen(self._changed)

    # --- memory -----------------------------------------------------------------------------------

    def _read(self) -> bool:
        before = (self._numbers, self._keys, [runner.number for runner in self._runners])
        memory = self._store._memory  # type: ignore[attr-defined]
        self._numbers = {name: queue.number for name, queue in memory.by_name.items()}
        self._keys, self._runners = self._store.keys(), self._store.runners()
        return before != (self._numbers, self._keys, [runner.number for runner in self._runners])

    def _changed(self, changes: Changes) -> None:
        """Of a commit: all of one's own, and of another's what was asked for."""
        if self._closed:
            return
        if not (self._stepping or any(each.done() for each in self._hot)):
            if self._several.silent:
                return
            ready = {name: amount for name, amount in changes.ready.items() if name in self.attended}
            ended, died = (changes.ended, changes.died) if self.attended else ((), ())
            changes = Changes(ready, ended, died, None, elsewhere=True)
        self._tell_listeners(changes)

    def _tell_listeners(self, changes: Changes) -> None:
        for listener in self._listeners:
            listener(changes)

    def _others(self) -> list[View]:
        if self._several.silent:
            return []
        return [view for view in self._several.views if view is not self and not view._closed]

    async def _structural(self, verb: str, call: Callable[[], Awaitable[R]]) -> R:
        result = await self._do(verb, call)
        self._read()
        for view in self._others():
            view._read()
            view._tell_listeners(Changes({}, (), (), None, registry=True, elsewhere=True))
        return result

    def _do(self, verb: str, call: Callable[[], Awaitable[R]], queue: str | None = None) -> Awaitable[R]:
        self.calls[verb] += 1
        if queue is not None and queue not in self._numbers:
            unknown: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            unknown.set_exception(QueueNotFound())
            return unknown

        called = call()
        if isinstance(called, asyncio.Future):
            self._hot.add(called)
            called.add_done_callback(self._hot.discard)
            return called

        async def step() -> R:
            self._stepping += 1
            try:
                return await called
            finally:
                self._stepping -= 1

        return asyncio.ensure_future(called if verb in _LOOKS else step())

    # --- other servers ------------------------------------------------------------------------------

    async def learn(self, queue: str) -> bool:
        self.calls["learn"] += 1
        await asyncio.sleep(0)
        self._read()
        return queue in self._numbers

    async def refresh(self) -> bool:
        self.calls["refresh"] += 1
        await asyncio.sleep(0)
        return self._read()

    def attend(self, queue: str) -> None:
        self.attended.add(queue)

    async def turn(self, work: str, seconds: float) -> bool:
        self.calls["turn"] += 1
        await asyncio.sleep(0)
        now = time.monotonic()
        if self._several.turns.get(work, 0) > now:
            return False
        self._several.turns[work] = now + seconds
        return True

    def settle(self, name: str, value: str, *, anew: bool = False) -> str:
        self.calls["settle"] += 1
        if anew:
            self._several.settled[name] = value
        return self._several.settled.setdefault(name, value)

    def tell(self, topic: str, payload: bytes) -> None:
        self.calls["tell"] += 1
        for view in self._others():
            for hearer in view._hearers[topic]:
                asyncio.get_running_loop().call_soon(hearer, payload)

    def hear(self, topic: str, listener: Callable[[bytes], None]) -> None:
        self._hearers[topic].append(listener)

    # --- queues -------------------------------------------------------------------------------------

    async def create_queue(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        return await self._structural("create_queue", lambda: self._store.create_queue(name, settings))

    async def update_queue(
        self,
        name: str,
        settings: Mapping[str, Any],
        paused: bool | None = None,
        *,
        was: QueueSettings | None = None,
    ) -> QueueInfo:
        if name not in self._numbers:
            raise QueueNotFound
        return await self._structural(
            "update_queue", lambda: self._store.update_queue(name, settings, paused, was=was)
        )

    async def delete_queue(self, name: str) -> None:
        if name not in self._numbers:
            raise QueueNotFound
        await self._structural("delete_queue", lambda: self._store.delete_queue(name))

    async def queues(self, prefix: str = "", after: str = "", limit: int = 100) -> list[QueueInfo]:
        return await self._store.queues(prefix, after, limit)

    async def queue(self, name: str) -> QueueInfo:
        self.calls["queue"] += 1
        self.queue_number(name)
        return await self._store.queue(name)

    def queue_number(self, name: str) -> int:
        if name not in self._numbers:
            raise QueueNotFound
        return self._numbers[name]

    def has_queue_number(self, number: int) -> bool:
        return number in self._numbers.values()

    def ready(self, name: str) -> int:
        self.queue_number(name)
        return 0  # a hint, and as wrong as it can be

    async def totals(self) -> tuple[int, list[int]]:
        return await self._store.totals()

    @property
    def clock(self) -> Clock:  # type: ignore[override]
        return self._store.clock

    def durability(self) -> dict[str, Any]:
        return self._store.durability()

    # --- messages -----------------------------------------------------------------------------------

    def send(
        self,
        queue: str,
        contents: Sequence[bytes],
        options: Sequence[Options] | None = None,
        once: Once | None = None,
    ) -> Awaitable[Sent]:
        return self._do("send", lambda: self._store.send(queue, contents, options, once), queue)

    def receive(
        self,
        queue: str,
        limit: int = 1,
        lease: int | None = None,
        holder: str = "",
        caller: Caller | None = None,
        claim: str | None = None,
        *,
        whole_groups: bool = False,
    ) -> Awaitable[list[Message]]:
        def receive() -> Awaitable[list[Message]]:
            return self._store.receive(queue, limit, lease, holder, caller, claim, whole_groups=whole_groups)

        return self._do("receive", receive, queue)

    def acknowledge(
        self, queue: str, acknowledgements: Sequence[Acknowledgement]
    ) -> Awaitable[list[Settled]]:
        return self._do("acknowledge", lambda: self._store.acknowledge(queue, acknowledgements), queue)

    def extend(self, queue: str | None, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        return self._do("extend", lambda: self._store.extend(queue, extensions), queue)

    def release(
        self,
        queue: str,
        number: int,
        delivery: int = 0,
        delay: int = 0,
        *,
        holder: str | None = None,
        reason: str = "",
        counts: bool = True,
        last: bool = False,
    ) -> Awaitable[None]:
        more: dict[str, Any] = {"holder": holder, "reason": reason, "counts": counts, "last": last}
        return self._do("release", lambda: self._store.release(queue, number, delivery, delay, **more), queue)

    async def cancel(
        self,
        queue: str,
        number: int,
        *,
        leased: bool = False,
        how: str = "cancelled",
        outcome: bytes | None = None,
    ) -> None:
        more: dict[str, Any] = {"leased": leased, "how": how, "outcome": outcome}
        await self._do("cancel", lambda: self._store.cancel(queue, number, **more), queue)

    async def purge(self, queue: str, *, apart: float = 0) -> int:
        return await self._do("purge", lambda: self._store.purge(queue, apart=apart), queue)

    async def redrive(self, queue: str, limit: int) -> tuple[int, bool]:
        return await self._do("redrive", lambda: self._store.redrive(queue, limit), queue)

    async def peek(self, queue: str, limit: int, state: State = State.READY) -> list[Message]:
        return await self._do("peek", lambda: self._store.peek(queue, limit, state), queue)

    async def find(self, number: int) -> Life | None:
        return await self._do("find", lambda: self._store.find(number))

    async def held(self, holder: str | None = None) -> list[Held]:
        return await self._do("held", lambda: self._store.held(holder))

    async def untold(self, limit: int = 100) -> list[End]:
        return await self._do("untold", lambda: self._store.untold(limit))

    async def told(self, number: int, keep: int) -> None:
        await self._do("told", lambda: self._store.told(number, keep))

    async def oldest(self, queue: str) -> int | None:
        return await self._do("oldest", lambda: self._store.oldest(queue), queue)

    async def ping(self) -> None:
        await self._do("ping", self._store.ping)

    # --- time and life ------------------------------------------------------------------------------

    async def expire(self) -> int | None:
        return await self._do("expire", self._store.expire)

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self._listeners.append(listener)

    def close(self) -> None:
        self._closed = True

    # --- keys and runners ---------------------------------------------------------------------------

    async def add_key(self, key: Key) -> None:
        await self._structural("add_key", lambda: self._store.add_key(key))

    async def remove_key(self, key_id: str) -> bool:
        return await self._structural("remove_key", lambda: self._store.remove_key(key_id))

    def keys(self) -> list[Key]:
        return self._keys

    async def add_runner(self, runner: Runner) -> Runner:
        return await self._structural("add_runner", lambda: self._store.add_runner(runner))

    async def seen_runner(self, number: int, at: int) -> None:
        await self._do("seen_runner", lambda: self._store.seen_runner(number, at))

    async def remove_runner(self, number: int) -> None:
        await self._structural("remove_runner", lambda: self._store.remove_runner(number))

    def runners(self) -> list[Runner]:
        return self._runners

    async def runner(self, number: int) -> Runner | None:
        return await self._do("runner", lambda: self._store.runner(number))


class _Ground:
    """Where one more server of them stands."""

    def __init__(self, several: Several) -> None:
        self.directory = several.home
        self._several = several

    def open(self, _: ManualClock) -> Store:
        return self._several.open()

    def crash(self, store: Store) -> None:
        store.close()


class Yards:
    """The dispatches of two servers of one store, `a` and `b`, and of more, on one event loop."""

    def __init__(self, several: Several) -> None:
        self.several = several
        self.loop = asyncio.new_event_loop()
        self.all: list[Yard] = []
        self.a, self.b = self.open(), self.open()

    def open(self) -> Yard:
        """A server more."""
        bench = Bench(_Ground(self.several))
        bench.loop.close()
        bench.loop, bench.clock = self.loop, self.several.clock
        self.all.append(Yard(bench))
        self.all[-1].dispatch.outcomes.at_once = False  # here the wait is what is tested
        return self.all[-1]

    def run(self, *several: Coroutine[Any, Any, Any]) -> None:
        """Run to their end, together, a minute at most."""

        async def run() -> None:
            async with asyncio.timeout(60):
                await asyncio.gather(*several)

        self.loop.run_until_complete(run())

    def until(self, condition: Callable[[], object]) -> None:
        """Let them run until `condition` is true."""
        self.run(settled(condition))

    def close(self) -> None:
        for yard in self.all:
            yard.stop()
        self.loop.close()
