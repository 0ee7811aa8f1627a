"""Bringing what a job needs to this machine: its source and its problem's test data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from windlass.client.errors import WindlassError as ClientError
from windlass.errors import WindlassError
from windlass.runner.cache import Cache, Unavailable
from windlass.runner.executors.base import Assignment
from windlass.runner.link import Link
from windlass.runner.wire import Job, Malformed
from windlass.runner.workspace import JobDirectory

log = structlog.get_logger("windlass.runner")

TRIES = 3
FIRST_PAUSE = 1.0
"""Seconds between two tries; they double."""
LARGEST_SOURCE = 32 * 1024 * 1024
"""Bytes of an archive with source."""


class NotPrepared(Exception):  # noqa: N818 - what happened, said as it is
    """A job cannot be started here; str() is the reason that the server is told."""


class Preparation:
    """Prepares jobs, several at a time."""

    def __init__(self, link: Link, cache: Cache) -> None:
        self._link = link
        self._cache = cache

    @asynccontextmanager
    async def prepared(self, job: Job, directory: JobDirectory) -> AsyncIterator[Assignment]:
        """What the executor gets; it is all there until the context ends. `directory`: the job's own, which
        stays empty.

        Raises NotPrepared after the last try, and RegistrationRefused.
        """
        async with AsyncExitStack() as stack:
            pause = FIRST_PAUSE
            for left in range(TRIES - 1, -1, -1):
                try:
                    assignment = await self._try(job, directory, stack)
                    break
                except (ClientError, WindlassError, Malformed, Unavailable, OSError) as error:
                    why = _reason(error)
                if not left:
                    raise NotPrepared(f"it could not be prepared in {TRIES} tries: {why}")
                log.info(
                    "preparation_again",
                    message=f"{job.job_id} is not prepared yet: {why}. Next try in {pause:.0f} s.",
                )
                await asyncio.sleep(pause)
                pause *= 2
            yield assignment

    async def _try(self, job: Job, directory: JobDirectory, stack: AsyncExitStack) -> Assignment:
        source = data = None
        if job.code_url is not None:
            source = directory.path.with_name(f"{directory.path.name}.zip")
            stack.callback(source.unlink, missing_ok=True)
            answer = await self._link.download(job.code_url, source, LARGEST_SOURCE)
            if answer.status != 200:
                raise Unavailable(f"the source cannot be had: {answer}")
        if job.problem_id is not None:
            data = await stack.enter_async_context(self._cache.testdata(job.problem_id, job.case_counts))
        return Assignment(payload=job.payload, source=source, testdata=data)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"the runner's disk says {error.strerror or error}"
    return str(error)
