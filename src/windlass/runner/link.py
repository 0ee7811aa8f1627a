"""The runner's requests: bounded in time and size on both ways, big ones through files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote, urlencode

import httpx

from windlass.client import connection, transport
from windlass.client.errors import AnswerLost, NotSent
from windlass.errors import TooLarge

REQUEST_TIMEOUT = 10.0
"""Seconds for a request, or for each step forward of one that moves a file."""
FILE_TIMEOUT = 600.0
"""Seconds in which any file is through."""
LONGEST_ANSWER = 8 * 1024 * 1024
"""Bytes of an answer that is held in memory."""
_PASSING = frozenset({401, 408, 425, 429})
"""Refusals that may be none in a moment."""
_CHUNK = 256 * 1024


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    body: bytes

    @property
    def refuses(self) -> bool:
        """Whether the server will never take what was sent."""
        return 400 <= self.status < 500 and self.status not in _PASSING

    def __str__(self) -> str:
        """For logs and reasons: the status, and what a problem document or a short text says."""
        text = " ".join(self.body[:300].decode("utf-8", "replace").split())
        return f"HTTP {self.status}" + (f" ({text})" if text else "")


class Link:
    """HTTP to one server. Every method raises client.errors.WindlassError when no whole answer came."""

    def __init__(self, server: str, *, httpx_transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = transport.base_url(server)
        self._http = httpx.AsyncClient(
            headers=transport.headers("") | {"accept-encoding": "identity"},
            transport=httpx_transport,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )
        direct = httpx_transport is None and connection.suits(self.url)
        self._quick = connection.Connections(self.url, LONGEST_ANSWER) if direct else None

    async def close(self) -> None:
        if self._quick is not None:
            self._quick.close()
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = None,
        query: Mapping[str, str] | None = None,
        within: float = REQUEST_TIMEOUT,
    ) -> Answer:
        """One request with JSON or nothing in it, done or given up within so many seconds."""
        headers = {"content-type": "application/json"} if body is not None else {}
        if self._quick is not None:
            common = transport.headers("") | headers | _bearer(token)
            target = f"{path}?{urlencode(query)}" if query else path
            try:
                async with asyncio.timeout(within):
                    return Answer(*await self._quick.request(method, target, common, body))
            except TimeoutError as error:
                raise AnswerLost(f"no answer from {self.url} within {within:.0f} s") from error
        async with self._answered(
            method, self.url + path, body, headers, token, within, within, query
        ) as got:
            return Answer(got.status_code, await _whole(got))

    async def send_file(self, method: str, path: str, file: Path, *, token: str) -> Answer:
        """One request with the JSON in `file`, read while it is sent. OSError: it cannot be read."""
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            headers = {"content-type": "application/json", "content-length": str(size)}
            # The server has to write what it was sent before it answers.
            patience = REQUEST_TIMEOUT + size / 10_000_000
            async with self._answered(
                method, self.url + path, _chunks(opened), headers, token, patience, FILE_TIMEOUT
            ) as got:
                return Answer(got.status_code, await _whole(got))

    async def download(self, url: str, target: Path, limit: int, *, token: str | None = None) -> Answer:
        """Write what `url` (a whole address, or a path here) holds to `target`; only a 200 is written.

        Raises TooLarge beyond `limit` bytes, and OSError when the file cannot be written. The token goes to
        this server alone.
        """
        where = self.url + url if url.startswith("/") else url
        if not where.startswith(("http://", "https://")):
            raise NotSent(f"{where[:60]!r} is no address of a file")
        async with self._answered("GET", where, None, {}, token, REQUEST_TIMEOUT, FILE_TIMEOUT) as got:
            if got.status_code != httpx.codes.OK:
                return Answer(got.status_code, await _whole(got))
            with target.open("wb") as file:
                async for chunk in got.aiter_raw(_CHUNK):
                    if file.tell() + len(chunk) > limit:
                        raise TooLarge(f"{where[:200]} is larger than {limit >> 20} MiB.")
                    file.write(chunk)
            return Answer(got.status_code, b"")

    @asynccontextmanager
    async def _answered(
        self,
        method: str,
        url: str,
        content: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        token: str | None,
        patience: float,
        in_all: float,
        query: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """The answer's head, and its body to be read; `patience`: seconds in which nothing comes."""
        try:
            request = self._http.build_request(
                method,
                url,
                content=content,
                params=query,
                headers=dict(headers) | _bearer(token),
                timeout=httpx.Timeout(min(patience, REQUEST_TIMEOUT), read=patience),
            )
        except (ValueError, TypeError, httpx.InvalidURL) as error:
            raise NotSent(f"this request cannot be sent: {error}") from error
        try:
            async with asyncio.timeout(in_all):
                response = await self._http.send(request, stream=True)
                try:
                    yield response
                finally:
                    await response.aclose()
        except httpx.HTTPError as error:
            raise transport.connection_error(error, self.url) from error
        except httpx.InvalidURL as error:
            raise NotSent(f"{url[:60]!r} is no address: {error}") from error
        except TimeoutError as error:
            raise AnswerLost(f"no answer from {self.url} within {in_all:.0f} s") from error


def path(*segments: str) -> str:
    """A path of the API; a segment from the server cannot become two."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def _bearer(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


async def _whole(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > LONGEST_ANSWER:
            raise AnswerLost(f"an answer of more than {LONGEST_ANSWER >> 20} MiB")
        parts.append(chunk)
    return b"".join(parts)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
