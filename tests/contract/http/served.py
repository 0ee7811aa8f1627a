"""A server in this process, asked over ASGI, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from windlass.clock import ManualClock
from windlass.server.app import Windlass
from windlass.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have a newer httpx
    from starlette.testclient import TestClient as TestClient

T = TypeVar("T")

PROBLEM = "application/problem+json"


class Served:
    """One application on one event loop. Calls are made one at a time; `run` makes several at once."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.clock = ManualClock()
        self.app = Windlass(
            Settings(data_dir=data_dir, synchronous="off", **settings),
            self.clock,
        )
        self._runner = asyncio.Runner()
        self.client = self.new_client()

    def new_client(self, app: Any = None, **headers: str) -> httpx.AsyncClient:
        """A client of this server, or of another ASGI application."""
        transport = httpx.ASGITransport(app or self.app)
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
        while True:
            due = await self.app.store.expire()
            if due is None or due > self.clock.now():
                return

    def calls(self) -> dict[str, int]:
        """The store's calls so far, without those that asking costs."""
        calls: dict[str, int] = self("GET", "/status").json()["store_calls"]
        return {verb: count for verb, count in calls.items() if verb not in ("ping", "expire")}

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


async def settled(condition: Callable[[], T], within: float = 5.0) -> T:
    """Give the event loop its turns until `condition` is true."""
    async with asyncio.timeout(within):
        while not (value := condition()):  # noqa: ASYNC110 - turns, no time: what is waited for has no event
            await asyncio.sleep(0)
        return value


class Caller:
    """One raw ASGI request whose client may hang up."""

    def __init__(self, served: Served, method: str, path: str, body: bytes = b"", query: bytes = b"") -> None:
        self.status: int | None = None
        self.body = b""
        self._hang_up = asyncio.Event()
        self._asked = False
        self._body = body
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "",
            "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        self.task = asyncio.ensure_future(served.app(scope, self._receive, self._send))

    @property
    def disconnected(self) -> bool:
        """As the server's own record of a connection has it."""
        return self._hang_up.is_set()

    def hang_up(self) -> None:
        self._hang_up.set()

    async def _receive(self) -> dict[str, Any]:
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
