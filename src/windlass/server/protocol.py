"""uvicorn's HTTP protocol, with a response's head and body in one write.

uvicorn writes the head when the application sends it and the body when that comes: two system calls and
two TCP segments for an answer of a hundred bytes. Here the head waits for the first part of the body.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from windlass.errors import BadRequest, RequestTimeout, TooLarge, WindlassError
from windlass.server import problems

if TYPE_CHECKING:
    from windlass.server.app import Windlass

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, beyond its first read."""


class Joined:
    """A transport that keeps back a response's head until something follows it."""

    __slots__ = ("_head", "_transport", "_write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            self._write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        elif data:
            self._write(data)

    def flush(self) -> None:
        if self._head:
            self._write(self._head)
            self._head = b""

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """One connection. What is no HTTP, ends too soon or does not end is answered with a problem too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joined = Joined(transport)
        super().connection_made(cast("asyncio.Transport", self._joined))
        self._head = 0
        timeout = cast("Windlass", self.config.app).settings.body_timeout
        self._late: asyncio.TimerHandle | None = self.loop.call_later(timeout, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope):
            self._head_grows(len(data))
        elif self._late is not None:
            self._watch_no_more()

    def eof_received(self) -> None:
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline:
            self._refuse(BadRequest("The body ended before its end."))

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest(msg))

    def _unsupported_upgrade_warning(self) -> None:
        """The request is answered as if it asked for no upgrade; there is nothing to warn of."""

    def on_response_complete(self) -> None:
        self._joined.flush()  # an answer to HEAD has no body
        super().on_response_complete()

    # --- the head of a request: the parser takes one of any size, at any pace ------------------------

    def _head_grows(self, size: int) -> None:
        if self._late is None:  # its first part; what came with it may be of another request
            self._head = 0
            timeout = cast("Windlass", self.config.app).settings.body_timeout
            self._late = self.loop.call_later(timeout, self._head_is_late)
            return
        self._head += size
        if self._head > MAX_HEAD:
            self._refuse(TooLarge(f"A request's head may have {MAX_HEAD:,} bytes."))

    def _head_is_late(self) -> None:
        self._late = None
        began: object = self.scope
        if began is None:
            self.transport.close()
        else:
            self._refuse(RequestTimeout("The head of the request did not arrive in time."))

    def _watch_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, error: WindlassError) -> None:
        """Answer and hang up; only hang up where another answer is on its way."""
        self._watch_no_more()
        if not self.transport.is_closing() and (self.cycle is None or not _answering(self.cycle)):
            status, headers, body = problems.response(error)
            lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"connection"]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"connection: close\r\n\r\n", body]))
        self.transport.close()


def _answering(cycle: RequestResponseCycle) -> bool:
    return cycle.response_started and not cycle.response_complete
