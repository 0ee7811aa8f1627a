"""The whole server as one ASGI application: opened by its lifespan, or by its first request."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from windlass import __version__
from windlass.catalogue.service import Catalogue
from windlass.clock import Clock
from windlass.directory import DirectoryLock
from windlass.dispatch import Dispatch
from windlass.dispatch.service import Timing
from windlass.errors import (
    BadRequest,
    Invalid,
    JudgeElsewhere,
    MethodNotAllowed,
    NotFound,
    QueueNotFound,
    RunnerUnknown,
    StoreClosed,
    Unauthenticated,
    WindlassError,
)
from windlass.judge.dispatching import Jobs
from windlass.judge.jobs import Dispatch as JudgeDispatch
from windlass.judge.service import Judge
from windlass.queues import Queues
from windlass.server import (
    catalogue_api,
    catalogue_bodies,
    catalogue_docs,
    catalogue_setup,
    docs_page,
    job_api,
    job_docs,
    judge_api,
    judge_bodies,
    judge_setup,
    metrics_api,
    problems,
    queue_admin,
    queue_docs,
    runner_api,
    runner_docs,
    status_api,
)
from windlass.server.auth import STRANGER, Door, Principal
from windlass.server.behind import Behind
from windlass.server.body import Reading, check_json
from windlass.server.catalogue_api import CatalogueApi
from windlass.server.job_api import JobApi
from windlass.server.lane import (
    Answer,
    AsgiClient,
    Lane,
    ReceiveEvent,
    Scope,
    SendEvent,
    fault,
    head_of,
    looked_at,
)
from windlass.server.lane import (
    Request as HotRequest,
)
from windlass.server.queue_api import QueueApi
from windlass.server.runner_api import RunnerApi
from windlass.server.sqs.api import SqsApi
from windlass.settings import Settings
from windlass.store import Store, open_store

log = structlog.get_logger("windlass.server")

_OPEN_PATHS = frozenset({"/health", "/openapi.json", "/docs"})
_REFUSED = "windlass.refused"
"""In a scope: takes the error of a request that may be tried again, and is not answered then."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Windlass:
    """The ASGI application. The lean lane for hot routes is here; all else goes to FastAPI."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        *,
        jobs: Callable[[Dispatch], JudgeDispatch] = Jobs,
        locked: bool = False,
    ) -> None:
        """`jobs` makes what gives the judge's jobs to the dispatch. `locked`: who started this process holds
        the lock of the data directory."""
        self.settings = settings
        # SQLite's store takes the lock itself, from whoever opens it.
        self._locks = settings.store is not None and not locked
        self._lock: DirectoryLock | None = None
        self._given_clock = clock
        self._jobs = jobs
        self.opened = False
        self.draining = False
        """True once this server was told to stop: it serves on for a while, and lets nobody come back."""
        self.stopping = False
        """True once it takes no more connections."""
        self._opening = threading.Lock()  # a test client may bring a thread and a loop for each request

    def open(self) -> None:
        """Open the store and wire everything, once. Raises StartError."""
        with self._opening:
            if not self.opened:
                self._lock = DirectoryLock(self.settings.data_dir) if self._locks else None
                try:
                    self._open()
                except BaseException:
                    self._unlock()
                    raise

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open(self) -> None:
        self.store: Store = open_store(
            self.settings.data_dir,
            self.settings.store,
            clock=self._given_clock,
            synchronous=self.settings.synchronous,
            durability=self.settings.durability,
            replicas=self.settings.replicas,
        )
        self._clock = self.store.clock
        self.queues = Queues(self.store, self._clock)
        self.door = Door(self.store.keys(), secret=self.store.secret, insecure=self.settings.insecure)
        self._reading = Reading(self.settings.body_timeout)
        self.dispatch = Dispatch(
            self.queues,
            self._clock,
            registration_token=_plain(self.settings.registration_token),
            timing=Timing(
                lease=self.settings.runner_lease,
                heartbeat=self.settings.runner_heartbeat,
                poll=self.settings.runner_poll,
                jobs=self.settings.runner_jobs,
            ),
            failed_kept=self.settings.failed_jobs_kept,
        )
        try:
            self.judge = judge_setup.open_judge(
                self.settings, self.store, self.queues.ids, self._clock, self._jobs(self.dispatch)
            )
            try:
                self.catalogue = catalogue_setup.open_catalogue(self.settings, self.store.secret)
            except BaseException:
                self.judge.close()
                raise
        except BaseException:
            self.store.close()
            raise
        if self.judge.elsewhere is None:
            self.dispatch.outcomes.listen(self.judge.project)
            self.dispatch.leases.on_start(self.judge.started)
        else:
            self.dispatch.leave_owned()
        self.behind = Behind(self.queues, self.door, self.dispatch.runners)
        self.sqs = SqsApi(self.queues, self.door)
        self.lane = Lane(
            self.door,
            self.behind,
            QueueApi(self.queues).routes,
            RunnerApi(self.dispatch).routes,
            JobApi(self.dispatch).routes,
            CatalogueApi(self.catalogue).routes,
            other=self.sqs.find,
        )
        self.api = _ordinary(
            self.settings, self.queues, self.dispatch, self.judge, self.catalogue, lambda: self.draining
        )
        self.opened, self.stopping = True, False

    async def close(self) -> None:
        """Let everybody who waits go, commit what is under way, close."""
        if self.opened:
            self.release_waiters()
            await self.dispatch.stop()
            await self.sqs.stop()
            await self.queues.stop()
            await self.judge.stop()
            self.judge.close()
            await asyncio.to_thread(self.catalogue.close)  # it saves its filter
            self.store.close()
            self._unlock()
            self.opened = False

    def release_waiters(self) -> None:
        """Answer all long polls now with what they have, nothing: the server stops."""
        self.stopping = True
        if self.opened:
            self.queues.release_waiters()
            self.dispatch.release_waiters()
            self.judge.release_waiters()

    async def __call__(self, scope: Scope, receive: ReceiveEvent, send: SendEvent) -> None:
        kind = scope["type"]
        if kind == "http":
            try:
                if not self.opened:
                    self.open()
                await self._serve(scope, receive, send)
            except WindlassError as error:
                await _refuse(send, error)
            except asyncio.CancelledError:
                if not self.stopping:
                    raise
                await _refuse(send, StoreClosed())  # it outlasted the time that a stop gives
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: ReceiveEvent, send: SendEvent) -> None:
        method, path = scope["method"], scope["path"]
        client = partial(AsgiClient, receive)
        request = self.lane.find(method, path, scope["query_string"], scope["headers"], scope, client)
        if request is None:
            await self._ordinary(scope, receive, send)
        else:
            await self._hot(request, receive, send)

    async def _hot(self, request: HotRequest, receive: ReceiveEvent, send: SendEvent) -> None:
        try:
            answer = await self._enter_and_answer(request, receive)
            status, headers, body = answer[0], head_of(request.method, answer), answer[1]
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            status, headers, body = request.refuse(request, error)
        finally:
            request.client.forget()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _enter_and_answer(self, request: HotRequest, receive: ReceiveEvent) -> Answer:
        try:
            self.lane.enter(request)
        except Unauthenticated as error:
            await self.lane.enter_late(request, error)
        if request.method != "GET":
            request.body = await self._reading.read(receive)
        return await self._answer_of(request)

    async def _answer_of(self, request: HotRequest) -> Answer:
        try:
            awaited, answer_of = request.begin()
            return answer_of(None if awaited is None else await awaited)
        except Exception as error:
            again = self.lane.again(request, error)
            if again is None:
                raise
            return await again

    async def _ordinary(self, scope: Scope, receive: ReceiveEvent, send: SendEvent) -> None:
        path = scope["path"]
        if path not in _OPEN_PATHS and not path.startswith("/docs/"):
            scope["windlass.principal"] = await self._principal(scope)
        if self.judge.elsewhere is not None and judge_api.is_of_judge(path):
            raise JudgeElsewhere(self.judge.elsewhere)
        upload = self._upload_limit(scope)
        read = None
        if upload is not None:
            receive = self._reading.stream(receive, upload)
        elif scope["method"] in _WITH_BODY:
            read = body = await self._reading.read(receive)
            judged = runner_api.judges_its_body(scope["method"], path) or catalogue_api.judges_its_body(path)
            if body.strip() and not judged:
                try:
                    check_json(body)
                except WindlassError:
                    if scope["method"] in _methods(self.api, path):  # else it is told so, whatever it sent
                        raise
            # JSON is read whatever the Content-Type says.
            scope["headers"] = [
                (name, value) for name, value in scope["headers"] if name != b"content-type"
            ] + [(b"content-type", b"application/json")]
        if scope["method"] == "GET":
            send = _no_store(send)
        queue = path.split("/")[2] if path.startswith("/queues/") else ""
        if not (queue and self.store.shared):
            await self.api(scope, receive if read is None else _replay(read, receive), send)
            return
        refused: list[WindlassError] = []
        first = {**scope, _REFUSED: refused}
        await self.api(first, receive if read is None else _replay(read, receive), send)
        if refused:
            if not await self.behind.make_up(refused[0], queue, b""):
                raise refused[0]
            await self.api(scope, receive if read is None else _replay(read, receive), send)

    async def _principal(self, scope: Scope) -> Principal:
        """Who asks. Raises Unauthenticated, but where a route may know them by a runner's token."""
        headers = looked_at(scope["headers"])
        await self.behind.find_caller(headers.get(b"authorization", b""))
        try:
            return self.door.enter(headers, scope)
        except Unauthenticated:
            method, path = scope["method"], scope["path"]
            if judge_api.may_be_a_runner(method, path) or runner_api.is_for_runners(method, path):
                return STRANGER
            raise

    def _upload_limit(self, scope: Scope) -> int | None:
        """Bytes of a body that its route reads as it arrives, None for all others."""
        if scope["method"] not in _WITH_BODY:
            return None
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        return judge_api.upload_limit(
            scope["method"], scope["path"], content_type
        ) or catalogue_api.upload_limit(scope["method"], scope["path"])

    async def _lifespan(self, receive: ReceiveEvent, send: SendEvent) -> None:
        await receive()
        try:
            self.open()
            self.queues.start()
            await self.sqs.start()
            await self.dispatch.load()
            self.judge.start()
        except WindlassError as error:
            await send({"type": "lifespan.startup.failed", "message": error.detail})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})


