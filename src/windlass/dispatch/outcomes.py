"""Telling whoever a job was done for what became of it: at least once, until they have confirmed it.

The store keeps each end until then; a crash at any point is followed by another telling. Of several servers
the one that made an end tells of it; what it leaves untold, one of them finds, whose turn it is to look. A
server that has none to tell says so to the others, and leaves the ends of jobs that were done for somebody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
import structlog

from windlass.clock import Clock
from windlass.dispatch.job import JOB, Outcome, decode_job, decode_outcome, encode
from windlass.errors import StoreClosed
from windlass.ids import Ids
from windlass.message import End, Life
from windlass.queues.background import Background
from windlass.store import Store

log = structlog.get_logger("windlass.dispatch")

KEPT = 7 * 24 * 3600.0
"""How long an outcome is kept once it is known where it has to be, seconds."""
FAILED_KEPT = 30 * 24 * 3600.0
"""The same of a job that has failed, with all that it was: people may want to know why."""
LOOK = 15.0
"""Seconds between two looks for what other servers left untold."""
LEFT = 15.0
"""Seconds after which an end is taken to be left untold: whoever made it is gone, or cannot tell."""
_MOST_LEFT = 1_000
"""Ends of one such look."""
_AT_ONCE = 16
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LEFT_TO_OTHERS = "outcomes.left"

Listener = Callable[[str, str, int, dict[str, Any]], Awaitable[None]]
"""(job id, owner, generation, outcome). Its return confirms; what it raises is tried again.

The owner is "" where a record cannot be read any more: then only the job's id tells whose it was.
"""


class Outcomes:
    """One task that tells. Started on the first loop that needs it."""

    def __init__(self, store: Store, ids: Ids, clock: Clock, failed_kept: float) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock
        self._ours: dict[int, None] = {}
        """Numbers of the ends that this server has to tell of, where there are others."""
        self._next_look = 0.0
        """For what others left, in the loop's time."""
        self.at_once = False
        """True for tests whose time stands still: what others left is told without waiting for them."""
        self._failed_kept = failed_kept
        self._listener: Listener | None = None
        self._elsewhere = False
        self._background = Background(self._run, "windlass-outcomes")

    def listen(self, listener: Listener) -> None:
        """Whom to tell."""
        self._listener = listener
        self._store.hear(_LEFT_TO_OTHERS, self._left)

    def leave_to_others(self) -> None:
        """Whoever is to be told is known to other servers: nothing of theirs is confirmed here."""
        self._elsewhere = True

    def _left(self, payload: bytes) -> None:
        try:
            self.wake(msgspec.msgpack.decode(payload, type=int))
        except msgspec.DecodeError:  # of another version
            return

    def wake(self, *numbers: int) -> None:
        """Something ended: these, by what this server did."""
        if self._store.shared:
            self._ours.update(dict.fromkeys(numbers))
        self._background.start()
        self._background.wake()

    async def idle(self) -> None:
        """Let the task go on, for a turn of the loop."""
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self._background.stop()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._background.clear()
            try:
                ends = await self._next()
                await self._tell_all(ends)
            except StoreClosed:
                return
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told again
                log.warning("telling_failed", message=f"Told again in {pause:.1f} s: {error}")
                await self._background.rest(pause)  # one that cannot be told is not in the way of others
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            if not ends and not self._ours:
                left = self._next_look - asyncio.get_running_loop().time()
                looks = self._store.shared and not self._elsewhere
                await self._background.rest(max(0, left) if looks else None)

    async def _next(self) -> list[End]:
        """Some that are to be told of now."""
        if not self._store.shared:
            return await self._store.untold(_AT_ONCE)
        loop = asyncio.get_running_loop()
        look, left = (0.0, 0.0) if self.at_once else (LOOK, LEFT)
        if not self._elsewhere and loop.time() >= self._next_look:
            self._next_look = loop.time() + look * random.uniform(0.75, 1.25)
            if await self._store.turn("outcomes", look / 2):
                before = self._clock.now() - round(left * 1000)
                untold = await self._store.untold(_MOST_LEFT)
                self._ours.update((end.number, None) for end in untold if _ended_at(end) <= before)
        numbers = list(islice(self._ours, _AT_ONCE))
        ends: list[End] = []
        for number, life in zip(numbers, await asyncio.gather(*map(self._store.find, numbers)), strict=True):
            self._ours.pop(number, None)
            if life is not None and (life.ended_at is not None or life.state == "dead"):
                ends.append(End(number, life.outcome, life))
                self._ours[number] = None  # until it is told, but behind the others
        return ends

    async def _tell_all(self, ends: Sequence[End]) -> None:
        """Raises the first of what went wrong, once all have been tried."""
        for error in await asyncio.gather(*map(self._tell, ends), return_exceptions=True):
            if error is not None:
                raise error

    async def _tell(self, end: End) -> None:
        try:
            owner, generation, outcome = _told(end)
            known = bool(owner)
        except (msgspec.DecodeError, KeyError, TypeError):
            log.exception("outcome_unreadable", job=end.number)
            owner, generation, known = "", 0, True
            outcome = {"failed": "The job's record cannot be read.", "attempts": end.life.events}
        if known and self._elsewhere:
            self._ours.pop(end.number, None)
            # Where this gets lost they find the end themselves, some seconds later.
            self._store.tell(_LEFT_TO_OTHERS, msgspec.msgpack.encode(end.number))
            return
        if known and self._listener is not None:
            await self._listener(self._ids.numbered(JOB, end.number), owner, generation, outcome)
        died = end.outcome is None
        await self._store.told(end.number, round((self._failed_kept if died else KEPT) * 1000))
        self._ours.pop(end.number, None)


def _ended_at(end: End) -> int:
    """When (ms): of a job that has died, its life's last event."""
    if end.life.ended_at is not None:
        return end.life.ended_at
    return round(datetime.fromisoformat(end.life.events[-1]["at"]).timestamp() * 1000)


def _told(end: End) -> tuple[str, int, dict[str, Any]]:
    if end.outcome is not None:
        kept = decode_outcome(end.outcome)
        return kept.owner, kept.generation, msgspec.json.decode(kept.result)
    job = decode_job(end.life.message.content)
    return job.owner, job.generation, {"failed": failure(end.life.events), "attempts": end.life.events}


def cancelled(life: Life) -> bytes | None:
    """The outcome of a job that people cancel, for its owner; None where it has none."""
    try:
        job = decode_job(life.message.content)
    except msgspec.DecodeError:
        return None
    if not job.owner:
        return None
    told = {"failed": "The job was cancelled.", "attempts": life.events}
    return encode(Outcome(job.owner, job.generation, msgspec.Raw(encode(told))))


def failure(events: list[dict[str, Any]]) -> str:
    """Why a job died, in one sentence, from its last attempt."""
    for event in reversed(events):
        if event["event"] == "given_back":
            return f"The last attempt was handed back: {event.get('reason') or 'no reason given'}"
        if event["event"] == "lease_expired":
            return "The last runner fell silent."
    return "It was set aside."
