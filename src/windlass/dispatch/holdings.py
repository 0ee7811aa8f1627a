"""Who holds which job: an index in memory of the store's claims, never the truth.

The store decides who may extend, complete or give back. This only knows whom to ask for: which deliveries are
not confirmed, and what a heartbeat without a list means. Where other servers give jobs too, it knows of those
of a runner after `catch_up`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import msgspec

from windlass.clock import Clock
from windlass.dispatch.job import Job, decode_job
from windlass.dispatch.job_queues import JobQueues
from windlass.message import Held
from windlass.store import Store

AGAIN = 10.0
"""Seconds after which a delivery that was not confirmed is given to its runner again."""


class Holding:
    """One delivery of a job to a runner."""

    __slots__ = (
        "claim", "confirmed", "delivery", "job", "lease_until", "number", "offered", "queue", "runner",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        delivery: int,
        queue: str,
        runner: str,
        claim: str,
        offered: float,
        lease_until: int,
        job: Job | None = None,
        *,
        confirmed: bool = False,
    ) -> None:
        self.number = number
        self.delivery = delivery
        self.queue = queue
        self.runner = runner
        self.claim = claim
        self.offered = offered
        """When it was last given (monotonic seconds)."""
        self.lease_until = lease_until
        """As far as this process knows, ms since the epoch."""
        self.job = job
        """None: known from an earlier process, and not needed since."""
        self.confirmed = confirmed


class Holdings:
    """All deliveries, by runner and by job."""

    def __init__(self, store: Store, clock: Clock, job_queues: JobQueues) -> None:
        self._store = store
        self._clock = clock
        self._job_queues = job_queues
        self._by_runner: dict[str, dict[int, Holding]] = {}
        self._by_job: dict[int, Holding] = {}

    async def load(self) -> None:
        """Begin with all of the store's claims. Where other servers give jobs, `catch_up` learns of them."""
        if not self._store.shared:
            await self._take_over(await self._store.held(), time.monotonic())

    async def catch_up(self, runner: str) -> None:
        """Know what a runner has on record: other servers may have given it jobs, and taken some back.

        Does nothing where there are no other servers.
        """
        if not self._store.shared:
            return
        before = {each.number: each.delivery for each in self.of(runner)}
        held = await self._store.held(runner)
        for number in before.keys() - {claim.message.number for claim in held}:
            holding = self._by_job.get(number)
            if holding is not None and (holding.runner, holding.delivery) == (runner, before[number]):
                self.drop(number)
        await self._take_over(held, None)

    async def _take_over(self, held: Iterable[Held], offered: float | None) -> None:
        """`offered`: when all of them were given, None: when their leases began."""
        for claim in held:
            message = claim.message
            queue = await self._job_queues.name_of(message.queue)
            known = self._by_job.get(message.number)
            if known is not None and (known.runner, known.delivery) == (claim.holder, message.delivery):
                known.confirmed |= not claim.tentative
                known.lease_until = max(known.lease_until, message.lease_until)
            elif queue is not None:
                ago = (self._clock.now() - claim.since) / 1000
                self.add(
                    Holding(
                        message.number,
                        message.delivery,
                        queue,
                        claim.holder,
                        claim.claim,
                        time.monotonic() - ago if offered is None else offered,
                        message.lease_until,
                        confirmed=not claim.tentative,
                    )
                )

    def add(self, holding: Holding) -> None:
        self.drop(holding.number)  # an earlier delivery, whose lease ran out
        self._by_job[holding.number] = holding
        self._by_runner.setdefault(holding.runner, {})[holding.number] = holding

    def drop(self, number: int) -> None:
        holding = self._by_job.pop(number, None)
        if holding is not None:
            mine = self._by_runner[holding.runner]
            del mine[number]
            if not mine:
                del self._by_runner[holding.runner]

    def of_job(self, number: int) -> Holding | None:
        return self._by_job.get(number)

    def all(self) -> list[Holding]:
        return list(self._by_job.values())

    def knows(self, runner: str, numbers: Iterable[int]) -> bool:
        """True where all of these are this runner's, as far as is known here."""
        mine = self._by_runner.get(runner, {})
        return all(number in mine for number in numbers)

    def of(self, runner: str) -> Iterator[Holding]:
        return iter(list(self._by_runner.get(runner, {}).values()))

    def unconfirmed(self, runner: str, claim: str | None, now: float, at: int) -> Iterator[Holding]:
        """What a runner is to be given again: what it names, or what was given `AGAIN` seconds ago.

        `at`: the time, ms since the epoch; a lease that is over by then is given to nobody.
        """
        for holding in self.of(runner):
            if holding.confirmed or holding.lease_until <= at:
                continue
            if (claim is not None and holding.claim == claim) or now - holding.offered >= AGAIN:
                yield holding

    def forget_over(self, at: int) -> None:
        """Drop what ended long before `at` without anybody's word."""
        for holding in [each for each in self._by_job.values() if each.lease_until < at]:
            self.drop(holding.number)

    async def job_of(self, holding: Holding) -> Job | None:
        """The job of a delivery, None where it has ended."""
        if holding.job is None:
            life = await self._store.find(holding.number)
            if life is None or life.ended_at is not None:
                self.drop(holding.number)
                return None
            try:
                holding.job = decode_job(life.message.content)
            except msgspec.DecodeError:  # the process before this one ended before it was set aside
                self.drop(holding.number)
                return None
        return holding.job

    def __len__(self) -> int:
        return len(self._by_job)
