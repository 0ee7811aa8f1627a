"""Jobs as people see them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from windlass.dispatch.job import JOB, Job, decode_job, decode_outcome
from windlass.dispatch.job_queues import JobQueues, is_there
from windlass.dispatch.labels import labels_of
from windlass.dispatch.numbers import Numbers
from windlass.dispatch.progress import Numbered, Progress
from windlass.dispatch.relay import Relay
from windlass.errors import JobNotFound, QueueNotFound
from windlass.ids import Ids
from windlass.message import Life, State
from windlass.queues import pulse
from windlass.queues.watching import Watches
from windlass.store import Store

_ANSWERED = 0.05
"""Seconds in which other servers answer, or are taken to have nothing: so all answers come in order."""
_UNDER_WAY = frozenset({"queued", "running"})

_STATES = {
    "ready": "queued",
    "delayed": "queued",
    "blocked": "queued",
    "leased": "running",
    "dead": "failed",
    "acknowledged": "done",
}


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one job."""

    job_id: str
    state: str
    """queued, running, done, failed, cancelled, superseded or unreadable."""
    labels: list[str]
    priority: int
    attempts: int
    """Deliveries that count."""
    events: list[dict[str, Any]]
    """What happened to it: sent, leased (by which runner), given_back (why), lease_expired, dead ..."""
    runner: str | None = None
    submission_id: str | None = None
    command: dict[str, Any] | None = None
    result: Any = None

    @property
    def over(self) -> bool:
        """True once nothing more will come of it."""
        return self.state not in _UNDER_WAY


def view_of(job_id: str, life: Life) -> JobView:
    """A job from its message's life."""
    job = _job(life)
    outcome = decode_outcome(life.outcome) if life.outcome is not None else None
    running = life.state == "leased"
    return JobView(
        job_id=job_id,
        state=_STATES.get(life.state, life.state),
        labels=sorted(labels_of(life.in_queue) or ()),
        priority=life.message.priority,
        attempts=life.message.deliveries,
        events=life.events,
        runner=life.events[-1].get("by") if running and life.events else None,
        submission_id=(outcome.owner if outcome else job.owner if job else "") or None,
        command=job.command if job else None,
        result=msgspec.json.decode(outcome.result) if outcome and life.state == "acknowledged" else None,
    )


def _job(life: Life) -> Job | None:
    try:
        return decode_job(life.message.content)
    except msgspec.DecodeError:
        return None  # it has ended, and its content with it


async def life_of(store: Store, number: int) -> Life:
    """All that is known of a job, living or not; its queue can be named to the store. Raises JobNotFound."""
    life = await store.find(number)
    if life is None or labels_of(life.in_queue) is None or not await is_there(store, life.in_queue):
        raise JobNotFound
    return life


class Views:
    """Looks at jobs, and changes nothing."""

    def __init__(
        self,
        store: Store,
        ids: Ids,
        numbers: Numbers,
        job_queues: JobQueues,
        progress: Progress,
        relay: Relay,
        watches: Watches,
        load: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._ids = ids
        self._numbers = numbers
        self._job_queues = job_queues
        self._progress = progress
        self._relay = relay
        self._watches = watches
        self._load = load

    async def job(self, job_id: str, wait: float = 0, gone: asyncio.Future[None] | None = None) -> JobView:
        """A job as it is; with `wait`, once it has ended, the seconds are over or its client is `gone`.

        Raises JobNotFound.
        """
        await self._load()
        number = await self._numbers.of(job_id)

        async def look() -> JobView:
            life = await life_of(self._store, number)
            if wait:
                self._store.attend(life.in_queue)
            return view_of(job_id, life)

        every = pulse.EVERY if self._store.shared else None
        return await self._watches.until(number, look, lambda view: view.over, wait, gone, every=every)

    async def jobs(self, state: State, limit: int) -> list[JobView]:
        """Jobs in one state of their messages: READY, LEASED or DEAD; those of each queue in order."""
        await self._load()
        if self._store.shared:
            await self._job_queues.catch_up()
        found: list[JobView] = []
        for name in sorted(self._job_queues.asked):
            if len(found) >= limit:
                break
            try:
                messages = await self._store.peek(name, limit - len(found), state)
            except QueueNotFound:
                continue
            for message in messages:
                life = await self._store.find(message.number)
                if life is not None:
                    found.append(view_of(self._ids.numbered(JOB, message.number), life))
        return found

    async def watch(self, job_id: str, last: int, wait: float) -> tuple[list[Numbered], bool]:
        """Events of a job behind number `last`, after `wait` seconds at most; and if that was all."""
        number = await self._numbers.of(job_id)
        if self._store.shared:
            events, over = await self._watch_all(job_id, number, last, wait)
        else:
            events, over = await self._progress.after(number, last, wait)
            if not events and not over:
                over = (await self.job(job_id)).over
        return events, over or self._watches.stopped

    async def _watch_all(
        self, job_id: str, number: int, last: int, wait: float
    ) -> tuple[list[Numbered], bool]:
        """As `watch`, with what other servers are told: they are asked every second."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            self._relay.ask(number)
            await asyncio.sleep(_ANSWERED)
            left = deadline - loop.time()
            events, over = await self._progress.after(number, last, max(0.0, min(left, pulse.EVERY)))
            if not events and not over:
                over = (await self.job(job_id)).over
            if over:  # what was told on the way here may be in other servers still
                self._relay.ask(number)
                await asyncio.sleep(_ANSWERED)
                return (await self._progress.after(number, last, 0))[0], True
            if events or left <= 0 or self._watches.stopped:
                return events, False
