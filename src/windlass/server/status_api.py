"""How the server is: /status for people and programs, /health for what restarts it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, Depends, Response

from windlass import __version__
from windlass.catalogue.service import Catalogue
from windlass.errors import StoreUnavailable
from windlass.judge.service import Judge
from windlass.message import State
from windlass.queues import Queues
from windlass.server.models import Health, Status
from windlass.server.queue_admin import no_other_parameters

log = structlog.get_logger("windlass.server")

_PATIENCE = 5
"""Seconds that the store has to answer, and the database."""


def _ask_again(response: Response) -> None:
    response.status_code = 503
    response.headers["Retry-After"] = "1"


def router(queues: Queues, catalogue: Catalogue, judge: Judge, draining: Callable[[], bool]) -> APIRouter:
    """The routes, bound to their services; `draining`: whether the server was told to stop."""
    api = APIRouter(tags=["status"], dependencies=[Depends(no_other_parameters)])
    started = time.monotonic()
    store = queues.store

    @api.get("/status", responses={503: {"model": Status, "description": "The store does not answer."}})
    async def status(response: Response) -> Status:
        """Version, time since the start, and what the queues hold."""
        calls = dict(store.calls)
        reason = await _failure("store", store.ping())
        count, states = await store.totals()
        if reason is not None:
            _ask_again(response)
        return Status(
            status="ok" if reason is None else "unavailable",
            version=__version__,
            store=store.kind,
            shared=store.shared,
            uptime_seconds=round(time.monotonic() - started, 3),
            queues=count,
            messages=sum(states),
            states={state.name.lower(): states[state] for state in State},
            waiting=len(queues.lines),
            durability=store.durability(),
            judge="here" if judge.elsewhere is None else judge.elsewhere,
            store_calls=calls,
            detail=reason,
        )

    @api.get("/health", responses={503: {"model": Health, "description": "Not ready."}})
    async def health(response: Response) -> Health:
        """Live: the process answers. Ready: the store can write, products can be read, no stop is near."""
        store_fails, database_fails = await asyncio.gather(
            _failure("store", store.ping()), _failure("database", catalogue.products.ping())
        )
        stopping, bypassed = draining(), catalogue.bypassed()
        ready = not (store_fails or database_fails or stopping)
        if not ready:
            _ask_again(response)
        return Health(
            status="healthy" if ready else "stopping" if stopping else "unhealthy",
            live=True,
            ready=ready,
            store=store_fails or "ok",
            database=database_fails or "ok",
            cache="ok",
            filter=f"bypassed, so the database is asked: {bypassed}" if bypassed else "ok",
            survives=store.durability()["survives"],
            lag_seconds=catalogue.lag(),
        )

    return api


async def _failure(part: str, answer: Awaitable[None]) -> str | None:
    """Why a part does not answer, None if it does."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await answer
    except StoreUnavailable as error:
        return error.detail
    except TimeoutError:
        return f"The {part} did not answer within {_PATIENCE} s."
    except Exception as error:  # a table that is gone, say: this is where it is told
        log.warning("part_failed", part=part, exc_info=error)
        return f"The {part} fails; the log has the details."
    return None