def _replay(body: bytes, receive: ReceiveEvent) -> ReceiveEvent:
    """`receive` with a body that was read already."""
    sent = False

    async def again() -> Any:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _no_store(send: SendEvent) -> SendEvent:
    async def sending(event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start" and all(
            name != b"cache-control" for name, _ in event["headers"]
        ):
            event["headers"] = [*event["headers"], (b"cache-control", b"no-store")]
        await send(event)

    return sending


async def _refuse(send: SendEvent, error: WindlassError) -> None:
    status, headers, body = problems.response(error)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _ordinary(
    settings: Settings,
    queues: Queues,
    dispatch: Dispatch,
    judge: Judge,
    catalogue: Catalogue,
    draining: Callable[[], bool],
) -> FastAPI:
    """The FastAPI application behind the lean lane."""

    def may_read_problem(request: Request) -> bool:
        try:
            runner_api.runner_of(dispatch, request.headers.get("authorization", "").encode("latin-1"))
        except RunnerUnknown:
            return False
        return True

    async def source_of(submission_id: str) -> bytes:
        if judge.elsewhere is not None:
            raise JudgeElsewhere(judge.elsewhere)
        _, file = await judge.submissions.open_source(submission_id)
        with file:
            return await asyncio.to_thread(file.read)

    api = FastAPI(
        title="Windlass",
        version=__version__,
        summary="Durable queues over plain HTTP, jobs for runners, a judge, products behind a guard.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    api.include_router(queue_admin.router(queues))
    api.include_router(status_api.router(queues, catalogue, judge, draining))
    api.include_router(metrics_api.router(catalogue))
    api.include_router(catalogue_api.router(catalogue, read_only=settings.products_read_only))
    api.include_router(judge_api.router(judge, may_read_problem, dispatch.views.watch))
    api.include_router(job_api.router(dispatch))
    api.include_router(runner_api.router(dispatch, source_of))
    docs_page.mount(api)
    hot = {**runner_docs.paths(), **job_docs.paths(), **catalogue_docs.paths()}
    queue_docs.describe(api, (*judge_bodies.TYPES, *job_docs.TYPES, *catalogue_bodies.TYPES), hot)

    @api.exception_handler(WindlassError)
    async def windlass_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, WindlassError)
        if isinstance(error, QueueNotFound) and _REFUSED in request.scope:
            request.scope[_REFUSED].append(error)
            return _Silence()
        return _problem(error)

    @api.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        return _problem(Invalid(f"{first['msg']}.", field=".".join(where)[:200] or "body"))

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        methods = _methods(api, path)
        if error.status_code in (404, 405) and request.method not in methods and methods:
            response = _problem(MethodNotAllowed(f"{path} takes {' and '.join(methods)}."))
            response.headers["allow"] = ", ".join(methods)
            return response
        if error.status_code == 404:
            return _problem(NotFound("There is no such page. /docs lists what there is."))
        return _problem(BadRequest(str(error.detail)))

    @api.exception_handler(Exception)
    async def anything(_: Request, error: Exception) -> Response:
        return _problem(fault(error))

    return api


def _methods(api: FastAPI, path: str) -> list[str]:
    """What may be done at `path`, by the description that clients get; nothing where there is no such."""
    paths = api.openapi()["paths"] | dict.fromkeys(("/docs", "/docs/{name}", "/openapi.json"), ("get",))
    return sorted(
        {
            method.upper()
            for template, operations in paths.items()
            for method in operations
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template.replace("{product_id}", "(?s:.*)")), path)
        }
    )


class _Silence(Response):
    """Nothing is sent: the request is going to be tried again."""

    async def __call__(self, scope: Any, receive: ReceiveEvent, send: SendEvent) -> None:
        """As ASGI has it."""


def _problem(error: WindlassError) -> Response:
    status, headers, body = problems.response(error)
    response = Response(body, status)
    response.raw_headers = headers
    return response
