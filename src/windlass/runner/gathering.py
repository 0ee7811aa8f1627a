"""Results of jobs that end at about the same time, brought in one request that takes new jobs in exchange."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from windlass.client.errors import BadAnswer
from windlass.runner import wire
from windlass.runner.link import Answer, Link, path
from windlass.runner.wire import Job, Malformed, MalformedJob, Registered

LARGEST = 1024 * 1024
"""Bytes of results in one request, where there is more than one."""
_AT_ONCE = 2


class _Result(NamedTuple):
    identity: Registered
    job_id: str
    body: bytes
    answered: asyncio.Future[Answer | None]


class Gathering:
    """A second request goes while one is under way, so that no job's end waits for an answer to others; what
    ends while there are two goes together in the next.

    `refill(places)`: how many new jobs are wanted when so many are brought. `arrived(job)`: begins with one.
    """

    def __init__(
        self, link: Link, *, refill: Callable[[int], int], arrived: Callable[[Job | MalformedJob], bool]
    ) -> None:
        self._link = link
        self._refill = refill
        self._arrived = arrived
        self._waiting: list[_Result] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._unanswered: list[str] = []
        """Claims of requests whose answer was lost: asked for again, so that their jobs come at once."""

    async def put(self, identity: Registered, job_id: str, body: bytes) -> Answer | None:
        """What the server answers to this result, None where it refuses the request: then bring it alone, for
        the fault may be another's.

        Raises client.errors.WindlassError.
        """
        result = _Result(identity, job_id, body, asyncio.get_running_loop().create_future())
        self._waiting.append(result)
        if len(self._tasks) < _AT_ONCE:
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await result.answered

    async def _run(self) -> None:
        while self._waiting:
            await self._bring(self._next())

    def _next(self) -> list[_Result]:
        """The first of those that wait, all of one identity."""
        waiting, size, count = self._waiting, 0, 0
        for result in waiting[: wire.MOST_AT_ONCE]:
            size += len(result.body)
            if count and (size > LARGEST or result.identity is not waiting[0].identity):
                break
            count += 1
        self._waiting = waiting[count:]
        return waiting[:count]

    async def _bring(self, results: list[_Result]) -> None:
        answers: Sequence[Answer | Exception | None]
        try:
            answers = await self._ask(results[0].identity, results)
        except Exception as error:  # noqa: BLE001 - each of those who wait raises it
            answers = [error] * len(results)
        for result, answer in zip(results, answers, strict=True):
            if result.answered.done():
                continue  # cancelled: nobody waits any more
            if isinstance(answer, Exception):
                result.answered.set_exception(answer)
            else:
                result.answered.set_result(answer)

    async def _ask(self, identity: Registered, results: list[_Result]) -> list[Answer | None]:
        wanted = self._refill(len(results))
        if not wanted:
            return (await self._exchange(identity, results, None))[0]
        claim = self._unanswered.pop() if self._unanswered else str(uuid.uuid4())
        answered = False
        try:
            answers, answered = await self._exchange(identity, results, {"claim": claim, "max": str(wanted)})
        finally:
            if not answered:
                self._unanswered.append(claim)
        return answers

    async def _exchange(
        self, identity: Registered, results: list[_Result], query: dict[str, str] | None
    ) -> tuple[list[Answer | None], bool]:
        """What is said of each result; and whether the server has answered, and not somebody in between."""
        answer = await self._link.call(
            "POST",
            path("runners", identity.runner_id, "results"),
            wire.results([(result.job_id, result.body) for result in results]),
            token=identity.token,
            query=query,
        )
        if answer.status != 200:
            return [None if answer.refuses else answer] * len(results), answer.refuses
        try:
            taken, jobs = wire.exchanged(answer.body, [result.job_id for result in results])
        except Malformed as error:
            raise BadAnswer(f"an answer that cannot be read: {error}") from error
        for job in jobs:  # before those that they follow are let go, or others would be asked for
            self._arrived(job)
        return [Answer(each.status, each.detail.encode()) for each in taken], True
