"""Which message a job's id means, also one that was given out before the store was copied to another kind.

An id says a message's number as it was then. In a store whose queues are spread a number begins with that of
its queue (ids.PLACE_BITS), in any other it does not; the rest of it stays the same in a copy. So an id of the
other kind is known by its number, and what it means is looked for in the queues of jobs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from windlass.dispatch.job import JOB
from windlass.dispatch.job_queues import JobQueues
from windlass.errors import JobNotFound
from windlass.ids import PLACE_BITS, Ids
from windlass.store import Store

_MOST = 10_000
"""Numbers of the other kind that are remembered: a runner names its jobs every few seconds."""


class Numbers:
    """The messages of jobs."""

    def __init__(
        self, store: Store, ids: Ids, job_queues: JobQueues, load: Callable[[], Awaitable[None]]
    ) -> None:
        """`load` finds the queues of jobs that there are."""
        self._store = store
        self._ids = ids
        self._job_queues = job_queues
        self._load = load
        self._found: dict[int, int] = {}

    async def of(self, job_id: str) -> int:
        """The number of a job's message. Raises JobNotFound for an id that was never issued, or means nothing
        since a copy."""
        number = self._ids.parse_numbered(JOB, job_id)
        if number is None:
            raise JobNotFound
        if bool(number >> PLACE_BITS) is self._store.spread:
            return number
        return self._found.get(number) or await self._look(number)

    async def _look(self, number: int) -> int:
        """What became of a number of the other kind. Raises JobNotFound."""
        await self._load()
        home, place = number >> PLACE_BITS, number & ((1 << PLACE_BITS) - 1)
        homes = [home] if home else list(self._job_queues.names)
        for queue in homes:
            candidate = queue << PLACE_BITS | place if self._store.spread else place
            life = await self._store.find(candidate)
            if life is not None and life.message.queue == queue:
                if len(self._found) >= _MOST:
                    self._found.clear()
                self._found[number] = candidate
                return candidate
        raise JobNotFound
