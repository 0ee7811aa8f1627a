"""Jobs while they run: their runners keep the leases, and tell how it goes."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from windlass.dispatch.gate import Gate
from windlass.dispatch.holdings import Holdings
from windlass.dispatch.job import Job
from windlass.dispatch.numbers import Numbers
from windlass.dispatch.progress import Progress
from windlass.dispatch.runners import Runner, Runners
from windlass.errors import CodeLinkInvalid, JobNotFound, StoreUnavailable
from windlass.message import Extension, Settled
from windlass.store import Store

Started = Callable[[str, int], Awaitable[None]]
"""(owner, generation): a runner has begun with its job."""


class Control(msgspec.Struct, frozen=True):
    """Jobs that a runner named and does not hold any more."""

    lost: list[str]
    cancelled: list[str]
    superseded: list[str]


class Leases:
    """The leases of jobs, each as long as its runner is heard of."""

    def __init__(
        self,
        store: Store,
        numbers: Numbers,
        lease: int,
        holdings: Holdings,
        runners: Runners,
        progress: Progress,
        load: Callable[[], Awaitable[None]],
    ) -> None:
        """`lease`: how long one lasts, ms."""
        self._store = store
        self._numbers = numbers
        self._lease = lease
        self._holdings = holdings
        self._runners = runners
        self._progress = progress
        self._load = load
        self._heartbeats = Gate()
        self._started: Started | None = None

    def on_start(self, listener: Started) -> None:
        """Whom to tell when a runner has begun. Only for people: nothing depends on it."""
        self._started = listener

    async def hold_to_the_longest(self) -> None:
        """The store gave confirmed leases a new start: none of them past the most that its job may last.

        One that is shared did not, and nothing of it is known here.
        """
        confirmed = [each for each in self._holdings.all() if each.confirmed]
        limits = [await self._extension(each.runner, each.number, None) for each in confirmed]
        for each, until in zip(confirmed, await self._store.extend(None, limits), strict=True):
            if isinstance(until, Settled):
                self._holdings.drop(each.number)
            else:
                each.lease_until = until

    async def heartbeat(self, runner: Runner, job_ids: Sequence[object] | None) -> Control:
        """Keep a runner's leases: of the jobs it names, or without a list all that it is known to have."""
        await self._load()
        await self._runners.seen(runner)
        control = Control([], [], [])
        if job_ids is None:
            await self._holdings.catch_up(runner.id)
            mine = {each.number: "" for each in self._holdings.of(runner.id) if each.confirmed}
        else:
            mine = {}
            for job_id in job_ids:
                if isinstance(job_id, str):
                    try:
                        mine[await self._numbers.of(job_id)] = job_id
                    except JobNotFound:
                        control.lost.append(job_id)
        if not mine:
            return control
        if not self._holdings.knows(runner.id, mine):  # only who knows a job knows how long it may last
            await self._holdings.catch_up(runner.id)
        await self._heartbeats.passed()
        extensions = [await self._extension(runner.id, number, self._lease) for number in mine]
        for (number, job_id), until in zip(
            mine.items(), await self._store.extend(None, extensions), strict=True
        ):
            holding = self._holdings.of_job(number)
            if not isinstance(until, Settled):
                if holding is not None and holding.runner == runner.id:
                    holding.confirmed, holding.lease_until = True, until
            else:
                if holding is not None and holding.runner == runner.id:
                    self._holdings.drop(number)
                if job_id:
                    (await self._why(number, control)).append(job_id)
        return control

    async def _extension(self, runner: str, number: int, lease: int | None) -> Extension:
        holding = self._holdings.of_job(number)
        job = await self._holdings.job_of(holding) if holding is not None else None
        longest = (job or Job()).max_seconds * 1000
        return Extension(number, lease, holder=runner, longest=longest)

    async def _why(self, number: int, control: Control) -> list[str]:
        """The list of `control` to which a job belongs that its runner does not hold any more."""
        life = await self._store.find(number)
        state = life.state if life is not None else ""
        return {"cancelled": control.cancelled, "superseded": control.superseded}.get(state, control.lost)

    async def confirm(self, runner: Runner, job_id: str) -> Job:
        """A runner fetches its job's source: it has the job. Raises CodeLinkInvalid where it has not."""
        await self._load()
        number = await self._numbers.of(job_id)
        (until,) = await self._store.extend(None, [Extension(number, None, holder=runner.id)])
        if not isinstance(until, Settled) and not self._holdings.knows(runner.id, [number]):
            await self._holdings.catch_up(runner.id)
        holding = self._holdings.of_job(number)
        if isinstance(until, Settled) or holding is None:
            raise CodeLinkInvalid("The lease of this job is over.")
        holding.confirmed = True
        job = await self._holdings.job_of(holding)
        if job is None:
            raise CodeLinkInvalid("The job is over.")
        if self._started is not None and job.owner:
            with contextlib.suppress(StoreUnavailable):  # only people look at it
                await self._started(job.owner, job.generation)
        return job

    async def tell(self, runner: Runner, job_id: str, events: Sequence[dict[str, Any]]) -> None:
        """What a runner tells of a job it holds; of others it is passed over."""
        number = await self._numbers.of(job_id)
        if not self._holdings.knows(runner.id, [number]):
            await self._holdings.catch_up(runner.id)
        if self._holdings.knows(runner.id, [number]):
            self._progress.tell(number, *events)
