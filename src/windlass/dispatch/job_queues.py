"""The queues that jobs lie in: one for each set of labels that jobs ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

from windlass.dispatch.job import MAX_ATTEMPTS
from windlass.dispatch.labels import JOBS, Labels, labels_of, queue_of
from windlass.dispatch.outcomes import KEPT
from windlass.errors import QueueNotFound
from windlass.message import QueueInfo
from windlass.store import Store

_PAGE = 1_000
_MOST_LOOKS = 1_000
"""Sets of labels offered whose queues are remembered."""

_SETTINGS = {
    "max_deliveries": MAX_ATTEMPTS,
    "history_seconds": KEPT,
    "outcome_ttl_seconds": KEPT,
    "dedup_window_seconds": 30.0 * 24 * 3600,
}


class JobQueues:
    """All of them, with the settings that jobs need. `lease_seconds` is one of these."""

    def __init__(self, store: Store, lease_seconds: float) -> None:
        self._store = store
        self._settings = {"lease_seconds": lease_seconds, **_SETTINGS}
        self.asked: dict[str, Labels] = {}
        """Queue -> the labels that its jobs ask for."""
        self.names: dict[int, str] = {}
        """Number of a queue -> its name."""
        self._looks: dict[Labels, list[str]] = {}
        """Labels offered -> the queues to look into, those that ask for most first."""

    async def load(self) -> None:
        """Find those that an earlier process made."""
        async for info, asked in self._all():
            if await is_there(self._store, info.name):
                await self._set_up(info)
                self._know(info.name, asked)

    async def catch_up(self) -> None:
        """Find those that other servers have made meanwhile."""
        async for info, asked in self._all():
            if info.name not in self.asked and await is_there(self._store, info.name):
                self._know(info.name, asked)

    async def _all(self) -> AsyncIterator[tuple[QueueInfo, Labels]]:
        after = ""
        while page := await self._store.queues(JOBS, after, _PAGE):
            for info in page:
                asked = labels_of(info.name)
                if asked is not None:
                    yield info, asked
            after = page[-1].name

    async def name_of(self, number: int) -> str | None:
        """The name of a queue of jobs by its number, None where that is no such queue."""
        if number not in self.names and self._store.shared:
            await self.catch_up()
        return self.names.get(number)

    async def of(self, asked: Labels) -> str:
        """The queue of jobs that ask for these labels, made if it is not there."""
        name = queue_of(asked)
        if name not in self.asked:
            # With its settings, in one step: without them, attempts have no end.
            await self._store.create_queue(name, self._settings)
            self._know(name, asked)
        return name

    async def _set_up(self, info: QueueInfo) -> None:
        """Give a queue that an earlier process made the settings of this one."""
        if any(getattr(info.settings, setting) != value for setting, value in self._settings.items()):
            await self._store.update_queue(info.name, self._settings)

    def _know(self, name: str, asked: Labels) -> None:
        self.asked[name] = asked
        self.names[self._store.queue_number(name)] = name
        self._looks.clear()

    def looked_into(self, offered: Labels) -> list[str]:
        """The queues whose jobs a runner with these labels may take, those that ask for most first."""
        found = self._looks.get(offered)
        if found is None:
            if len(self._looks) >= _MOST_LOOKS:
                self._looks.clear()
            matching = [(-len(asked), name) for name, asked in self.asked.items() if asked <= offered]
            found = self._looks[offered] = [name for _, name in sorted(matching)]
        return found


async def is_there(store: Store, queue: str) -> bool:
    """Whether there is such a queue, which the store's memory knows from now on, if it was behind."""
    try:
        store.queue_number(queue)
    except QueueNotFound:
        return await store.learn(queue)
    return True
