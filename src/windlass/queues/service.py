"""Queues as every face sees them: the store's verbs, with waiting and the house's rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from windlass.clock import Clock
from windlass.errors import MessageGone, QueueNotFound
from windlass.ids import Ids
from windlass.message import Life, Message, QueueInfo, QueueSettings, State
from windlass.queues import pulse, rules
from windlass.queues.pulse import Pulse
from windlass.queues.reaper import Reaper
from windlass.queues.registry import Registry
from windlass.queues.waiting import Lines
from windlass.queues.watching import Watches
from windlass.store import Caller, Changes, Store

_LIVING = frozenset(state.name.lower() for state in State)


class Queues:
    """The queue service of one process. Hot verbs without rules go straight to `store`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.ids = Ids(store.secret, spread=store.spread)
        self.lines = Lines()
        self.reaper = Reaper(store, clock)
        self.registry = Registry(store)
        self._pulse = Pulse(self.lines.waited_for, self._look, "windlass-receives")
        self.ends = Watches()
        """Of messages that shall end."""
        store.listen(self._changed)

    def start(self) -> None:
        """Run what goes on beside the requests on this loop, if it runs on none yet."""
        self.reaper.start()
        self.registry.start()

    async def stop(self) -> None:
        await self._pulse.stop()
        await self.registry.stop()
        await self.reaper.stop()

    def _changed(self, changes: Changes) -> None:
        for name, amount in changes.ready.items():
            self.lines.wake(name, amount)
        self.ends.tell(changes.ended)

    # --- queues -----------------------------------------------------------------------------------

    async def create(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        rules.check_name(name)
        rules.check_settings(settings)
        return await self.store.create_queue(name, settings)

    async def update(
        self,
        name: str,
        settings: Mapping[str, Any],
        paused: bool | None = None,
        *,
        was: QueueSettings | None = None,
    ) -> QueueInfo:
        rules.check_own(name)
        rules.check_settings(settings)
        return await self.store.update_queue(name, settings, paused, was=was)

    async def purge(self, name: str, *, apart: float = 0) -> int:
        rules.check_own(name)
        purged = await self.store.purge(name, apart=apart)
        self.ends.tell_all()  # a purge names no messages: it is a mark
        return purged

    async def delete(self, name: str) -> None:
        rules.check_own(name)
        await self.store.delete_queue(name)
        self.lines.wake_all(name)
        self.ends.tell_all()

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
        *,
        whole_groups: bool = False,
    ) -> Awaitable[list[Message]]:
        """Receive, waiting up to `wait` seconds for the first message; nobody in line is overtaken."""

        def receive() -> Awaitable[list[Message]]:
            return self.store.receive(queue, limit, lease, holder, caller, whole_groups=whole_groups)

        if wait:
            self.store.queue_number(queue)  # to wait for what will never be is an error
            self.start()
            if self.store.shared:
                self.store.attend(queue)
                self._pulse.start()
            return self.lines.wait(queue, wait, lambda: asyncio.ensure_future(receive()), gone)
        if self.lines.idle(queue):
            nothing: asyncio.Future[list[Message]] = asyncio.get_running_loop().create_future()
            nothing.set_result([])
            return nothing
        return receive()

    async def _look(self, queue: str) -> None:
        """Whoever waits for this queue tries for what other servers have brought into it."""
        self.store.attend(queue)
        try:
            info = await self.store.queue(queue)
        except QueueNotFound:
            self.lines.wake_all(queue)
            return
        if info.ready and not info.paused:
            self.lines.wake(queue, info.ready)

    async def life(self, number: int, wait: float, gone: asyncio.Future[None] | None = None) -> Life:
        """A message's life; with `wait`, once it has ended or the seconds are over. Raises MessageGone."""
        life = await (self._end(number, wait, gone) if wait else self.store.find(number))
        if life is None:
            raise MessageGone
        return life

    async def _end(self, number: int, wait: float, gone: asyncio.Future[None] | None) -> Life | None:
        self.start()
        every = pulse.EVERY if self.store.shared else None

        async def look() -> Life | None:
            life = await self.store.find(number)
            if life is not None:
                self.store.attend(life.in_queue)
            return life

        return await self.ends.until(number, look, _ended, wait, gone, every=every)

    def release_waiters(self) -> None:
        """Answer everybody who waits, now: the server stops."""
        self.lines.stop()
        self.ends.stop()


def _ended(life: Life | None) -> bool:
    return life is None or life.state not in _LIVING
