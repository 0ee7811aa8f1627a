"""The client for ordinary, blocking code."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from windlass.client import calls, transport
from windlass.client.call import Answer, Call, Plan, nothing
from windlass.client.errors import AnswerLost, WindlassError, from_answer
from windlass.client.events import ServerEvent, read_events
from windlass.client.extender import Extender
from windlass.client.lease import Leased
from windlass.client.products import Products
from windlass.client.queue import Queue
from windlass.client.retry import Attempts, Retry
from windlass.client.values import QueueInfo, QueueSettings, ServerStatus
from windlass.client.work import Jobs, Judge

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

log = logging.getLogger("windlass.client")

SILENCE = 15.0
"""Seconds after which the server says, in a stream of events, that it is still there."""


class Client:
    """A connection to a Windlass server; may be shared by threads. Close it, or use it in a `with`.

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
        httpx_transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx  # here, as it takes a third of a second that `windlass serve` need not spend

        self.url = transport.base_url(url)
        self.timeout = timeout
        self.retry = retry or Retry()
        self.retry_sends = retry_sends
        self._http = httpx.Client(
            base_url=self.url,
            headers=transport.headers(key),
            transport=httpx_transport,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )
        self._sleep: Callable[[float], None] = time.sleep
        self._clock: Callable[[], float] = time.monotonic
        self.extender = Extender(self._extend, clock=lambda: self._clock())
        """Keeps the leases of messages under work alive."""
        self.jobs = Jobs(self)
        """Commands for runners."""
        self.judge = Judge(self)
        """Problems and submissions."""
        self.products = Products(self)
        """Products behind a guard."""

    def queue(self, name: str) -> Queue:
        """The queue of this name. Asks nothing of the server yet."""
        return Queue(self, name)

    def create_queue(self, name: str, **settings: Unpack[QueueSettings]) -> QueueInfo:
        """Create a queue; does nothing when it exists with these settings. QueueExists when it differs."""
        return self.run(calls.create_queue(name, settings))

    def queues(self, prefix: str = "") -> list[QueueInfo]:
        """All queues, or those whose name begins with `prefix`, by name."""
        return self.follow(calls.queues(prefix))

    def status(self) -> ServerStatus:
        """What the server says about itself."""
        return self.run(calls.status())

    def close(self) -> None:
        """End the extension of leases and close the connections."""
        self.extender.close()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, call: Call[T]) -> T:
        """Carry out one call, again where that is safe, and return what it gives."""
        attempts = Attempts(call, self.retry, self._clock)
        while True:
            try:
                return attempts.read(self._send(attempts.call, self.timeout))
            except WindlassError as error:
                pause = attempts.pause_after(error)
                log.info("trying again: %s", error)
            self._sleep(pause)

    def follow(self, plan: Plan[T]) -> T:
        """Carry out the calls of a plan, one after the other, and return its result."""
        try:
            call = next(plan)
            while True:
                try:
                    result = self.run(call)
                except WindlassError as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    def _events(self, path: str, over: Callable[[], bool]) -> Iterator[ServerEvent]:
        """The server-sent events at `path` until `over`, which is asked whenever the stream has ended.

        A broken stream is asked for again behind its last event, by the same rules as a call that may be
        repeated; each event begins them anew.
        """
        last = ""
        attempts = self._attempts(path)
        while True:
            try:
                for event in self._stream(path, last):
                    last = event.id or last
                    attempts = self._attempts(path)
                    yield event
                if over():
                    return
                raise AnswerLost(f"{self.url} ended the stream of events")
            except WindlassError as error:
                pause = attempts.pause_after(error)
                log.info("trying again: %s", error)
            self._sleep(pause)

    def _attempts(self, path: str) -> Attempts[None]:
        return Attempts(
            Call(method="GET", path=path, parse=nothing, repeatable=True), self.retry, self._clock
        )

    def _stream(self, path: str, last: str) -> Iterator[ServerEvent]:
        """The events of one connection."""
        import httpx

        headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
        timeout = httpx.Timeout(self.timeout, read=self.timeout + SILENCE)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                if response.status_code not in (httpx.codes.OK, httpx.codes.NO_CONTENT):
                    raise from_answer(response.status_code, response.headers, response.content)
                yield from read_events(_lines(response))
        except httpx.HTTPError as error:
            raise transport.connection_error(error, self.url) from error

    def _send(self, call: Call[Any], seconds: float) -> Answer:
        import httpx

        request = transport.request(self._http, call, seconds)
        try:
            return transport.answer(self._http.send(request))
        except httpx.HTTPError as error:
            raise transport.connection_error(error, self.url) from error

    def _extend(self, message: Leased) -> datetime:
        """One try, no repeats: the extender comes back by itself, and has other messages to serve."""
        call = calls.extend(message.queue_name, message.receipt, message.lease_seconds)
        answer = self._send(call, max(1.0, min(self.timeout, message.lease_seconds / 3)))
        return Attempts(call, self.retry).read(answer)


def _lines(response: httpx.Response) -> Iterator[str]:
    """The lines of a stream, whose ends are line feeds alone: JSON may hold other line breaks as they are."""
    tail = ""
    for text in response.iter_text():
        *whole, tail = (tail + text).split("\n")
        yield from whole
