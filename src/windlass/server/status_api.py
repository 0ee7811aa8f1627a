"""How the server is: /status for people and programs, /health for what restarts it."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Depends, Response

from windlass import __version__
from windlass.errors import StoreUnavailable
from windlass.message import State
from windlass.queues import Queues
from windlass.server.models import Health, Status
from windlass.server.queue_admin import no_other_parameters

_PATIENCE = 5
"""Seconds that the store has to answer."""


def router(queues: Queues) -> APIRouter:
    """The routes, bound to one service."""
    api = APIRouter(tags=["status"], dependencies=[Depends(no_other_parameters)])
    started = time.monotonic()
    store = queues.store

    async def failure() -> str | None:
        """Why the store does not answer, None if it does."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await store.ping()
        except StoreUnavailable as error:
            return error.detail
        except TimeoutError:
            return f"The store did not answer within {_PATIENCE} s."
        return None

    @api.get("/status", responses={503: {"model": Status, "description": "The store does not answer."}})
    async def status(response: Response) -> Status:
        """Version, time since the start, and what the queues hold."""
        count, states = store.totals()
        calls = dict(store.calls)
        reason = await failure()
        if reason is not None:
            response.status_code = 503
        return Status(
            status="ok" if reason is None else "unavailable",
            version=__version__,
            uptime_seconds=round(time.monotonic() - started, 3),
            queues=count,
            messages=sum(states),
            states={state.name.lower(): states[state] for state in State},
            waiting=len(queues.lines),
            store_calls=calls,
            detail=reason,
        )

    @api.get("/health", responses={503: {"model": Health, "description": "Not ready."}})
    async def health(response: Response) -> Health:
        """Live: the process answers. Ready: the store can write."""
        reason = await failure()
        if reason is not None:
            response.status_code = 503
        return Health(
            status="healthy" if reason is None else "unhealthy",
            live=True,
            ready=reason is None,
            parts={"store": reason or "ok"},
        )

    return api
