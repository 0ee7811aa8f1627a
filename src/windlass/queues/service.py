"""Queues as every face sees them: the store's verbs, with waiting and the house's rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, cast

from windlass.clock import Clock
from windlass.errors import MessageGone
from windlass.ids import Ids
from windlass.message import Life, Message, QueueInfo, State
from windlass.queues import rules
from windlass.queues.reaper import Reaper
from windlass.queues.waiting import Lines
from windlass.store import Caller, Changes, Store

_LIVING = frozenset(state.name.lower() for state in State)


class Queues:
    """The queue service of one process. Hot verbs without rules go straight to `store`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.ids = Ids(store.secret)
        self.lines = Lines()
        self.reaper = Reaper(store, clock)
        self._ends: dict[int, set[asyncio.Future[None]]] = {}
        self._stopping = False
        store.listen(self._changed)

    def _changed(self, changes: Changes) -> None:
        for name, amount in changes.ready.items():
            self.lines.wake(name, amount)
        if self._ends:
            for number in changes.ended:
                self._ended(self._ends.pop(number, ()))

    def _ended(self, waiting: Iterable[asyncio.Future[None]]) -> None:
        for future in tuple(waiting):
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
                future.get_loop().call_soon_threadsafe(_finish, future)

    # --- queues -----------------------------------------------------------------------------------

    async def create(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        rules.check_name(name)
        rules.check_settings(settings)
        return await self.store.create_queue(name, settings)

    async def update(self, name: str, settings: Mapping[str, Any], paused: bool | None = None) -> QueueInfo:
        rules.check_own(name)
        rules.check_settings(settings)
        return await self.store.update_queue(name, settings, paused)

    async def purge(self, name: str) -> int:
        rules.check_own(name)
        purged = await self.store.purge(name)
        self._look_again()  # a purge names no messages: it is a mark
        return purged

    async def delete(self, name: str) -> None:
        rules.check_own(name)
        await self.store.delete_queue(name)
        self.lines.wake_all(name)
        self._look_again()

    # --- messages ---------------------------------------------------------------------------------

    def receive(
        self,
        queue: str,
        limit: int,
        lease: int | None,
        wait: float,
        holder: str,
        caller: Caller | None,
        gone: asyncio.Future[None] | None = None,
    ) -> Awaitable[list[Message]]:
        """Receive, waiting up to `wait` seconds for the first message; nobody in line is overtaken."""
        if wait:
            return self._wait(queue, limit, lease, wait, holder, caller, gone)
        if self.lines.idle(queue):
            nothing: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
            nothing.set_result([])
            return nothing
        return self.store.receive(queue, limit, lease, holder, caller)

    async def _wait(
        self,
        queue: str,
        limit: int,
        lease: int | None,
        wait: float,
        holder: str,
        caller: Caller | None,
        gone: asyncio.Future[None] | None,
    ) -> list[Message]:
        self.store.queue_number(queue)  # to wait for what will never be is an error
        self.reaper.start()

        def attempt() -> asyncio.Future[list[Message]]:
            received = self.store.receive(queue, limit, lease, holder, caller)
            return cast("asyncio.Future[list[Message]]", asyncio.ensure_future(received))

        return await self.lines.wait(queue, wait, attempt, gone)

    async def life(self, number: int, wait: float, gone: asyncio.Future[None] | None = None) -> Life:
        """A message's life; with `wait`, once it has ended or the seconds are over. Raises MessageGone."""
        life = await (self._end(number, wait, gone) if wait else self.store.find(number))
        if life is None:
            raise MessageGone
        return life

    async def _end(self, number: int, wait: float, gone: asyncio.Future[None] | None) -> Life | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        self.reaper.start()
        while True:
            ended: asyncio.Future[None] = loop.create_future()
            self._ends.setdefault(number, set()).add(ended)  # before the look, or an end may slip through
            try:
                life = await self.store.find(number)
                left = deadline - loop.time()
                hung_up = gone is not None and gone.done()
                if life is None or life.state not in _LIVING or left <= 0 or hung_up or self._stopping:
                    return life
                others = (gone,) if gone is not None else ()
                await asyncio.wait((ended, *others), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting = self._ends.get(number, set())
                waiting.discard(ended)
                if not waiting:
                    self._ends.pop(number, None)

    def release_waiters(self) -> None:
        """Answer everybody who waits, now: the server stops."""
        self._stopping = True
        self.lines.stop()
        self._look_again()

    def _look_again(self) -> None:
        """Whoever waits for a message's end looks at it once more."""
        for waiting in tuple(self._ends.values()):
            self._ended(waiting)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
