"""Who holds which job: an index in memory of the store's claims, never the truth.

The store decides who may extend, complete or give back. This only knows whom to ask for: which deliveries are
not confirmed, and what a heartbeat without a list means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from windlass.dispatch.job import Job, decode_job
from windlass.message import Held
from windlass.store import Store

AGAIN = 10.0
"""Seconds after which a delivery that was not confirmed is given to its runner again."""


class Holding:
    """One delivery of a job to a runner."""

    __slots__ = ("claim", "confirmed", "job", "lease_until", "number", "offered", "queue", "runner")

    def __init__(
        self,
        number: int,
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

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_runner: dict[str, dict[int, Holding]] = {}
        self._by_job: dict[int, Holding] = {}

    def load(self, held: Iterable[tuple[Held, str]], offered: float) -> None:
        """Begin with the store's claims and the queues in which they lie."""
        for claim, queue in held:
            self.add(
                Holding(
                    claim.message.number,
                    queue,
                    claim.holder,
                    claim.claim,
                    offered,
                    claim.message.lease_until,
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
