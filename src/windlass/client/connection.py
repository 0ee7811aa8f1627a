"""Kept-alive connections for small requests that are made again and again: HTTP/1.1 by httptools.

Decision 0036 says why not all of it is httpx's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools
import httpx

from windlass.client.errors import AnswerLost, BadAnswer, Unreachable

CONNECT_TIMEOUT = 10.0


def suits(url: str) -> bool:
    """Whether the server can be reached this way: directly, and without a user's name in its address."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxied = (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.hostname or "")
    return not proxied and "@" not in parts.netloc


class Connections:
    """Connections to one server, as many at a time as there are requests."""

    def __init__(self, url: str, longest_answer: int, *, kept: int = 32) -> None:
        """`longest_answer`: bytes of a body that is taken; `kept`: connections kept for the next request."""
        parts = urlsplit(url)
        self._url = url
        self._prefix = parts.path.rstrip("/")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._name = parts.netloc
        self._tls = httpx.create_ssl_context() if parts.scheme == "https" else None
        self._longest, self._kept = longest_answer, kept
        self._idle: deque[_Connection] = deque()

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """(status, body) of the answer. Raises Unreachable, AnswerLost or BadAnswer; it sets itself no time.

        `target` and `headers` are ASCII without control characters.
        """
        connection = self._take() or await self._connect()
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", f"host: {self._name}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method != "GET":
            lines.append(f"content-length: {len(body or b'')}")
        try:
            answer = await connection.ask("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
        except BaseException:
            connection.close()  # its answer may still come, and is nobody's
            raise
        if connection.usable and len(self._idle) < self._kept:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._url, self._longest),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except TimeoutError as error:
            raise Unreachable(
                f"cannot reach {self._url}: no connection in {CONNECT_TIMEOUT:.0f} s"
            ) from error
        except OSError as error:
            raise Unreachable(f"cannot reach {self._url}: {error.strerror or error}") from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, url: str, longest: int) -> None:
        self._url = url
        self._longest = longest
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._until_closed = True
        self._begun = False

    @property
    def usable(self) -> bool:
        """Whether it is open and nothing is under way."""
        return self._transport is not None and self._answer is None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # --- asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            return self.close()  # an answer to nothing
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BadAnswer(f"{self._url} wants to speak another protocol"))
        except httptools.HttpParserError as error:
            self._fail(BadAnswer(f"{self._url} answered something that cannot be read: {error}"))
        return None

    def eof_received(self) -> bool:
        return False  # close the other half, too

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._begun and self._until_closed:
            self.on_message_complete()
        self._fail(AnswerLost(f"no answer from {self._url}: {error or 'the connection was closed'}"))

    # --- the parser's side ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._body, self._size = [], 0
        self._until_closed, self._begun = True, False
        if self._answer is None:  # a second answer to one request
            self.close()

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._until_closed = False

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._fail(BadAnswer(f"an answer of more than {self._longest >> 20} MiB"))
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # a word in between
            return
        keep = self._transport is not None and self._parser.should_keep_alive()
        answer, self._answer, self._begun = self._answer, None, False
        if not keep:
            self.close()
        if answer is not None and not answer.done():
            answer.set_result((status, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(error)
