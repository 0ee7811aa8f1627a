"""Reading a request's body, and what JSON must be here: checked on the bytes, kept as they came."""

from __future__ import annotations

import asyncio
import re
import time
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
SLOWEST = 16 * 1024
"""Bytes a second at which a large body has to arrive at least."""

_SURROGATE = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_OPEN = ord("[")
_SAME = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_WHERE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*)`")
_MISSING = re.compile(r"missing required field `(.*)`")

_any = msgspec.json.Decoder()


class Reading:
    """The bodies that are being read. Once a second those that trickle are cut off."""

    def __init__(self, timeout: float) -> None:
        self._limit = timeout
        self._tasks: dict[asyncio.Task[Any], float] = {}
        self._slow: set[asyncio.Task[Any]] = set()
        self._watched: set[asyncio.AbstractEventLoop] = set()
        self._now = 0.0
        """Seconds of the monotonic clock at the last look: a request need not ask for the time."""

    async def read(self, receive: ReceiveEvent) -> bytes:
        """The whole body. Raises TooLarge, RequestTimeout, BadRequest where the client hangs up half-way."""
        task = asyncio.current_task()
        assert task is not None
        if task.get_loop() not in self._watched:
            self._watch(task.get_loop())
        self._tasks[task] = self._now
        try:
            event = await receive()
            body: bytes = event.get("body", b"")
            if not event.get("more_body"):
                if event["type"] == "http.disconnect":
                    raise BadRequest("The body ended before its end.")
                if len(body) > MAX_BODY:
                    raise TooLarge(f"A body may have {MAX_BODY:,} bytes.")
                return body
            return await self._rest(receive, body)
        except asyncio.CancelledError:
            if task in self._slow:
                self._slow.discard(task)
                task.uncancel()
                raise RequestTimeout(f"The body did not arrive within {self._limit:g} s.") from None
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

    def stream(self, receive: ReceiveEvent, most: int) -> ReceiveEvent:
        """`receive` of a body that is read as it arrives, of `most` bytes. What it raises is as with read().

        The time that it may take grows with what has come: a gigabyte needs more than `body_timeout`.
        """
        loop = asyncio.get_running_loop()
        began, size, done = loop.time(), 0, False

        async def receiving() -> Any:
            nonlocal size, done
            if done:
                return await receive()
            try:
                async with asyncio.timeout_at(began + self._limit + size / SLOWEST):
                    event = await receive()
            except TimeoutError:
                raise RequestTimeout("The body did not arrive in time.") from None
            if event["type"] == "http.disconnect":
                raise BadRequest("The body ended before its end.")
            size += len(event.get("body", b""))
            if size > most:
                raise TooLarge(f"A body may have {most:,} bytes.")
            done = not event.get("more_body")
            return event

        return receiving

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._now = time.monotonic()
        self._watched = {other for other in self._watched if not other.is_closed()} | {loop}
        loop.call_later(1, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._now = time.monotonic()
        mine = [(task, since) for task, since in list(self._tasks.items()) if task.get_loop() is loop]
        for task, since in mine:
            if self._now - since > self._limit:
                self._slow.add(task)
                task.cancel()
        if mine:
            loop.call_later(1, self._look, loop)
        else:
            self._watched.discard(loop)  # the next body starts the watch again


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
    """Refuse JSON text, known to be JSON, that is nested over MAX_DEPTH deep.

    Nearly all of it at the speed of memory: a text of a mebibyte must not hold up everybody else.
    """
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(text.split(b'"')[::2])
    depth = 0
    for byte in outside_strings.translate(_SAME, _NO_BRACKETS):
        if byte == _OPEN:
            depth += 1
            if depth > MAX_DEPTH:
                raise Invalid(f"JSON may be nested {MAX_DEPTH} deep.", field=field)
        else:
            depth -= 1


def invalid(error: msgspec.ValidationError) -> Invalid:
    """What msgspec says, with the field's name taken out of its words."""
    text = str(error)
    where = _WHERE.search(text)
    field = where.group(1) if where else ""
    detail = text[: where.start()] if where else text
    named = _UNKNOWN.search(detail) or _MISSING.search(detail)
    if named:
        field = f"{field}.{named.group(1)}" if field else named.group(1)
    return Invalid(detail + ".", field=field[:200] or "body")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode checked text. Raises BrokenJson, Invalid."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if decoder is not _any:
            decode(_any, body)  # text that is broken further on is broken, whatever stands before
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
