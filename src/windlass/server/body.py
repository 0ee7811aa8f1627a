"""Reading a request's body, and what JSON must be here: checked on the bytes, kept as they came."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from windlass.errors import BadRequest, BrokenJson, Invalid, RequestTimeout, TooLarge
from windlass.message import MAX_BATCH_BYTES

T = TypeVar("T")

ReceiveEvent = Callable[[], Awaitable[Any]]

MAX_BODY = MAX_BATCH_BYTES + 1024 * 1024
"""Bytes of a body: the largest batch and the JSON around it."""
MAX_DEPTH = 100

_SURROGATE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WHERE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*)`")
_MISSING = re.compile(r"missing required field `(.*)`")

_any = msgspec.json.Decoder()


class Reading:
    """The bodies that are being read. Once a second those that trickle are cut off."""

    def __init__(self, timeout: float) -> None:
        self._limit = max(1, round(timeout))
        self._tasks: dict[asyncio.Task[Any], int] = {}
        self._slow: set[asyncio.Task[Any]] = set()
        self._tick = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read(self, receive: ReceiveEvent) -> bytes:
        """The whole body. Raises TooLarge, RequestTimeout, BadRequest where the client hangs up half-way."""
        task = asyncio.current_task()
        assert task is not None
        if self._loop is not task.get_loop():
            self._watch(task.get_loop())
        self._tasks[task] = self._tick
        try:
            event = await receive()
            body: bytes = event.get("body", b"")
            if not event.get("more_body"):
                if event["type"] == "http.disconnect":
                    raise BadRequest("The body ended before its end.")
                return body
            return await self._rest(receive, body)
        except asyncio.CancelledError:
            if task in self._slow:
                self._slow.discard(task)
                task.uncancel()
                raise RequestTimeout(f"The body did not arrive within {self._limit} s.") from None
            raise
        finally:
            del self._tasks[task]

    async def _rest(self, receive: ReceiveEvent, first: bytes) -> bytes:
        chunks, size = [first], len(first)
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise BadRequest("The body ended before its end.")
            chunk = event.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY:
                raise TooLarge(f"A body may have {MAX_BODY:,} bytes.")
            if not event.get("more_body"):
                return b"".join(chunks)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(1, self._look)

    def _look(self) -> None:
        self._tick += 1
        for task, since in list(self._tasks.items()):
            if self._tick - since > self._limit and task.get_loop() is self._loop:
                self._slow.add(task)
                task.cancel()
        if self._tasks and self._loop is not None:
            self._loop.call_later(1, self._look)
        else:
            self._loop = None  # the next body starts the watch again


def check_text(body: bytes) -> None:
    """Refuse what no store may hold: raw NULs, lone surrogates, what is not UTF-8."""
    if b"\0" in body:
        raise Invalid("A raw NUL byte is no JSON; write it as \\u0000.", field="body")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            try:
                body.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                raise BrokenJson(f"The body is not UTF-8 (byte {error.start}).") from None
            raise Invalid(f"A lone surrogate (byte {error.start}) is no character.", field="body") from None
    if b"\\u" in body and any(match.group(1) for match in _SURROGATE.finditer(body)):
        raise Invalid(
            "A lone surrogate (\\ud800 to \\udfff without its partner) is no character.", field="body"
        )


def check_depth(text: bytes, field: str) -> None:
    """Refuse JSON text that is nested over MAX_DEPTH deep."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for byte in _STRING.sub(b"", text):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Invalid(f"JSON may be nested {MAX_DEPTH} deep.", field=field)
        elif byte in b"]}":
            depth -= 1


def invalid(error: msgspec.ValidationError) -> Invalid:
    """What msgspec says, with the field's name taken out of its words."""
    text = str(error)
    where = _WHERE.search(text)
    field = where.group(1) if where else ""
    named = _UNKNOWN.search(text) or _MISSING.search(text)
    if named:
        field = f"{field}.{named.group(1)}" if field else named.group(1)
    detail = text[: where.start()] if where else text
    return Invalid(detail + ".", field=field[:200] or "body")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode checked text. Raises BrokenJson, Invalid."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except msgspec.DecodeError as error:
        raise BrokenJson(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Invalid(f"JSON may be nested {MAX_DEPTH} deep.", field="body") from None


def check_json(body: bytes) -> None:
    """Refuse a body that is not JSON as it must be here. For routes that read it themselves."""
    check_text(body)
    try:
        decode(_any, body)
    except Invalid:
        check_depth(body, "body")
        raise
    check_depth(body, "body")
