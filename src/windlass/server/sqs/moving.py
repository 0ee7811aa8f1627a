"""Move tasks at work: whatever has an active task has a task of asyncio here, and nothing else runs.

Without a destination the store brings messages back to where they came from, each step in one commit. With
one, a message is leased, sent to the destination under a key of its own, and acknowledged: whoever does it
again after a crash sends nothing twice. Of servers that share a store one works, in turns; the others look
now and then whether it still does.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import msgspec
import structlog

from windlass.errors import QueueNotFound, StoreClosed, WindlassError
from windlass.queues import Queues
from windlass.queues.background import Background
from windlass.server.sqs import move_tasks
from windlass.server.sqs.carrying import LEASE, Carrier, Hopeless
from windlass.server.sqs.move_tasks import CANCELLED, CANCELLING, COMPLETED, FAILED, Records, Task

log = structlog.get_logger("windlass.sqs")

TURN = 10.0
"""Seconds for which one of several servers works on a task before they ask again whose turn it is: and the
longest that nobody does when it is gone."""
_MARGIN = 0.05
"""Part of a turn in which nothing is begun any more."""
_SAVED_EVERY = 1_000
"""ms between two notes of how far a task is."""
_BITE = 100
"""Messages of one step."""
_STEPS = 10
"""Steps a second in which a task with a rate moves."""
_RETRY = 1.0
"""Seconds between looks at what goes on without being told: a fault, a pause, a lease of a former life."""
_PAGE = 1_000
_TOPIC = "sqs.moves"
UNKNOWN_SOURCE = "CouldNotDetermineMessageSource"
"""Why a task without a destination fails: what is left in the queue was sent to it, and is no dead letter."""


class _Work:
    """One queue whose messages are being moved."""

    def __init__(self, source: str, task: Task | None) -> None:
        self.source = source
        self.task = task
        """As far as it is known here; None: it has to be read."""
        self.stale = False
        """True once somebody may have changed it."""
        self.saved: tuple[int, int] = (0, 0)
        """How many were moved when that was written last, and when that was."""
        self.next_at = 0
        """When its rate lets the next step begin, ms."""
        self.patience = 0
        """Until when leases of theirs may last, ms; 0: there are none."""
        self.empty = 0
        """Steps in a row that found nothing."""
        self.failing = False
        self.resting = False
        self.over = False
        """True once there is a task after its own."""
        self.background: Background


class Moving:
    """All of it, of one server."""

    def __init__(self, queues: Queues, turn: float = TURN) -> None:
        self._store = queues.store
        self._clock = queues.store.clock
        self._turn = turn
        self._works: dict[str, _Work] = {}
        self._all: set[_Work] = set()
        """Those, and such as have a successor and are about to end."""
        self._turns: dict[str, float] = {}
        """Queue -> until when it is this server's turn to work on it, in the loop's time."""
        self._stopped = True
        self._search = Background(self._find, "windlass-moves")
        self.records = Records(self._store)
        self._carrier = Carrier(self._store)
        self._store.hear(_TOPIC, self._heard)

    def start(self) -> None:
        """Go on with the tasks that there are, once those are found."""
        self._stopped = False
        self._search.start()

    async def stop(self) -> None:
        """Once the steps under way are done. Whatever is left goes on at the next start."""
        self._stopped = True
        await self._search.stop()
        for work in list(self._all):
            await work.background.stop()
        self._works.clear()
        self._all.clear()

    @property
    def running(self) -> list[str]:
        """The queues that are being worked on, or looked at."""
        return list(self._works)

    def begin(self, source: str, task: Task) -> None:
        """A task was started here."""
        before = self._works.get(source)
        if before is not None:
            before.over = True
            before.background.wake()
        self._add(source, task)
        self._store.tell(_TOPIC, source.encode())

    def changed(self, source: str) -> None:
        """A task was changed here."""
        self._heard(source.encode())
        self._store.tell(_TOPIC, source.encode())

    def moved(self, source: str, task: Task) -> int:
        """How many messages a task has moved, as far as is known here."""
        work = self._works.get(source)
        if work is None or work.task is None or work.task.id != task.id:
            return task.moved
        return max(task.moved, work.task.moved)

    @property
    def at_rest(self) -> bool:
        """True while all work waits for its time."""
        return all(work.resting for work in self._all)

    def wake(self) -> None:
        """Look at the clock: it was moved."""
        for work in self._all:
            work.resting = False
            work.background.wake()

    # --- which there are --------------------------------------------------------------------------

    async def _find(self) -> None:
        after = ""
        while True:
            try:
                page = await self._store.queues("", after, _PAGE)
            except StoreClosed:
                return
            except WindlassError as error:
                log.warning("moves_not_found_yet", error=error.detail)
                await self._search.rest(_RETRY)
                continue
            for info in page:
                if move_tasks.active(info) and info.name not in self._works:
                    self._add(info.name, None)
            if len(page) < _PAGE:
                return
            after = page[-1].name

    def _heard(self, payload: bytes) -> None:
        """Another server began a task, works on one, or has changed one."""
        source = payload.decode("utf-8", "replace")
        work = self._works.get(source)
        if work is None:
            if not self._stopped:
                self._add(source, None)
            return
        work.stale = True
        work.background.wake()

    def _add(self, source: str, task: Task | None) -> None:
        if self._stopped:
            return
        work = self._works[source] = _Work(source, task)
        self._all.add(work)
        work.background = Background(partial(self._run, work), f"windlass-move-{source}")
        work.background.start()

    # --- one of them ------------------------------------------------------------------------------

    async def _run(self, work: _Work) -> None:
        try:
            with contextlib.suppress(StoreClosed):
                await self._go_on(work)
        except asyncio.CancelledError:
            await self._save_at_last(work)
            raise
        self._all.discard(work)
        if self._works.get(work.source) is work:
            del self._works[work.source]

    async def _go_on(self, work: _Work) -> None:
        """Raises StoreClosed."""
        while not work.over:
            work.background.clear()
            try:
                wait = await self._step(work)
                work.failing = False
            except StoreClosed:
                raise
            except QueueNotFound:
                wait = None  # the source is gone, and all in it
            except WindlassError as error:
                if not work.failing:
                    log.warning("move_waits", queue=work.source, error=error.detail)
                work.failing, wait = True, _RETRY
            except Exception:
                log.exception("move_failed", queue=work.source)
                wait = _RETRY
            if wait is None:
                return
            work.resting = wait > 0
            await work.background.rest(wait)
            work.resting = False

    async def _save_at_last(self, work: _Work) -> None:
        try:
            if work.task is not None and work.task.moved > work.saved[0]:
                await self._save(work)
        except WindlassError as error:
            log.warning("move_not_noted", queue=work.source, error=error.detail)

    async def _step(self, work: _Work) -> float | None:
        """Do some of it; seconds until the next step, None: it is over."""
        if work.task is None:
            await self._store.learn(work.source)  # another server may have made it
        if self._store.shared and not await self._has_turn(work):
            if work.task is not None:
                return self._turn * _MARGIN
            tasks = await self.records.read(work.source)
            return self._turn / 2 if any(task.active for task in tasks) else None
        if work.task is None:
            work.patience = self._clock.now() + LEASE
            task = next((task for task in await self.records.read(work.source) if task.active), None)
            if task is None:
                return None
            work.task = task
            work.saved = (task.moved, self._clock.now())
        now = self._clock.now()
        if (work.stale or now - work.saved[1] >= _SAVED_EVERY) and not await self._save(work):
            return None
        if work.task.status == CANCELLING:
            return await self._cancel(work, work.task)
        if now < work.next_at and work.task.moved < work.task.total:
            return (work.next_at - now) / 1000
        return await self._move(work, work.task)

    async def _has_turn(self, work: _Work) -> bool:
        """Whether this server goes on with it now. Where another one does, its task is to be read anew."""
        began, until = asyncio.get_running_loop().time(), self._turns.get(work.source, 0.0)
        if began < until:
            return True
        if work.task is not None and work.task.moved > work.saved[0]:
            await self._save(work)
        number = self._store.queue_number(work.source)
        got = await self._store.turn(f"sqs.moves.{number}", self._turn)
        longest = self._turn * (1 if got else 2 * _MARGIN) if until else 0.0
        if until + longest < began and (until or not got):
            work.task = None  # another server may have gone on with it
        if got:
            self._turns = {name: over for name, over in self._turns.items() if over > began}
            self._turns[work.source] = began + self._turn * (1 - _MARGIN)
        return got

    async def _move(self, work: _Work, task: Task) -> float | None:
        before, now = task.moved, self._clock.now()
        most = min(_BITE, task.total - task.moved)
        if task.rate is not None:
            most = min(most, max(1, task.rate // _STEPS))
        if most <= 0:
            await self._end(work, COMPLETED)
            return None
        try:
            if task.destination is None:
                moved, nothing = await self._store.redrive(work.source, most)
                task.moved += moved
            else:
                if await self._leased_by_others(work):
                    return _RETRY
                nothing = await self._carrier.carry(work.source, task, most)
        except Hopeless as error:
            await self._end(work, FAILED, error.reason)
            return None
        finally:
            if task.rate is not None:
                work.next_at = now + -(-(task.moved - before) * 1000 // task.rate)
        if nothing:
            return await self._nothing_left(work, task)
        work.empty = 0
        return 0.0

    async def _leased_by_others(self, work: _Work) -> bool:
        """Whether what a former life of this task has leased may come back yet, ahead of all others."""
        if work.patience:
            info = await self._store.queue(work.source)
            if not info.leased or self._clock.now() >= work.patience:
                work.patience = 0
        return work.patience > 0

    async def _nothing_left(self, work: _Work, task: Task) -> float | None:
        info = await self._store.queue(work.source)
        if task.destination is not None and info.paused:
            return _RETRY
        work.empty += 1
        if info.ready and work.empty < 3:  # it came a moment ago
            return 0.0
        if info.ready and task.destination is None and task.moved < task.total:
            await self._end(work, FAILED, UNKNOWN_SOURCE)
        else:
            await self._end(work, COMPLETED)
        return None

    async def _cancel(self, work: _Work, task: Task) -> float | None:
        """End it; but what was sent and could not be acknowledged is not left in both queues."""
        if task.destination is not None:
            if await self._leased_by_others(work):
                return _RETRY
            with contextlib.suppress(Hopeless):  # no destination: nothing is in it
                if not await self._carrier.carry(work.source, task, _BITE, begun=True):
                    return 0.0
        await self._end(work, CANCELLED)
        return None

    # --- what is kept of it -----------------------------------------------------------------------

    async def _save(self, work: _Work) -> bool:
        """Note how far it is, and see whether somebody cancels it; False: it is over, elsewhere."""
        task = self._checked(work)
        work.stale = False
        seen: list[Task] = []

        def merged(kept: Task | None) -> Task | None:
            if kept is None:
                return task
            seen[:] = [kept]
            after = msgspec.structs.replace(task, status=kept.status, moved=max(task.moved, kept.moved))
            return None if after == kept else after

        await self.records.change(work.source, task.id, merged)
        work.saved = (task.moved, self._clock.now())
        if seen:
            task.status = seen[0].status
        if self._store.shared:
            self._store.tell(_TOPIC, work.source.encode())
        return task.active

    async def _end(self, work: _Work, status: str, reason: str | None = None) -> None:
        """The end of a task, whatever it is; who cancelled it is told so, though nothing was left."""
        task = self._checked(work)

        def ended(kept: Task | None) -> Task:
            cancelled = kept is not None and kept.status == CANCELLING and status == COMPLETED
            return msgspec.structs.replace(task, status=CANCELLED if cancelled else status, reason=reason)

        await self.records.change(work.source, task.id, ended)
        task.status = status

    def _checked(self, work: _Work) -> Task:
        """Its task. Raises QueueNotFound where its queue is another one by now."""
        assert work.task is not None
        if self._store.queue_number(work.source) != work.task.queue:
            raise QueueNotFound
        return work.task
