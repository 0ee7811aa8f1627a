"""Queues as every face sees them: the store's verbs, with waiting and the house's rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
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
        store.listen(self._changed)

    def _changed(self, changes: Changes) -> None:
        if self.lines:
            for name, amount in changes.ready.items():
                self.lines.wake(name, amount)
        if self._ends:
            for number in changes.ended:
                for waiting in self._ends.pop(number, ()):
                    waiting.get_loop().call_soon_threadsafe(_finish, waiting)

    # --- queues -----------------------------------------------------------------------------------

    async def create(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        rules.check_name(name)
        rules.check_settings(settings)
        return await self.store.create_queue(name, settings)

    async def update(self, name: str, settings: Mapping[str, Any], paused: bool | None = None) -> QueueInfo:
        rules.check_own(name)
        rules.check_settings(settings)
        return await self.store.update_queue(name, settings, paused)

    # --- messages ---------------------------------------------------------------------------------

    async def receive(
        self,
        queue: str,
        limit: int,
        lease: int | None,
        wait: float,
        holder: str,
        caller: Caller | None,
        gone: Awaitable[object] | None = None,
    ) -> list[Message]:
        """Receive, waiting up to `wait` seconds for the first message; nobody in line is overtaken."""
        if not wait:
            if self.lines and self.lines.idle(queue):
                return []
            return await self.store.receive(queue, limit, lease, holder, caller)
        self.store.queue_number(queue)  # to wait for what will never be is an error
        self.reaper.start()

        def attempt() -> asyncio.Future[list[Message]]:
            received = self.store.receive(queue, limit, lease, holder, caller)
            return cast("asyncio.Future[list[Message]]", asyncio.ensure_future(received))

        return await self.lines.wait(queue, wait, attempt, gone)

    async def life(self, number: int, wait: float, gone: Awaitable[object] | None = None) -> Life:
        """A message's life; with `wait`, once it has ended or the seconds are over. Raises MessageGone."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if wait:
            self.reaper.start()
            self._ends.setdefault(number, set()).add(ended)
        try:
            life = await self.store.find(number)
            if wait and life is not None and life.state in _LIVING:
                others = (gone,) if isinstance(gone, asyncio.Future) else ()
                await asyncio.wait((ended, *others), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                life = await self.store.find(number)
        finally:
            waiting = self._ends.get(number)
            if waiting is not None:
                waiting.discard(ended)
                if not waiting:
                    del self._ends[number]
        if life is None:
            raise MessageGone
        return life

    def release_waiters(self) -> None:
        """Answer everybody who waits, now: the server stops."""
        self.lines.stop()
        for waiting in self._ends.values():
            for future in waiting:
                _finish(future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
