"""Jobs on the queue engine: in, out to runners, and back with an outcome.

A job is a message of `windlass.jobs`, or of that queue with labels behind it; a runner's lease of it is the
message's lease, and what the runner brings is the outcome of its acknowledgement. There is no other lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Sequence

import msgspec
import structlog

from windlass.clock import Clock
from windlass.dispatch import labels
from windlass.dispatch.holdings import Holding, Holdings
from windlass.dispatch.job import JOB, Delivery, Job, decode_job, encode
from windlass.dispatch.job_queues import JobQueues
from windlass.dispatch.labels import Labels
from windlass.dispatch.leases import Leases
from windlass.dispatch.links import Links
from windlass.dispatch.numbers import Numbers
from windlass.dispatch.outcomes import FAILED_KEPT, Outcomes, cancelled
from windlass.dispatch.progress import Progress
from windlass.dispatch.relay import Relay
from windlass.dispatch.results import Results
from windlass.dispatch.runners import Runner, Runners
from windlass.dispatch.view import Views, life_of
from windlass.errors import JobNotFound, MessageGone, StoreClosed, WindlassError
from windlass.message import Message, Once, Options
from windlass.queues import Queues
from windlass.queues.background import Background
from windlass.queues.pulse import Pulse
from windlass.queues.waiting import Lines
from windlass.queues.watching import Watches
from windlass.store import Caller, Changes

log = structlog.get_logger("windlass.dispatch")

MAX_TAKEN = 100
"""Jobs that a runner takes at once, at most."""
_SWEEP_EVERY = 60.0
"""Seconds after which deliveries that nobody spoke of again are forgotten here."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How fast runners are asked to be. Seconds."""

    lease: float = 30
    heartbeat: float = 15
    poll: float = 3
    jobs: int = 8
    """Jobs that a runner may hold at once."""


