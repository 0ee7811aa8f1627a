"""The client for asyncio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from windlass.client import calls, transport
from windlass.client.async_extender import AsyncExtender
from windlass.client.async_queue import AsyncQueue
from windlass.client.call import Answer, Call, Plan
from windlass.client.errors import WindlassError
from windlass.client.lease import Leased
from windlass.client.products import AsyncProducts
from windlass.client.retry import Attempts, Retry
from windlass.client.values import QueueInfo, QueueSettings, ServerStatus

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

log = logging.getLogger("windlass.client")


class AsyncClient:
    """A connection to a Windlass server, for one event loop. Close it, or use it in an `async with`.

    The parameters are those of `Client`:

    `url`: the server's address; WINDLASS_URL or http://127.0.0.1:8000 when left out.
    `key`: an API key; WINDLASS_KEY when left out, none when that is not set either.
    `timeout`: seconds for connecting and for each answer; a long poll's wait comes on top.
    `retry`: how long to try again where that is safe; see `windlass.client.calls` for where it is.
    `retry_sends`: whether each send carries an Idempotency-Key, which is what makes repeating it safe.
    `httpx_transport`: for a Unix socket, a client certificate, or a test.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        retry: Retry | None = None,
        retry_sends: bool = True,
        httpx_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx  # here, as it takes a third of a second that `windlass serve` need not spend

        self.url = transport.base_url(url)
        self.timeout = timeout
        self.retry = retry or Retry()
        self.retry_sends = retry_sends
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=transport.headers(key),
            transport=httpx_transport,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self._clock: Callable[[], float] = time.monotonic
        self.extender = AsyncExtender(self._extend, clock=lambda: self._clock())
        """Keeps the leases of messages under work alive."""
        self.products = AsyncProducts(self)
        """Products behind a guard."""

    def queue(self, name: str) -> AsyncQueue:
        """The queue of this name. Asks nothing of the server yet."""
        return AsyncQueue(self, name)

    async def create_queue(self, name: str, **settings: Unpack[QueueSettings]) -> QueueInfo:
        """Create a queue; does nothing when it exists with these settings. QueueExists when it differs."""
        return await self.run(calls.create_queue(name, settings))

    async def queues(self, prefix: str = "") -> list[QueueInfo]:
        """All queues, or those whose name begins with `prefix`, by name."""
        return await self.follow(calls.queues(prefix))

    async def status(self) -> ServerStatus:
        """What the server says about itself."""
        return await self.run(calls.status())

    async def close(self) -> None:
        """End the extension of leases and close the connections."""
        await self.extender.close()
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, call: Call[T]) -> T:
        """Carry out one call, again where that is safe, and return what it gives."""
        attempts = Attempts(call, self.retry, self._clock)
        while True:
            try:
                return attempts.read(await self._send(attempts.call, self.timeout))
            except WindlassError as error:
                pause = attempts.pause_after(error)
                log.info("trying again: %s", error)
            await self._sleep(pause)

    async def follow(self, plan: Plan[T]) -> T:
        """Carry out the calls of a plan, one after the other, and return its result."""
        try:
            call = next(plan)
            while True:
                try:
                    result = await self.run(call)
                except WindlassError as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _send(self, call: Call[Any], seconds: float) -> Answer:
        import httpx

        request = transport.request(self._http, call, seconds)
        try:
            return transport.answer(await self._http.send(request))
        except httpx.HTTPError as error:
            raise transport.connection_error(error, self.url) from error

    async def _extend(self, message: Leased) -> datetime:
        """One try, no repeats: the extender comes back by itself, and has other messages to serve."""
        call = calls.extend(message.queue_name, message.receipt, message.lease_seconds)
        answer = await self._send(call, max(1.0, min(self.timeout, message.lease_seconds / 3)))
        return Attempts(call, self.retry).read(answer)
