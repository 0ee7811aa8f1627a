"""A server in this process with a clock that the test moves, asked over ASGI or through its HTTP protocol."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import h11
import httpx
import uvicorn
from uvicorn.server import ServerState

from tests.judging import FakeDispatch
from tests.redis_server import shared_redis
from windlass.clock import ManualClock
from windlass.server.app import Windlass
from windlass.server.protocol import Protocol
from windlass.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have a newer httpx
    from starlette.testclient import TestClient as TestClient

T = TypeVar("T")

PROBLEM = "application/problem+json"


class Served:
    """One application on one event loop. Calls are made one at a time; `run` makes several at once."""

    def __init__(
        self,
        data_dir: Path,
        *,
        road: str = "asgi",
        judged: bool = False,
        beside: Served | None = None,
        clock: ManualClock | None = None,
        **settings: Any,
    ) -> None:
        """`road`: "asgi", "protocol" for the bytes that a connection carries, or "redis" for the same and a
        store there. `judged`: submissions become jobs for runners; else a FakeDispatch keeps them. `beside`:
        a server whose loop it shares."""
        if road == "redis":
            prefix = hashlib.sha256(bytes(data_dir)).hexdigest()[:16]
            settings.setdefault("store", f"{shared_redis().url}?prefix={prefix}")
        self.road = road
        self.clock = clock or ManualClock()
        self.dispatch = FakeDispatch()
        given: dict[str, Any] = {} if judged else {"jobs": lambda _: self.dispatch}
        self.app = Windlass(Settings(data_dir=data_dir, synchronous="off", **settings), self.clock, **given)
        self._beside = beside
        self._runner: asyncio.Runner = beside._runner if beside is not None else asyncio.Runner()
        self.client = self.new_client()

    def new_client(self, app: Any = None, **headers: str) -> httpx.AsyncClient:
        """A client of this server, or of another ASGI application."""
        transport: httpx.AsyncBaseTransport = httpx.ASGITransport(app or self.app)
        if app is None and self.road != "asgi":
            transport = Connections(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(scenario)

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Ask once. `body` is sent as JSON, or as it is where it is bytes."""
        return self.run(self.ask(method, path, body, **more))

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if isinstance(body, bytes):
            more["content"] = body
        elif body is not None:
            more["content"] = json.dumps(body).encode()
        return await self.client.request(method, path, **more)

    def advance(self, seconds: float) -> None:
        """Move the clock, and let what is due happen."""
        self.run(self.pass_time(seconds))

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        nothing = 0
        while nothing < 2:  # what a look brings about in another queue may be noted behind its answer
            due = await self.app.store.expire()
            nothing = nothing + 1 if due is None or due > self.clock.now() else 0

    def calls(self) -> dict[str, int]:
        """The store's calls so far, without those that asking costs."""
        calls: dict[str, int] = self("GET", "/status").json()["store_calls"]
        return {
            verb: count
            for verb, count in calls.items()
            if verb not in ("ping", "expire", "totals", "refresh", "turn")
        }

    # --- shorthands ---------------------------------------------------------------------------------

    def queue(self, name: str = "q", **settings: Any) -> str:
        assert self("POST", "/queues", {"name": name, **settings}).status_code == 201
        return name

    def send(self, content: Any = "x", queue: str = "q", **options: Any) -> str:
        """Send one message; its id."""
        answer = self("POST", f"/queues/{queue}/messages", {"content": content, **options})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def receive(self, queue: str = "q", **wanted: Any) -> Any:
        """What a receive answers, None for nothing."""
        answer = self("POST", f"/queues/{queue}/receive", wanted)
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.status_code == 200 else None

    def contents(self, queue: str = "q") -> list[Any]:
        """Take all that is ready."""
        taken = self.receive(queue, max=1000)
        return [message["content"] for message in taken["messages"]] if taken else []

    def acknowledge(self, receipt: str, queue: str = "q", **body: Any) -> httpx.Response:
        return self("DELETE", f"/queues/{queue}/receipts/{receipt}", body or None)

    def close(self) -> None:
        self.run(self.app.close())
        if self._beside is None:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> None:
    """Assert that `answer` is the problem document that it should be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:windlass:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    if field is not None:
        assert problem["field"] == field, problem


async def settled(condition: Callable[[], T], within: float = 60.0) -> T:
    """Give the event loop its turns until `condition` is true."""
    async with asyncio.timeout(within):
        while not (value := condition()):  # noqa: ASYNC110 - turns, no time: what is waited for has no event
            await asyncio.sleep(0)
        return value


class Connections(httpx.AsyncBaseTransport):
    """A connection for each request, in memory, with the server's own protocol at its other end."""

    def __init__(self, app: Windlass) -> None:
        self._app = app
        self._config = uvicorn.Config(app, lifespan="off", log_config=None)
        self._config.load()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._app.open()
        wire = Wire()
        protocol = Protocol(self._config, ServerState(), {})
        wire.protocol = protocol
        protocol.connection_made(wire)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        pieces = [piece async for piece in request.stream]
        if "transfer-encoding" in request.headers:
            pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b"")]
        else:
            pieces = [b"".join(pieces)]
        lines = [b"%b: %b\r\n" % header for header in request.headers.raw if header[0] != b"Connection"]
        target = b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)
        client = h11.Connection(h11.CLIENT)  # reads the answer; what it is asked is not to its liking always
        client.send(h11.Request(method=request.method, target=b"/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        try:
            protocol.data_received(b"".join([target, *lines, b"\r\n", pieces[0]]))
            for piece in pieces[1:]:
                await asyncio.sleep(0)
                protocol.data_received(piece)
            answer: h11.Response | None = None
            content = b""
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(await wire.written.get())
                elif isinstance(event, h11.Response):
                    answer = event
                elif isinstance(event, h11.Data):
                    content += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert answer is not None
                    found = [(name, value) for name, value in answer.headers]
                    return httpx.Response(answer.status_code, headers=found, content=content)
        finally:
            wire.close()


class Wire(asyncio.Transport):
    """What a protocol writes to."""

    protocol: asyncio.Protocol

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 1)})
        self.written: asyncio.Queue[bytes] = asyncio.Queue()
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.put_nowait(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.written.put_nowait(b"")
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Nothing more comes."""

    def resume_reading(self) -> None:
        """Nothing was held back."""


class Caller:
    """One raw ASGI request whose client may hang up."""

    def __init__(
        self,
        served: Served,
        method: str,
        path: str,
        body: bytes = b"",
        query: bytes = b"",
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        chunks: Sequence[bytes] = (),
    ) -> None:
        """`chunks` come before `body`, which only comes where there is one to come after them."""
        self.status: int | None = None
        self.body = b""
        self._hang_up = asyncio.Event()
        self._asked = False
        self._body = body
        self.chunks = list(chunks)
        """What has not been asked for yet."""
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "",
            "headers": [(b"host", b"localhost"), *headers], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }  # fmt: skip
        self.task = asyncio.ensure_future(served.app(scope, self._receive, self._send))

    @property
    def disconnected(self) -> bool:
        """As the server's own record of a connection has it."""
        return self._hang_up.is_set()

    def hang_up(self) -> None:
        self._hang_up.set()

    async def _receive(self) -> dict[str, Any]:
        if self.chunks:
            self._asked = not self._body
            return {"type": "http.request", "body": self.chunks.pop(0), "more_body": True}
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._hang_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
        else:
            self.body += event.get("body", b"")


@contextlib.contextmanager
def together(*tasks: Coroutine[Any, Any, Any]) -> Iterator[list[asyncio.Task[Any]]]:
    """Run `tasks` beside the block; cancel what is left of them at its end."""
    futures = [asyncio.create_task(task) for task in tasks]
    try:
        yield futures
    finally:
        for future in futures:
            future.cancel()
