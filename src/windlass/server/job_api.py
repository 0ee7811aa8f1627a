"""Jobs for people and programs: any command given to a runner, what became of it, its output as it comes.

To submit a job and to see what became of it are routes of the lean lane (lane.py), described by job_docs.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Response
from msgspec import Meta
from pydantic import BaseModel, Field

from windlass.dispatch import Dispatch, Job
from windlass.dispatch.job import MAX_SECONDS
from windlass.dispatch.labels import JOBS
from windlass.dispatch.view import JobView
from windlass.message import State
from windlass.server.auth import ADMIN, RECEIVE, SEND
from windlass.server.body import check_text, decode
from windlass.server.lane import Answer, AsgiClient, Begun, Handler
from windlass.server.lane import Request as HotRequest
from windlass.server.queue_admin import Caller, no_other_parameters, only
from windlass.server.queue_bodies import once_of, parse_wait
from windlass.server.streams import EVENTS_CONTENT, KEEP_ALIVE, STILL_HERE, EventsAnswer, server_event

_STATES = {"queued": State.READY, "running": State.LEASED, "failed": State.DEAD}
_LONGEST = 3600
_encode = msgspec.json.Encoder().encode


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What to run, in a box without network that is thrown away afterwards."""

    argv: Annotated[list[str], Meta(min_length=1, max_length=1_000)]
    env: dict[str, str] = {}
    files: Annotated[
        dict[str, str], Meta(description="Texts by path, below the directory where it starts.")
    ] = {}
    stdin: str = ""
    time_limit: Annotated[int, Meta(ge=1, le=3_600_000, description="Milliseconds.")] = 3_600_000
    memory_limit: Annotated[int, Meta(ge=1, le=2**31, description="KiB.")] = 1024 * 1024
    processes: Annotated[int, Meta(ge=1, le=4_096)] = 256


class NewJob(msgspec.Struct, forbid_unknown_fields=True):
    """A job of `POST /jobs`."""

    command: Command
    labels: Annotated[list[str], Meta(max_length=8, description="A runner has to offer all of them.")] = []
    priority: Annotated[int, Meta(ge=0, le=9, description="9 is done first.")] = 0
    max_seconds: Annotated[int, Meta(ge=1, le=MAX_SECONDS, description="The longest attempt.")] = MAX_SECONDS
    dedup_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


_decoder = msgspec.json.Decoder(NewJob)


class JobApi:
    """The hot routes."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self.routes: dict[tuple[str, str], Handler] = {
            ("POST", "/jobs"): self.create,
            ("GET", "/jobs/{job_id}"): self.show,
        }
        """(method, path) -> handler."""

    def create(self, request: HotRequest) -> Begun:
        principal, body = request.principal, request.body
        principal.demand(SEND, JOBS)
        check_text(body)
        new = decode(_decoder, body)
        once = None
        if b"idempotency-key" in request.headers:
            key = request.headers[b"idempotency-key"]
            once = once_of(key, principal.name, request.method, request.path, body)
        job = Job(command=msgspec.to_builtins(new.command), max_seconds=new.max_seconds)
        submitted = self._dispatch.submit(
            job, dedup=new.dedup_id, priority=new.priority, asked=sorted(set(new.labels)), once=once
        )
        return asyncio.ensure_future(submitted), _created

    def show(self, request: HotRequest) -> Begun:
        request.principal.demand(RECEIVE, JOBS)
        wait = parse_wait(request.query)
        gone = request.client.gone() if wait else None
        return asyncio.ensure_future(self._dispatch.views.job(request.queue, wait, gone)), _shown


def _created(job_id: str) -> Answer:
    return 202, b'{"job_id":"%b","state":"queued"}' % job_id.encode()


def _shown(view: JobView) -> Answer:
    return 200, _encode(view)


class JobDetail(BaseModel):
    """A job as it is now."""

    job_id: str
    state: str = Field(description="queued, running, done, failed, cancelled or superseded.")
    labels: list[str]
    priority: int
    attempts: int
    events: list[dict[str, Any]]
    runner: str | None
    submission_id: str | None
    command: dict[str, Any] | None
    result: Any


class JobList(BaseModel):
    jobs: list[JobDetail]


class RunnerSeen(BaseModel):
    """A registered runner."""

    runner_id: str
    name: str
    labels: list[str]
    seen_at: int = Field(description="Milliseconds since 1970.")
    seconds_ago: float
    jobs: int = Field(description="Jobs that it holds.")


class RunnerList(BaseModel):
    runners: list[RunnerSeen]


def _detail(view: JobView) -> JobDetail:
    return JobDetail(**msgspec.to_builtins(view))


def router(dispatch: Dispatch) -> APIRouter:
    """The other routes, bound to one dispatch."""
    api = APIRouter(tags=["jobs"], dependencies=[Depends(no_other_parameters)])

    @api.get("/jobs", responses=only())
    async def list_jobs(
        caller: Caller,
        state: Literal["queued", "running", "failed"] = "running",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> JobList:
        """Jobs that wait, that run, or that failed for good."""
        caller.demand(RECEIVE, JOBS)
        return JobList(jobs=[_detail(view) for view in await dispatch.views.jobs(_STATES[state], limit)])

    @api.delete("/jobs/{job_id}", status_code=204, responses=only(404, 410))
    async def cancel_job(job_id: str, caller: Caller) -> Response:
        """Cancel a job, also one that runs: its runner is told at its next heartbeat."""
        caller.demand(ADMIN, JOBS)
        await dispatch.cancel(job_id)
        return Response(status_code=204)

    @api.get(
        "/jobs/{job_id}/events",
        response_class=Response,
        responses={
            200: {
                "description": "Server-sent events: what is told of the job, until it is over.",
                "content": EVENTS_CONTENT,
            },
            **only(404),
        },
    )
    async def job_events(
        job_id: str,
        caller: Caller,
        wait: Annotated[float, Query(ge=0, le=_LONGEST, allow_inf_nan=False)] = _LONGEST,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """What happens to a job, for `wait` seconds at most; `Last-Event-ID` goes on where it broke off."""
        caller.demand(RECEIVE, JOBS)
        await dispatch.views.job(job_id)
        text = last_event_id or ""
        last = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
        return EventsAnswer(lambda client: _events(dispatch, job_id, last, wait, client))

    @api.get("/runners", responses=only())
    async def list_runners(caller: Caller) -> RunnerList:
        """The runners that may take jobs, and how many each holds."""
        caller.demand(RECEIVE, JOBS)
        return RunnerList(
            runners=[
                RunnerSeen(
                    runner_id=runner.id,
                    name=runner.name,
                    labels=sorted(runner.labels),
                    seen_at=runner.seen_at,
                    seconds_ago=ago,
                    jobs=jobs,
                )
                for runner, ago, jobs in await dispatch.seen()
            ]
        )

    return api


async def _events(
    dispatch: Dispatch, job_id: str, last: int, seconds: float, client: AsgiClient
) -> AsyncGenerator[bytes, None]:
    gone = client.gone()
    deadline = asyncio.get_running_loop().time() + seconds
    while not gone.done():
        left = deadline - asyncio.get_running_loop().time()
        watching = asyncio.ensure_future(dispatch.views.watch(job_id, last, max(0, min(left, KEEP_ALIVE))))
        try:
            waiting: set[asyncio.Future[Any]] = {watching, gone}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                return
        finally:
            watching.cancel()
        events, over = watching.result()
        for last, event in events:
            yield server_event(str(event.get("event", "")), _encode(event), str(last))
        if over or left <= 0:
            return
        if not events:
            yield STILL_HERE
