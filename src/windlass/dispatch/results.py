"""What comes back from runners: results, and jobs that they cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from windlass.dispatch.holdings import Holdings
from windlass.dispatch.job import Delivery, Job, check_result, decode_job, encode
from windlass.dispatch.numbers import Numbers
from windlass.dispatch.outcomes import Outcomes
from windlass.dispatch.progress import Progress
from windlass.dispatch.runners import Runner
from windlass.dispatch.view import life_of
from windlass.errors import JobLost, JobNotFound, ReceiptGone, ReceiptStale, WindlassError
from windlass.message import Acknowledgement, Settled, State
from windlass.store import Caller, Store

NOT_ITS_FAULT = frozenset({"drain", "shutdown"})
"""Reasons of an abort that do not count as an attempt."""
MAX_REASON = 200
_BIG = 256 * 1024


class Claim(Protocol):
    """Gives a runner jobs: Dispatch.claim."""

    def __call__(
        self, runner: Runner, claim: str | None = None, *, caller: Caller | None = None, limit: int = 1
    ) -> Coroutine[Any, Any, list[Delivery]]: ...


class Results:
    """Takes what runners bring, from whoever holds the job."""

    def __init__(
        self,
        store: Store,
        numbers: Numbers,
        holdings: Holdings,
        progress: Progress,
        outcomes: Outcomes,
        load: Callable[[], Awaitable[None]],
        claim: Claim,
    ) -> None:
        """`claim` gives the jobs that come in exchange."""
        self._store = store
        self._numbers = numbers
        self._holdings = holdings
        self._progress = progress
        self._outcomes = outcomes
        self._load = load
        self._claim = claim

    async def complete(self, runner: Runner, job_id: str, body: bytes) -> None:
        """Take a result, from whoever holds the job. The same runner may repeat it.

        Raises JobNotFound, JobLost, ResultMalformed.
        """
        (refusal,), _ = await self.exchange(runner, [(job_id, body)])
        if refusal is not None:
            raise refusal

    async def exchange(
        self,
        runner: Runner,
        results: Sequence[tuple[str, bytes]],
        claim: str | None = None,
        limit: int = 0,
        caller: Caller | None = None,
    ) -> tuple[list[WindlassError | None], list[Delivery]]:
        """Take results, (job id, body) each, and give up to `limit` jobs in the places of those that make
        sense; in one commit, where the jobs are of one queue.

        For each result None, or why it was not taken, as `complete` raises it.
        """
        await self._load()
        refusals: list[WindlassError | None] = [None] * len(results)
        taken: dict[str, list[tuple[int, Acknowledgement]]] = {}
        for place, (job_id, body) in enumerate(results):
            try:
                queue, acknowledgement = await self._read(runner, await self._numbers.of(job_id), body)
                taken.setdefault(queue, []).append((place, acknowledgement))
            except WindlassError as error:
                refusals[place] = error
        under_way = [
            (each, self._store.acknowledge(queue, [ack for _, ack in each])) for queue, each in taken.items()
        ]
        limit = min(limit, refusals.count(None))
        claiming = None
        if limit:
            claiming = asyncio.ensure_future(self._claim(runner, claim, caller=caller, limit=limit))
        for each, settling in under_way:
            try:
                settled: Sequence[Settled | WindlassError] = await settling
            except WindlassError as error:
                settled = [error] * len(each)
            for (place, acknowledgement), how in zip(each, settled, strict=True):
                if how is Settled.ACKNOWLEDGED:
                    self._completed(acknowledgement)
                else:
                    known = how if isinstance(how, WindlassError) else None
                    refusals[place] = known or await self._refusal(acknowledgement.number)
        return refusals, await claiming if claiming is not None else []

    async def _read(self, runner: Runner, number: int, body: bytes) -> tuple[str, Acknowledgement]:
        """A result as the queue takes it: checked, with what its owner will be told."""
        queue, job = await self._whose(runner, number)
        if job is None:  # a repeat, perhaps: the record knows
            return queue, Acknowledgement(number, holder=runner.id, tell=True)
        if len(body) > _BIG:
            await asyncio.to_thread(check_result, job, body)
        else:
            check_result(job, body)
        outcome = b'{"owner":%b,"generation":%d,"result":%b}' % (encode(job.owner), job.generation, body)
        # A job without an owner is nobody's to be told of: its record is kept as if that were done.
        return queue, Acknowledgement(number, outcome=outcome, holder=runner.id, tell=bool(job.owner))

    def _completed(self, acknowledgement: Acknowledgement) -> None:
        self._holdings.drop(acknowledgement.number)
        self._progress.tell(acknowledgement.number, {"event": "done"}, over=True)
        if acknowledgement.tell:
            self._outcomes.wake(acknowledgement.number)

    async def abort(self, runner: Runner, job_id: str, reason: str) -> None:
        """Take a job back that its runner cannot do: another may have it at once.

        Raises JobNotFound, JobLost.
        """
        await self._load()
        number = await self._numbers.of(job_id)
        queue, _ = await self._whose(runner, number)
        try:
            await self._store.release(
                queue,
                number,
                holder=runner.id,
                reason=reason[:MAX_REASON],
                counts=reason not in NOT_ITS_FAULT,
            )
        except (ReceiptStale, ReceiptGone):
            raise await self._refusal(number) from None
        self._holdings.drop(number)
        self._progress.tell(
            number, {"event": "given_back", "runner": runner.name, "reason": reason[:MAX_REASON]}
        )

    async def _whose(self, runner: Runner, number: int) -> tuple[str, Job | None]:
        """The queue of a job, and what it is unless it has ended. Raises JobNotFound, JobLost."""
        holding = self._holdings.of_job(number)
        if holding is not None and holding.runner == runner.id:
            job = await self._holdings.job_of(holding)
            if job is not None:
                return holding.queue, job
        life = await life_of(self._store, number)
        if life.state == State.LEASED.name.lower():
            return life.in_queue, decode_job(life.message.content)
        if life.ended_at is None:
            raise JobLost  # it waits for another runner, or is dead
        return life.in_queue, None

    async def _refusal(self, number: int) -> JobNotFound | JobLost:
        """Why a job is not, or not any more, that of who asks."""
        try:
            await life_of(self._store, number)
        except JobNotFound as error:
            return error
        return JobLost()
