"""The lean lane of the hot routes: from a request that has arrived whole to its answer.

Two roads lead here. One is ASGI, which any server can take (app.py). The other is uvicorn's protocol itself
(protocol.py): no scope, no task and no events for a request of a hundred bytes, which costs half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

import msgspec
import structlog

from windlass.errors import Invalid, WindlassError
from windlass.queues.rules import RESERVED, check_own
from windlass.server.auth import Door, Principal

log = structlog.get_logger("windlass.server")

Scope = MutableMapping[str, Any]
ReceiveEvent = Callable[[], Awaitable[Any]]
SendEvent = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[bytes, bytes]
Answer = tuple[int, bytes]
Begun = tuple["asyncio.Future[Any]", Callable[[Any], Answer]]
"""What a hot route waits for, and how an answer is made of it; either may raise WindlassError."""

LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site", b"authorization", b"idempotency-key"})
"""The headers that anything here asks for."""


class Client(Protocol):
    """Whoever waits for an answer."""

    @property
    def disconnected(self) -> bool:
        """True once it is known to be gone."""
        ...

    def gone(self) -> asyncio.Future[None]:
        """Done once it is gone: for those who wait long."""
        ...


class Request(msgspec.Struct, gc=False):
    """A request of a hot route."""

    method: str
    path: str
    queue: str
    rest: str
    """The last part of the path."""
    query: bytes
    headers: Headers
    body: bytes
    principal: Principal
    address: str
    client: Client


Handler = Callable[[Request], Begun]


class Route(msgspec.Struct, gc=False):
    """Where a path leads."""

    handler: Handler
    queue: str
    rest: str


class Lane:
    """The hot routes and the door in front of them."""

    def __init__(self, door: Door, routes: Mapping[tuple[str, str], Handler]) -> None:
        self._door = door
        self.routes = routes

    def find(self, method: str, path: str) -> Route | None:
        """The hot route at `path` (decoded), or None where FastAPI has to look."""
        parts = path.split("/", 4)
        if len(parts) < 4 or parts[1] != "queues":
            return None
        handler = self.routes.get((method, parts[3] + "/" if len(parts) == 5 else parts[3]))
        return Route(handler, parts[2], parts[-1]) if handler is not None else None

    def enter(
        self, route: Route, method: str, query: bytes, headers: Headers, scope: Mapping[str, Any]
    ) -> Principal:
        """Who asks. Raises WindlassError where they may not, or not so."""
        principal = self._door.enter(headers, scope)
        if route.queue.startswith(RESERVED):
            check_own(route.queue)
        if query and method != "GET":
            raise Invalid("This route takes no parameters in the URL.", field="query")
        return principal


def fault(error: Exception) -> WindlassError:
    """What a client is told of a fault of our own; the log has all of it."""
    log.error("fault", exc_info=error)
    return WindlassError("This is a fault of Windlass itself; the log has the details.")


# --- answers ----------------------------------------------------------------------------------------

_LENGTHS = [b"%d" % n for n in range(4096)]
_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")


def head_of(method: str, answer: Answer) -> list[tuple[bytes, bytes]]:
    """The headers of an answer. What a GET took may not be kept by anything on the way."""
    status, body = answer
    if status == 204:
        return [_NO_STORE]
    size = len(body)
    length = (b"content-length", _LENGTHS[size] if size < 4096 else b"%d" % size)
    return [_JSON, length, _NO_STORE] if method == "GET" else [_JSON, length]


class AsgiClient:
    """A client as ASGI tells of it."""

    __slots__ = ("_cycle", "_gone", "_receive")

    def __init__(self, receive: ReceiveEvent) -> None:
        self._receive = receive
        # uvicorn's own record of the connection, where that is the server: no task for a short wait
        self._cycle = getattr(receive, "__self__", None)
        self._gone: asyncio.Future[None] | None = None

    @property
    def disconnected(self) -> bool:
        if self._gone is not None:
            return self._gone.done()
        return bool(getattr(self._cycle, "disconnected", False))

    def gone(self) -> asyncio.Future[None]:
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._until_disconnect())
        return self._gone

    def forget(self) -> None:
        """It has its answer: watch it no more."""
        if self._gone is not None:
            self._gone.cancel()

    async def _until_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
