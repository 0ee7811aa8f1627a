"""The lean lane of the hot routes: from a request that has arrived whole to its answer.

Two roads lead here. One is ASGI, which any server can take (app.py). The other is uvicorn's protocol itself
(protocol.py): no scope, no task and no events for a request of a hundred bytes, which costs half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

import msgspec
import structlog

from windlass.errors import Invalid, WindlassError
from windlass.message import RESERVED
from windlass.queues.rules import check_own
from windlass.server import problems
from windlass.server.auth import ANYBODY, Door, Principal
from windlass.server.behind import Behind

log = structlog.get_logger("windlass.server")

Scope = MutableMapping[str, Any]
ReceiveEvent = Callable[[], Awaitable[Any]]
SendEvent = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[bytes, bytes]
HeaderList = list[tuple[bytes, bytes]]
Answer = tuple[int, bytes] | tuple[int, bytes, HeaderList]
"""Status and body, and the headers where these are not those of every hot route."""
Refusal = tuple[int, HeaderList, bytes]
Begun = tuple["asyncio.Future[Any] | None", Callable[[Any], Answer]]
"""What a hot route waits for, and how an answer is made of it; either may raise WindlassError.

None is for what is in memory: there is nothing to wait for, and no future to be made.
"""

_SCHEMES = frozenset({b"http", b"https"})
_MOST_PARTS = 6
"""Slashes in the longest path of a hot route, and one more."""
_WITH_A_DOOR = frozenset({"runners", "sqs"})
_LOOKED_AT = frozenset(
    {b"host", b"x-forwarded-proto", b"origin", b"sec-fetch-site", b"authorization", b"idempotency-key"}
)


class Client(Protocol):
    """Whoever waits for an answer."""

    @property
    def disconnected(self) -> bool:
        """True once it is known to be gone."""
        ...

    def gone(self) -> asyncio.Future[None]:
        """Done once it is gone: for those who wait long."""
        ...

    def forget(self) -> None:
        """It has its answer: watch it no more."""
        ...


def refuse(_: Request, error: Exception) -> Refusal:
    """The answer that tells of an error: a problem document."""
    return problems.response(error if isinstance(error, WindlassError) else fault(error))


class Request(msgspec.Struct, gc=False):
    """A request of a hot route, made of its head; `enter` and whoever reads the body complete it."""

    handler: Handler
    face: str
    """The first part of the path: `queues`, `runners`, `jobs` or `products`."""
    method: str
    path: str
    queue: str
    """The second: a queue's name, a runner's id or a job's; all the rest where that is a product's id."""
    rest: str
    """The fourth: a receipt, or the job of a runner; "" where there is none."""
    query: bytes
    headers: Headers
    where: Mapping[str, Any]
    """`client`, `server` and, where it is not http, `scheme`, as an ASGI scope has them."""
    client: Client
    principal: Principal = ANYBODY
    body: bytes = b""
    tried: bool = False
    """True once it was tried again: see `Lane.again`."""
    refuse: Callable[[Request, Exception], Refusal] = refuse
    """How its face words an error."""

    @property
    def address(self) -> str:
        """Where it came from."""
        address: str = (self.where.get("client") or ("",))[0]
        return address

    @property
    def origin(self) -> str:
        """The scheme and the host that whoever asks reached this server by, through whatever proxies.

        Both are as the request says, whoever sent it: they only decide what its sender is told.
        """
        told = self.headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
        scheme = told.decode() if told in _SCHEMES else self.where.get("scheme", "http")
        host = self.headers.get(b"host", b"").decode("latin-1")
        if not host:
            name, port = self.where.get("server") or ("localhost", None)
            host = f"[{name}]" if ":" in name else name
            host += f":{port}" if port else ""
        return f"{scheme}://{host}"

    def begin(self) -> Begun:
        return self.handler(self)


Handler = Callable[[Request], Begun]
Finder = Callable[
    [str, str, bytes, Iterable[tuple[bytes, bytes]], Mapping[str, Any], Callable[[], Client]], Request | None
]
"""As `Lane.find`."""


class Lane:
    """The hot routes and the door in front of them."""

    def __init__(
        self, door: Door, behind: Behind, *faces: Mapping[tuple[str, str], Handler], other: Finder
    ) -> None:
        """`faces`: (method, path) -> handler; in a path, names and {what is filled in} alternate.

        What is filled in as {name:path} is all the rest of the path, slashes and all. `other` looks at what
        is none of theirs.
        """
        self._other = other
        self._door = door
        self._behind = behind
        self._handlers: dict[str, dict[tuple[object, ...], Handler]] = {}
        self._whole: dict[tuple[str, str], Handler] = {}
        self._paths: list[tuple[str, str]] = []
        for face in faces:
            for (method, path), handler in face.items():
                parts = path.split("/")
                self._paths.append((method, path.replace(":path}", "}")))
                if path.endswith(":path}"):
                    self._whole[method, parts[1]] = handler
                    continue
                self._handlers.setdefault(parts[1], {})[method, len(parts), *parts[3::2]] = handler

    def routes(self) -> Iterator[tuple[str, str]]:
        """Each route: its method and its path."""
        return iter(self._paths)

    def find(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        where: Mapping[str, Any],
        client: Callable[[], Client],
    ) -> Request | None:
        """A request of the hot route at `path` (decoded), or None where FastAPI has to look."""
        parts = path.split("/", _MOST_PARTS)
        handlers = self._handlers.get(parts[1]) if len(parts) > 1 else None
        if handlers is None:
            whole = self._whole.get((method, parts[1])) if len(parts) > 2 else None
            if whole is None:
                return self._other(method, path, query, headers, where, client)
            rest = path[len(parts[1]) + 2 :]
            return Request(
                whole, parts[1], method, path, rest, "", query, looked_at(headers), where, client()
            )
        handler = handlers.get((method, len(parts), *parts[3::2]))
        if handler is None:
            return None
        known, name = looked_at(headers), parts[2] if len(parts) > 2 else ""
        rest = parts[4] if len(parts) > 4 else ""
        return Request(handler, parts[1], method, path, name, rest, query, known, where, client())

    def enter(self, request: Request) -> None:
        """Find out who asks. Raises WindlassError where they may not, or not so."""
        if request.face in _WITH_A_DOOR:  # tokens of their own, or a signature over all: their handlers look
            self._door.check_origin(request.headers)
            return
        request.principal = self._door.enter(request.headers, request.where)
        if request.face == "queues" and request.queue.startswith(RESERVED):
            check_own(request.queue)
        if request.query and request.method != "GET":
            raise Invalid("This route takes no parameters in the URL.", field="query")

    async def enter_late(self, request: Request, error: WindlassError) -> None:
        """Enter after all where another server knows who asks. Raises `error` where none does."""
        if not await self._behind.make_up(error, "", request.headers.get(b"authorization", b"")):
            raise error
        self.enter(request)

    def again(self, request: Request, error: Exception) -> asyncio.Future[Answer] | None:
        """The answer of a request that failed with `error` only because memory here is behind, once it has
        caught up; None where that cannot be, or was tried."""
        if request.tried or not self._behind.concerns(error):
            return None
        request.tried = True
        return asyncio.ensure_future(self._again(request, error))

    async def _again(self, request: Request, error: Exception) -> Answer:
        queue = request.queue if request.face in ("queues", "sqs") else ""
        if not await self._behind.make_up(error, queue, request.headers.get(b"authorization", b"")):
            raise error
        self.enter(request)
        awaited, answer_of = request.begin()
        return answer_of(None if awaited is None else await awaited)


def looked_at(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that anything here asks for."""
    return {name: value for name, value in headers if name in _LOOKED_AT}


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
    status, body = answer[:2]
    if status == 204:
        return [_NO_STORE]
    size = len(body)
    length = (b"content-length", _LENGTHS[size] if size < 4096 else b"%d" % size)
    if len(answer) == 3:
        return [*answer[2], length]
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
