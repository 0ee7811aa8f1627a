"""What is kept of the tasks that move messages out of a queue: with its settings, the latest ten.

Servers that share a store change them at the same time, so a change of what is another by now is made anew.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from windlass.errors import Conflict, StoreUnavailable
from windlass.message import QueueInfo
from windlass.store import Store

ENTRY = "moves"
"""The entry of `QueueSettings.sqs`."""
MOST = 10
RUNNING, COMPLETED, CANCELLING = "RUNNING", "COMPLETED", "CANCELLING"
CANCELLED, FAILED = "CANCELLED", "FAILED"
_TRIES = 20


class Task(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One task."""

    id: str
    queue: int
    """Number of the queue that it moves from: one of the same name that is made later has another."""
    started: int
    """ms since the epoch."""
    total: int
    """How many messages there were to be moved when it started: it moves no more than these."""
    status: str = RUNNING
    destination: str | None = None
    """Name of a queue; None: each message goes back to where it came from."""
    rate: int | None = None
    """Messages a second at most."""
    moved: int = 0
    reason: str | None = None
    """Why it failed."""

    @property
    def active(self) -> bool:
        return self.status in (RUNNING, CANCELLING)


Tasks = list[Task]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Tasks).decode


class Running(Exception):  # noqa: N818 - no error: a state
    """There is an active task already."""


def active(info: QueueInfo) -> bool:
    """Whether a queue has an active task, or seems to."""
    return any(task.active for task in _tasks(info))


def _tasks(info: QueueInfo) -> Tasks:
    try:
        return _decode(info.settings.sqs.get(ENTRY, "[]"))
    except msgspec.DecodeError:  # of another version
        return []


class Records:
    """Reads and writes them, newest first."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, info: QueueInfo) -> Tasks:
        """Those of a queue that was looked at. Raises QueueNotFound."""
        number = self._store.queue_number(info.name)
        return [task for task in _tasks(info) if task.queue == number]

    async def read(self, queue: str) -> Tasks:
        """Raises QueueNotFound."""
        return self.of(await self._store.queue(queue))

    async def begin(self, queue: str, make: Callable[[QueueInfo, int], Task]) -> Task:
        """Add a task, made of the queue as it is then and its number. Raises Running, QueueNotFound."""
        made: list[Task] = []

        def edit(tasks: Tasks, info: QueueInfo) -> Tasks:
            if any(task.active for task in tasks):
                raise Running
            made[:] = [make(info, self._store.queue_number(queue))]
            return [*made, *tasks]

        await self._edit(queue, edit)
        return made[0]

    async def change(
        self, queue: str, task_id: str, changed: Callable[[Task | None], Task | None]
    ) -> Task | None:
        """Write what `changed` makes of a task as it is (None: there is none), and return that; None changes
        nothing. Raises QueueNotFound, and whatever `changed` raises."""
        written: list[Task | None] = []

        def edit(tasks: Tasks, _: QueueInfo) -> Tasks | None:
            before = next((task for task in tasks if task.id == task_id), None)
            after = changed(before)
            written[:] = [after]
            if after is None:
                return None
            if before is None:
                return [after, *tasks]
            return [after if task is before else task for task in tasks]

        await self._edit(queue, edit)
        return written[0]

    async def _edit(self, queue: str, edit: Callable[[Tasks, QueueInfo], Tasks | None]) -> None:
        for _ in range(_TRIES):
            info = await self._store.queue(queue)
            tasks = edit(self.of(info), info)
            if tasks is None:
                return
            kept = info.settings.sqs | {ENTRY: _encode(tasks[:MOST]).decode()}
            try:
                await self._store.update_queue(queue, {"sqs": kept}, was=info.settings)
            except Conflict:
                continue
            return
        raise StoreUnavailable("The queue is changed by others all the time.", retry_after=1)
