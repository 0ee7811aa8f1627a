"""HTTP/1.1 as plainly as it goes, so that it is certain what was sent and whether an answer came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec


class Dropped(Exception):  # noqa: N818 - an event of the storm, not an error
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class Asked:
    """A request; `body` goes as JSON, or as it is where it is bytes."""

    method: str
    path: str
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join((self.method, self.path, self.headers.get("X-Amz-Target", ""))).rstrip()


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in small letters."""

    def json(self) -> object:
        return msgspec.json.decode(self.body) if self.body else None

    def __str__(self) -> str:
        return f"{self.status} {self.body[:200].decode(errors='replace')}"


class Connection:
    """One kept-alive connection; requests go one after the other."""

    def __init__(
        self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host = f"{host}:{port}"
        self._reader = reader
        self._writer = writer
        self.usable = True

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect; OSError when nobody listens."""
        reader, writer = await asyncio.open_connection(host, port)
        return cls(host, port, reader, writer)

    async def request(self, asked: Asked) -> Answer:
        """Send one request and read its answer.

        Raises Dropped if the connection ends first: the server may have done it or not.
        """
        body = b"" if asked.body is None else asked.body
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"Host": self._host, "Content-Length": str(len(content))}
        if content:
            headers["Content-Type"] = "application/json"
        headers |= asked.headers
        head = [f"{asked.method} {asked.path} HTTP/1.1"]
        head += (f"{name}: {value}" for name, value in headers.items())
        try:
            self._writer.write("\r\n".join([*head, "", ""]).encode() + content)
            await self._writer.drain()
            return await self._answer()
        except (OSError, EOFError) as error:
            self.close()
            raise Dropped(f"{asked}: {error}") from None
        except asyncio.CancelledError:
            self.close()
            raise

    async def _answer(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split()[1]), body, headers)

    def close(self) -> None:
        self.usable = False
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._writer.close()
