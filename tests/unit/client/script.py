"""A server that answers from a script, and a clock that moves when told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from windlass.client import AsyncClient, Client, Retry

Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]

SENT_AT = "2026-11-21T12:00:00.000Z"
LEASED_TO = "2026-11-21T12:00:30.000Z"


class Clock:
    """Seconds that pass only when `advance` is called."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Script:
    """Answers requests with its steps, one after the other, and keeps what was asked."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []
        self.clock = Clock()
        self.pauses: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert self.steps, f"nobody expected {request.method} {request.url.path}"
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, httpx.Response) else step(request)

    @property
    def asked(self) -> list[str]:
        """Method and path of each request so far."""
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) if request.content else None for request in self.requests]

    def client(self, retry: Retry | None = None, **options: Any) -> Client:
        """A client that speaks to the script; its pauses take no time but move its clock."""
        client = Client(
            "http://windlass.test", retry=retry, httpx_transport=httpx.MockTransport(self), **options
        )
        client._sleep = self._pause
        client._clock = self.clock
        return client

    def async_client(self, retry: Retry | None = None, **options: Any) -> AsyncClient:
        async def answer(request: httpx.Request) -> httpx.Response:
            return self(request)

        async def pause(seconds: float) -> None:
            self._pause(seconds)

        client = AsyncClient(
            "http://windlass.test", retry=retry, httpx_transport=httpx.MockTransport(answer), **options
        )
        client._sleep = pause
        client._clock = self.clock
        return client

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)


def ok(value: Any = None, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=value) if value is not None else httpx.Response(204)


def problem(
    status: int, code: str, detail: str = "no", *, field: str | None = None, retry_after: str | None = None
) -> httpx.Response:
    document = {"type": f"urn:windlass:problem:{code}", "title": code, "status": status, "detail": detail}
    document |= {"code": code} | ({"field": field} if field else {})
    return httpx.Response(
        status,
        json=document,
        headers={"content-type": "application/problem+json"}
        | ({"retry-after": retry_after} if retry_after else {}),
    )


def message(number: int = 1, content: str = '"work"', *, receipt: str | None = "r") -> str:
    """A message as JSON text, leased unless `receipt` is None."""
    lease = f',"receipt":"{receipt}{number}","lease_until":"{LEASED_TO}"' if receipt else ""
    return (
        f'{{"id":"m{number}","content":{content},"enqueued_at":"{SENT_AT}","deliveries":1,'
        f'"priority":4,"group":null,"headers":{{}}{lease}}}'
    )


def messages(numbers: Iterable[int] = (1,), *, receipt: str | None = "r") -> httpx.Response:
    body = ",".join(message(number, f'"work {number}"', receipt=receipt) for number in numbers)
    return httpx.Response(200, content=f'{{"messages":[{body}]}}')


def extended(_request: httpx.Request) -> httpx.Response:
    return ok({"lease_until": LEASED_TO})


QUEUE = {
    "name": "orders", "lease_seconds": 30, "max_deliveries": None, "dead_letter": None, "max_length": None,
    "max_message_bytes": 1048576, "retention_seconds": None, "dedup_window_seconds": 300,
    "history_seconds": 0, "outcome_ttl_seconds": 3600, "paused": False, "created_at": SENT_AT,
}  # fmt: skip
STATS = QUEUE | {
    "ready": 3, "delayed": 0, "leased": 1, "blocked": 0, "dead": 2, "oldest_age_seconds": 1.5,
    "in_rate": 0.5, "out_rate": 0,
}  # fmt: skip
