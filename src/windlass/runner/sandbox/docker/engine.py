"""The Docker Engine's HTTP API on its unix socket, version 1.41, as far as boxes need it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
import msgspec

_API = "/v1.41"
_CHUNK = 64 * 1024
_PATIENCE = 60.0
"""Seconds for an answer."""


class Refused(OSError):  # noqa: N818 - what happened, said as it is
    """The engine said no, or something that nobody understands."""

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


class Engine:
    """Calls of the engine's API. All raise OSError (Refused) or httpx.HTTPError."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://docker", timeout=_PATIENCE
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: Any = None,
    ) -> Any:
        """A call with JSON, or nothing, in both directions."""
        answer = await self._client.request(method, _API + path, params=query, json=content)
        _check(answer.status_code, answer.content)
        try:
            return msgspec.json.decode(answer.content) if answer.content else None
        except msgspec.DecodeError as error:
            raise Refused(f"the engine's answer to {path} is no JSON: {error}") from None

    async def put_archive(self, container: str, archive: IO[bytes], size: int) -> None:
        """Unpack a tar of `size` bytes into a container's root."""

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(archive.read, _CHUNK):
                yield chunk

        answer = await self._client.put(
            f"{_API}/containers/{container}/archive",
            params={"path": "/"},
            content=chunks(),
            headers={"Content-Type": "application/x-tar", "Content-Length": str(size)},
        )
        _check(answer.status_code, answer.content)

    async def get_archive(self, container: str, path: str, to: IO[bytes], most: int) -> bool:
        """Write the tar of one path to `to`; False where it has more than `most` bytes."""
        url = f"{_API}/containers/{container}/archive"
        async with self._client.stream("GET", url, params={"path": path}) as answer:
            if answer.status_code >= 400:
                _check(answer.status_code, await answer.aread())
            async for chunk in answer.aiter_bytes(_CHUNK):
                most -= len(chunk)
                if most < 0:
                    return False
                await asyncio.to_thread(to.write, chunk)
        return True

    async def attach(self, container: str, *streams: str) -> Attached:
        """Streams ("stdin", "stdout", "stderr") of a container that has not started yet."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        attached = Attached(reader, writer)
        try:
            async with asyncio.timeout(_PATIENCE):
                wanted = "&".join(f"{stream}=1" for stream in streams)
                await attached.begin(f"{_API}/containers/{container}/attach?stream=1&{wanted}")
        except BaseException:
            await attached.close()
            raise
        return attached

    async def close(self) -> None:
        await self._client.aclose()


class Attached:
    """Some of a container's streams in one connection. Use as a context manager.

    Input has a connection of its own: one that nobody reads any more breaks, and what came by it is lost.
    What comes has a head of 8 bytes: the stream's number (1 stdout, 2 stderr), three zeros, and the length of
    what follows in big-endian.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def begin(self, path: str) -> None:
        """Turn the connection into the container's streams."""
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: docker\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = b""
        first = head.partition(b"\r\n")[0]
        if not first.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")):
            raise Refused(f"the engine gives no stream: {first.decode(errors='replace')}")

    async def pieces(self) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, content) until the container has ended."""
        while True:
            try:
                head = await self._reader.readexactly(8)
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise Refused("the engine's stream was cut off") from None
                return
            except ConnectionError:
                return  # it ended with input unread; how, the engine says elsewhere
            left = int.from_bytes(head[4:])
            while left:
                chunk = await self._reader.read(min(left, _CHUNK))
                if not chunk:
                    raise Refused("the engine's stream was cut off")
                left -= len(chunk)
                yield head[0], chunk

    async def feed(self, source: AsyncIterator[bytes]) -> None:
        """Send all of `source` and then the end; as much of it as the program lives to see."""
        with contextlib.suppress(ConnectionError):
            async for chunk in source:
                self._writer.write(chunk)
                await self._writer.drain()
            self._writer.write_eof()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _check(status: int, content: bytes) -> None:
    if status < 400:
        return
    try:
        said = msgspec.json.decode(content)["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        said = content[:200].decode("utf-8", "replace")
    raise Refused(f"the engine answered {status}: {said}", status)
