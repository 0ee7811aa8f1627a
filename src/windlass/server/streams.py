"""Answers that are sent as they come: files, and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, BinaryIO

import structlog
from fastapi import Response

from windlass.errors import WindlassError
from windlass.server.lane import AsgiClient

log = structlog.get_logger("windlass.server")

EVENTS_CONTENT: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
        }
    }
}
"""How `/openapi.json` describes such a stream."""

_CHUNK = 256 * 1024
_EVENT = re.compile(r"[a-z][a-z_]{0,31}\Z", re.ASCII)

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class FileAnswer(Response):
    """An opened file; it is closed when it is sent, or its client is gone."""

    def __init__(self, file: BinaryIO, size: int, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "content-length": str(size)})
        self._file = file

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:  # noqa: ARG002 - as ASGI has it
        client = AsgiClient(receive)
        with self._file as file:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (data := await asyncio.to_thread(file.read, _CHUNK)) and not client.disconnected:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        if not client.disconnected:
            await send({"type": "http.response.body", "body": b""})


def server_event(name: str, data: bytes, event_id: str = "") -> bytes:
    """One server-sent event; `data` is JSON, which has no line breaks. A name that is none is left out."""
    named = b"event: %b\n" % name.encode() if _EVENT.match(name) else b""
    return b"%b%bdata: %b\n\n" % (named, b"id: %b\n" % event_id.encode() if event_id else b"", data)


STILL_HERE = b": still here\n\n"
"""Sent where nothing else was for a while: so that both sides notice when the other is gone."""
KEEP_ALIVE = 15.0
"""Seconds of silence after which it is."""


class EventsAnswer(Response):
    """Server-sent events (the HTML standard, "text/event-stream"): what an iterator gives, until it ends."""

    media_type = "text/event-stream"

    def __init__(self, events: Callable[[AsgiClient], AsyncGenerator[bytes, None]]) -> None:
        """`events` gets the client, to notice that it is gone."""
        super().__init__(headers={"x-accel-buffering": "no"})  # or nginx keeps them back
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:  # noqa: ARG002
        client = AsgiClient(receive)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self._events(client)) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except WindlassError as error:  # the head is sent: the client will ask again, and be told
            log.warning("events_broken", error=error.detail)
        finally:
            client.forget()
        await send({"type": "http.response.body", "body": b""})