class Dispatch:
    """The jobs of one installation, in one process."""

    def __init__(
        self,
        queues: Queues,
        clock: Clock,
        *,
        registration_token: str | None = None,
        timing: Timing | None = None,
        failed_kept: float = FAILED_KEPT,
    ) -> None:
        self._queues = queues
        self._store = queues.store
        self._ids = queues.ids
        self._clock = clock
        self.timing = timing or Timing()
        self._lease = round(self.timing.lease * 1000)
        self._job_queues = JobQueues(self._store, self.timing.lease)
        self._numbers = Numbers(self._store, self._ids, self._job_queues, self.load)
        self.runners = Runners(self._store, self._ids, clock, queues.registry, registration_token)
        self.links = Links(self.runners, self._ids, clock)
        self.progress = Progress()
        relay = Relay(self._store, self.progress)
        self.outcomes = Outcomes(self._store, self._ids, clock, failed_kept)
        self.watches = Watches()
        self.views = Views(
            self._store,
            self._ids,
            self._numbers,
            self._job_queues,
            self.progress,
            relay,
            self.watches,
            self.load,
        )
        self._holdings = Holdings(self._store, clock, self._job_queues)
        self.leases = Leases(
            self._store, self._numbers, self._lease, self._holdings, self.runners, self.progress, self.load
        )
        self.results = Results(
            self._store,
            self._numbers,
            self._holdings,
            self.progress,
            self.outcomes,
            self.load,
            self.claim,
        )
        self._lines = Lines()
        self._offers: dict[str, Labels] = {}
        """Key of a line -> the labels that those in it offer."""
        self._coming: Counter[str] = Counter()
        """Jobs under way to the disk, by queue."""
        self._swept = time.monotonic()
        self._loading = asyncio.Lock()
        self._loaded = False
        self._commands_only = False
        self._pulse = Pulse(self._waited_for, self._look, "windlass-next-jobs")
        self._following = Background(self._follow, "windlass-job-queues")
        queues.registry.listen(self._following.wake)
        self._store.listen(self._changed)

    # --- life -----------------------------------------------------------------------------------------

    def leave_owned(self) -> None:
        """Whoever owns jobs is known to other servers: those are given to no runner here, and their ends are
        left to be told there."""
        self._commands_only = True
        self.outcomes.leave_to_others()

    async def load(self) -> None:
        """Find what an earlier process left. Everything else calls this first; it does its work once."""
        if not self._loaded:
            async with self._loading:
                await self._load()

    async def _load(self) -> None:
        if not self._loaded:
            await self._job_queues.load()
            await self._holdings.load()
            await self.leases.hold_to_the_longest()
            await self.runners.forget_old()
            self._loaded = True
            self.outcomes.wake()
            self._queues.start()
            if self._store.shared:
                self._following.start()

    def release_waiters(self) -> None:
        """Let long polls go, now and from now on."""
        self._lines.stop()
        self.watches.stop()
        self.progress.wake_all()

    async def stop(self) -> None:
        await self._following.stop()
        await self._pulse.stop()
        await self.outcomes.stop()

    def _changed(self, changes: Changes) -> None:
        for name, amount in changes.ready.items():
            if name in self._job_queues.asked:
                # Less what was foreseen, and is taken already: of a shared store it is not known here.
                self._wake(name, amount if self._store.shared else min(amount, self._store.ready(name)))
        self.watches.tell(changes.ended)
        self.watches.tell(changes.died)
        for number in changes.died if not changes.elsewhere else ():
            self.progress.end(number, {"event": "failed"})
        if changes.died and self._loaded and not changes.elsewhere:
            self.outcomes.wake(*changes.died)

    async def _follow(self) -> None:
        """Know the queues of jobs that other servers make."""
        while True:
            self._following.clear()
            try:
                known = set(self._job_queues.asked)
                await self._job_queues.catch_up()
                for name in self._job_queues.asked.keys() - known:
                    await self._look(name)
            except StoreClosed:
                return
            except WindlassError as error:
                log.warning("job_queues_behind", error=error.detail)
                await self._following.rest(1)
                continue
            await self._following.rest(None)

    def _waited_for(self) -> list[str]:
        """The queues that those look into who wait for jobs."""
        offers = [self._offers[key] for key in self._lines.waited_for()]
        return sorted({name for offered in offers for name in self._job_queues.looked_into(offered)})

    async def _look(self, queue: str) -> None:
        """Whoever waits for jobs of this queue tries for what other servers have brought into it."""
        self._store.attend(queue)
        info = await self._store.queue(queue)
        if info.ready:
            self._wake(queue, info.ready)

    def _wake(self, queue: str, amount: int) -> None:
        asked = self._job_queues.asked[queue]
        for key, offered in self._offers.items():
            if asked <= offered:
                self._lines.wake(key, amount)

    def _ready(self, queue: str) -> int:
        """Jobs that can be taken, and those that will be with the next commit."""
        return self._store.ready(queue) + self._coming[queue]

    # --- in -------------------------------------------------------------------------------------------

    async def submit(
        self,
        job: Job,
        *,
        dedup: str | None = None,
        priority: int = 0,
        asked: Sequence[object] = (),
        once: Once | None = None,
    ) -> str:
        """Have a job done; its id, once it is on disk.

        The same `dedup` is the same job for 30 days, the same Idempotency-Key (`once`) for a day. Raises
        Invalid, and what the store raises; then there is no job.
        """
        await self.load()
        queue = await self._job_queues.of(labels.check(asked, most=labels.MAX_ASKED))
        plain = dedup is None and not priority
        options = None if plain else [Options(priority=priority, dedup_id=dedup)]
        sending = self._store.send(queue, [encode(job)], options, once)
        self._foresee(queue)
        try:
            sent = await sending
        finally:
            self._coming[queue] -= 1
        return self._ids.numbered(JOB, sent.numbers[0])

    def _foresee(self, queue: str) -> None:
        """A job is on its way to the disk: who waits for one makes an attempt that joins its commit."""
        self._coming[queue] += 1
        self._wake(queue, 1)

    async def cancel(self, job_id: str) -> None:
        """This job never runs again, and a late result of it is refused. Its owner is told that it failed.

        Raises JobNotFound, MessageGone for one that has ended.
        """
        await self._end(job_id, "cancelled", told=True)

    async def _end(self, job_id: str, how: str, *, told: bool) -> None:
        number = await self._numbers.of(job_id)
        life = await life_of(self._store, number)
        outcome = cancelled(life) if told else None
        await self._store.cancel(life.in_queue, number, leased=True, how=how, outcome=outcome)
        self._holdings.drop(number)  # or one that is not confirmed would be given again
        self.progress.tell(number, {"event": how}, over=True)
        if outcome is not None:
            self.outcomes.wake(number)

    async def supersede(self, job_id: str) -> None:
        """A newer job takes this one's place. One that has ended stays as it is."""
        try:
            await self._end(job_id, "superseded", told=False)
        except (MessageGone, JobNotFound):
            return

    # --- out ------------------------------------------------------------------------------------------

    async def claim(
        self,
        runner: Runner,
        claim: str | None = None,
        wait: float = 0,
        caller: Caller | None = None,
        gone: asyncio.Future[None] | None = None,
        limit: int = 1,
    ) -> list[Delivery]:
        """The next jobs for a runner, up to `limit`: those that it was given before and may not have got, or
        new ones, and of these no more than its share where others wait."""
        await self.load()
        if time.monotonic() - self._swept > _SWEEP_EVERY:
            self._swept = time.monotonic()
            self._forget_over()
        again = await self._again(runner, claim, limit)
        if again:
            return again
        name = claim or secrets.token_hex(8)
        key = ",".join(sorted(runner.labels))

        def attempt() -> asyncio.Future[list[Message]]:
            return asyncio.ensure_future(self._take(runner, name, key, caller, limit))

        while True:
            if wait > 0:
                self._offers.setdefault(key, runner.labels)
                if self._store.shared:
                    self._attend(runner.labels)
                messages = await self._lines.wait(key, wait, attempt, gone)
            elif self._lines.idle(key):
                return []  # whatever comes next is for those who wait
            else:
                messages = await attempt()
            if not messages:
                return []
            deliveries = [await self._deliver(runner, name, message) for message in messages]
            readable = [delivery for delivery in deliveries if delivery is not None]
            if readable:
                return readable
            wait = min(wait, 1)  # what was there is unreadable and set aside: the next

    def _attend(self, offered: Labels) -> None:
        for queue in self._job_queues.looked_into(offered):
            self._store.attend(queue)
        self._pulse.start()

    def _forget_over(self) -> None:
        """Forget deliveries that nobody spoke of again, and labels that nobody offers who waits."""
        self._holdings.forget_over(self._clock.now())
        self._offers = {key: found for key, found in self._offers.items() if self._lines.waiting(key)}

    async def _again(self, runner: Runner, claim: str | None, limit: int) -> list[Delivery]:
        """What a runner was given before and may not have got."""
        await self._holdings.catch_up(runner.id)
        found: list[Delivery] = []
        for holding in self._holdings.unconfirmed(runner.id, claim, time.monotonic(), self._clock.now()):
            job = await self._holdings.job_of(holding)
            if job is not None and not self._is_left(job):
                holding.offered = time.monotonic()
                holding.claim = claim or holding.claim
                found.append(Delivery(self._ids.numbered(JOB, holding.number), job))
                if len(found) == limit:
                    break
        return found

    async def _take(
        self, runner: Runner, claim: str, key: str, caller: Caller | None, limit: int
    ) -> list[Message]:
        queues = self._job_queues.looked_into(runner.labels)
        if self._store.shared:  # what is ready is not known here: those of which it is come first
            queues = sorted(queues, key=lambda queue: not self._ready(queue))
        for queue in queues:
            share = limit
            if limit > 1 or len(queues) > 1:
                ready = self._ready(queue)
                if not ready and len(queues) > 1 and not self._store.shared:
                    continue
                others = self._lines.waiting(key) > 1
                if ready or others or not self._store.shared:
                    share = max(1, min(limit, -(-ready // max(1, self._lines.waiting(key)))))
            if self._commands_only:
                share = await self._unowned(queue, share)
                if not share:
                    continue
            got = await self._store.receive(queue, share, self._lease, runner.id, caller, claim)
            if got:
                return got
        return []

    def _is_left(self, job: Job) -> bool:
        return self._commands_only and bool(job.owner)

    async def _unowned(self, queue: str, limit: int) -> int:
        """How many of a queue's next jobs, up to `limit`, may be given here. The first that may not is in the
        way of those behind it, until another server has given it."""
        for count, message in enumerate(await self._store.peek(queue, limit)):
            with contextlib.suppress(msgspec.DecodeError):
                if self._is_left(decode_job(message.content)):
                    return count
        return limit

    async def _deliver(self, runner: Runner, claim: str, message: Message) -> Delivery | None:
        queue = await self._job_queues.name_of(message.queue)
        assert queue is not None, "it was received from it"
        try:
            job = decode_job(message.content)
        except msgspec.DecodeError as error:
            log.exception("job_unreadable", job=message.number)
            await self._store.release(
                queue, message.number, message.delivery, reason=f"unreadable: {error}", last=True
            )
            return None
        if self._is_left(job):  # another took what was in front of it meanwhile
            await self._store.release(
                queue, message.number, message.delivery, reason="its judge is elsewhere", counts=False
            )
            return None
        self._holdings.add(
            Holding(
                message.number,
                message.delivery,
                queue,
                runner.id,
                claim,
                time.monotonic(),
                message.lease_until,
                job,
            )
        )
        job_id = self._ids.numbered(JOB, message.number)
        self.progress.tell(message.number, {"event": "started", "runner": runner.name})
        return Delivery(job_id, job)

    # --- looking --------------------------------------------------------------------------------------

    async def seen(self) -> list[tuple[Runner, float, int]]:
        """Each runner, how many seconds ago it was seen, and how many jobs it holds.

        Where it talks to other servers, that it was seen may be known here a minute late.
        """
        await self.runners.look_at_all()
        now = self._clock.now()
        if self._store.shared:
            held = [(claim.holder, claim.message.lease_until) for claim in await self._store.held()]
        else:
            held = [(holding.runner, holding.lease_until) for holding in self._holdings.all()]
        jobs = Counter(runner for runner, lease_until in held if lease_until > now)
        return [(runner, (now - runner.seen_at) / 1000, jobs[runner.id]) for runner in self.runners.all()]
