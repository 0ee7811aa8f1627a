"""The agent: registers, takes jobs, has them done, and brings back what came of them, until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import structlog

from windlass.errors import RegistrationRefused, StartError
from windlass.runner import wire
from windlass.runner.cache import Cache
from windlass.runner.delivery import Delivery, End
from windlass.runner.executors.base import CannotJudge, Executor
from windlass.runner.heartbeat import Heartbeat
from windlass.runner.held import Held, Stage, Stop, Work
from windlass.runner.link import Link
from windlass.runner.poller import Poller
from windlass.runner.preparation import NotPrepared, Preparation
from windlass.runner.registration import Registration
from windlass.runner.telling import Telling
from windlass.runner.threads import in_thread
from windlass.runner.wire import Job, MalformedJob, Registered
from windlass.runner.workspace import JobDirectory, Workspace

log = structlog.get_logger("windlass.runner")

MOST_SECONDS = 3600.0
"""No job is worked on for longer: its lease ends then, whatever the heartbeats say."""
HAND_OVER = 60.0
"""Seconds that a stop gives to hand-overs under way: as long as their retries last against a quick server."""
LONGEST_REST = 30.0
"""Seconds without new jobs after one that this runner could not do; they begin at 1 and double."""
FULL_DISK_PAUSE = 5.0


@dataclass(frozen=True)
class Options:
    """How one runner runs."""

    server: str
    directory: Path
    name: str
    token: str | None = None
    """The registration token; None where there is an identity already."""
    jobs: int | None = None
    """At most so many jobs at a time; None leaves it to the server, which has its own limit in any case."""
    labels: tuple[str, ...] = ()
    once: bool = False
    """End after one job."""
    keep_identity: bool = True
    drain_timeout: float = 60.0
    """Seconds that a stop waits for jobs that run."""
    features: tuple[str, ...] = field(default=wire.FEATURES)


class Agent:
    """One runner on one event loop."""

    def __init__(
        self,
        options: Options,
        executor: Executor,
        *,
        httpx_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._options = options
        self._executor = executor
        self._workspace = Workspace(options.directory)
        self._link = Link(options.server, httpx_transport=httpx_transport)
        self._registration = Registration(
            self._link,
            self._workspace.identity if options.keep_identity else None,
            name=options.name,
            token=options.token,
            labels=(*options.labels, *executor.labels),
            features=options.features,
        )
        self._held = Held()
        self._delivery = Delivery(self._link, self._registration, refill=self._refill, arrived=self._arrived)
        self._cache = Cache(self._workspace.cache, self._link, self._registration)
        self._preparation = Preparation(self._link, self._cache)
        self._heartbeat = Heartbeat(self._link, self._registration, self._held.ids, self._stop_work)
        self._poller = Poller(self._link, self._registration, room=self._room, arrived=self._arrived)
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults = 0
        """Jobs in a row that this runner could not do."""
        self._rest_until = 0.0
        self._disk_full = False

    def stop(self) -> None:
        """Take no more jobs, finish those that run, hand back the others; run() returns then."""
        self._stopping.set()
        self._poller.stop()

    async def run(self) -> None:
        """Run until stop(), or until the one job is done with `once`. Raises StartError."""
        self._workspace.open()
        beating = polling = None
        try:
            try:
                await in_thread(self._cache.open)
            except OSError as error:
                raise StartError(
                    f"The directory {self._options.directory} cannot be used: {error}."
                ) from error
            beating = asyncio.create_task(self._heartbeat.run())
            polling = asyncio.create_task(self._poller.run())
            await self._until_over(beating, polling)
        finally:
            # Heartbeats have gone on until here: the last held job is handed over.
            for task in (beating, polling, *self._tasks):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task
            with suppress(Exception):
                await self._executor.close()
            await self._link.close()
            await self._workspace.settle()
            self._workspace.close()
        log.info("ended", message="The runner has ended.")

    async def _until_over(self, beating: asyncio.Task[None], polling: asyncio.Task[None]) -> None:
        await self._first(beating, polling, self._stopping.wait())
        if not self._stopping.is_set():  # the one job was taken
            await self._first(beating, self._held.fewer_than(1), self._stopping.wait())
        if self._stopping.is_set():
            await self._first(beating, self._drain(polling))

    async def _first(self, *doing: asyncio.Task[None] | Coroutine[Any, Any, Any]) -> None:
        """Wait until one of these is over; those that are not tasks are cancelled then. Raises its error."""
        own = [asyncio.create_task(each) for each in doing if not isinstance(each, asyncio.Task)]
        tasks = [*own, *(each for each in doing if isinstance(each, asyncio.Task))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in own:
                task.cancel()
        for task in done:
            task.result()

    async def _drain(self, polling: asyncio.Task[None]) -> None:
        running = sum(work.stage is not Stage.PREPARING for work in self._held.works())
        log.info(
            "draining",
            message=f"No new jobs; {running} under way may take {self._options.drain_timeout:.0f} s more.",
        )
        for work in self._held.works():
            if work.stage is Stage.PREPARING:
                work.stop(Stop("the runner stops", hand_back="drain"))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_timeout):
                await asyncio.wait({polling})
                await self._held.fewer_than(1)
        for work in self._held.works():
            work.stop(Stop("the runner stops", hand_back="shutdown"))
        try:
            async with asyncio.timeout(HAND_OVER):
                await asyncio.wait({polling})
                await self._held.fewer_than(1)
        except TimeoutError:
            left = ", ".join(self._held.ids())
            log.warning("not_handed_over", message=f"Not handed over: {left}. Their leases will run out.")

    # --- what the poller asks for -----------------------------------------------------------------

    async def _room(self, identity: Registered) -> int:
        """Return when another job may be taken, and how many may."""
        limit = identity.config.max_concurrent_jobs
        limit = min(limit, self._options.jobs or limit, 1 if self._options.once else limit)
        while True:
            await self._held.fewer_than(limit)
            await asyncio.sleep(0)  # what is being handed over at this moment makes room as well
            rest = self._rest_until - asyncio.get_running_loop().time()
            if rest > 0:
                await asyncio.sleep(rest)
            elif not self._workspace.spacious():
                if not self._disk_full:
                    log.warning("disk_full", message=f"No jobs until {self._options.directory} has room.")
                self._disk_full = True
                await asyncio.sleep(FULL_DISK_PAUSE)
            else:
                self._disk_full = False
                return limit - len(self._held)

    def _refill(self, places: int) -> int:
        """How many jobs may come in the places of those that are brought now."""
        resting = self._rest_until > asyncio.get_running_loop().time()
        if resting or self._options.once or self._stopping.is_set() or not self._workspace.spacious():
            return 0
        return places

    def _arrived(self, job: Job | MalformedJob) -> bool:
        """Begin with a job; False where it is held already, or nobody can read it."""
        if isinstance(job, MalformedJob):
            if job.job_id not in self._held:
                self._hold(job.job_id, f"it is malformed: {job}")
            return False
        if job.job_id in self._held:
            log.info("duplicate", message=f"{job.job_id} came again and is held already.")
            self._heartbeat.soon()  # it names the job, so that the server knows that it has arrived
            return False
        log.info("taken", message=f"Took {job.job_id}.")
        self._hold(job.job_id, job)
        return True

    def _hold(self, job_id: str, job: Job | str) -> None:
        """Hold a job until it is handed over; a text is the reason why it cannot be done."""
        work = Work(job_id)
        self._held.add(work)
        task = asyncio.create_task(self._see_through(work, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._options.once:
            self._poller.stop()
        elif self._stopping.is_set():
            work.stop(Stop("the runner stops", hand_back="drain"))

    def _stop_work(self, job_id: str, why: str, asked_at: float) -> None:
        work = self._held.get(job_id)
        if work is not None and work.since <= asked_at:  # it may have gone and come again since
            work.stop(Stop(why))

    # --- one job ----------------------------------------------------------------------------------

    async def _see_through(self, work: Work, job: Job | str) -> None:
        """A job from its delivery to its hand-over; whatever happens in it stays in it."""
        directory = None
        try:
            directory = None if isinstance(job, str) else self._workspace.directory_of(job.job_id)
            if directory is None or isinstance(job, str):
                await self._abort(work, str(job), fault=True)
            else:
                await self._do_and_deliver(work, job, directory)
        except RegistrationRefused:
            pass  # the heartbeat meets it too, and ends the runner
        except OSError as error:
            await self._abort(work, f"the runner's disk says {error.strerror or error}", fault=True)
        except Exception as error:
            log.exception("job_fault", job=work.job_id)
            await self._abort(work, f"a fault of the runner: {error!r}", fault=True)
        finally:
            self._held.remove(work)
            if directory is not None:
                self._workspace.remove(directory)

    async def _do_and_deliver(self, work: Work, job: Job, directory: JobDirectory) -> None:
        began = asyncio.get_running_loop().time()
        result = reason = None
        fault = True
        work.task = asyncio.create_task(self._do(work, job, directory))
        if work.stopped:
            work.task.cancel()
        try:
            await asyncio.wait({work.task})
        except asyncio.CancelledError:
            work.task.cancel()
            await asyncio.wait({work.task})
            raise
        work.stage = Stage.DELIVERING
        if work.task.cancelled():
            stopped = work.stopped or Stop("it was cancelled", hand_back="a fault of the runner: cancelled")
            log.info("stopped", message=f"Stopped {work.job_id}: {stopped}.")
            reason, fault = stopped.hand_back, work.stopped is None
        else:
            error = work.task.exception()
            if error is None:
                result = work.task.result()
            elif isinstance(error, NotPrepared | CannotJudge):
                reason = str(error)
            else:
                raise error
        if result is not None:
            reason = await self._deliver(work, result, directory, began)
        if reason is not None:
            await self._abort(work, reason, fault=fault)

    async def _do(self, work: Work, job: Job, directory: JobDirectory) -> bytes | Path:
        """Prepare and execute, once; returns the result."""
        limit = asyncio.timeout(MOST_SECONDS)
        try:
            async with limit, self._preparation.prepared(job, directory) as assignment:
                work.stage = Stage.RUNNING
                features = (await self._registration.identity()).config.features
                telling = Telling(self._link, self._registration, work.job_id, heard=wire.EVENTS in features)
                try:
                    executed = await self._executor.execute(assignment, directory, telling.tell)
                finally:
                    await telling.finish()
                return executed.result
        except TimeoutError:
            if limit.expired():
                raise CannotJudge(f"it took longer than {MOST_SECONDS:.0f} s") from None
            raise

    async def _deliver(
        self, work: Work, result: bytes | Path, directory: JobDirectory, began: float
    ) -> str | None:
        """Bring the result; returns the reason for an abort where the server cannot take it."""
        handed = await self._delivery.result(work.job_id, result)
        match handed.end:
            case End.TAKEN:
                self._faults = 0
                took = asyncio.get_running_loop().time() - began
                log.info("delivered", message=f"Delivered {work.job_id} after {took:.1f} s.")
            case End.NOT_OURS:
                log.info("not_ours", message=f"Nobody waits for {work.job_id} any longer: {handed.why}.")
            case End.REFUSED:
                kept = await self._workspace.keep(directory, result, handed.why)
                log.error(
                    "result_refused",
                    message=f"The result of {work.job_id} was refused: {handed.why}. It is kept in {kept}.",
                )
                return f"the server refused its result: {handed.why}"
            case End.FAILED:
                log.error("not_delivered", message=f"{work.job_id} could not be delivered: {handed.why}.")
                return f"its result could not be delivered: {handed.why}"
        return None

    async def _abort(self, work: Work, reason: str, *, fault: bool) -> None:
        """Hand a job back. `fault`: it could not be done, so this runner rests before it takes another."""
        work.stage = Stage.DELIVERING
        if fault:
            rest = min(LONGEST_REST, 2.0**self._faults)
            self._faults += 1
            self._rest_until = asyncio.get_running_loop().time() + rest
        with suppress(RegistrationRefused):
            handed = await self._delivery.abort(work.job_id, reason)
            level = log.warning if fault else log.info
            if handed.end is End.TAKEN:
                level("handed_back", message=f"Handed back {work.job_id}: {reason}.")
            elif handed.end is not End.NOT_OURS:
                log.error("not_handed_back", message=f"{work.job_id} could not be handed back: {handed.why}.")
