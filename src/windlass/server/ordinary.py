"""The FastAPI application behind the lean lane: what it serves, and what becomes of errors there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from windlass import __version__
from windlass.catalogue.service import Catalogue
from windlass.dispatch import Dispatch
from windlass.errors import (
    BadRequest,
    Invalid,
    JudgeElsewhere,
    MethodNotAllowed,
    NotFound,
    QueueNotFound,
    RunnerUnknown,
    WindlassError,
)
from windlass.judge.service import Judge
from windlass.queues import Queues
from windlass.server import (
    catalogue_api,
    catalogue_bodies,
    catalogue_docs,
    docs_page,
    job_api,
    job_docs,
    judge_api,
    judge_bodies,
    metrics_api,
    problems,
    queue_admin,
    queue_docs,
    runner_api,
    runner_docs,
    status_api,
)
from windlass.server.lane import ReceiveEvent, SendEvent, fault
from windlass.settings import Settings

REFUSED = "windlass.refused"
"""In a scope: takes the error of a request that may be tried again, and is not answered then."""


def ordinary(
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
        if isinstance(error, QueueNotFound) and REFUSED in request.scope:
            request.scope[REFUSED].append(error)
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
        methods = methods_of(api, path)
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


def methods_of(api: FastAPI, path: str) -> list[str]:
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
