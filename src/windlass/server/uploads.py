"""Forms with files (multipart/form-data, RFC 7578), read as they arrive.

A test-data archive is larger than any other body. Its route gets the body as a stream (body.py keeps the pace
and the size), and a mebibyte of it is in memory at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from windlass.errors import BadRequest, Invalid, TooLarge
from windlass.judge.files import Files, Incoming

MULTIPART = "multipart/form-data"
_CHUNK = 1024 * 1024
"""Bytes that are written to a file at a time."""
_SHOWN = 50


class Form:
    """What a form brought: small fields in memory, files on the disk until the end of the block."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.files: dict[str, Incoming] = {}

    def field(self, name: str) -> bytes:
        """A field. Raises Invalid where it is not there."""
        try:
            return self.fields[name]
        except KeyError:
            raise Invalid(f"The form has no field {name!r}.", field=name) from None

    def number(self, name: str, default: int | None = None) -> int:
        """A field that is a whole number. Raises Invalid."""
        if default is not None and name not in self.fields:
            return default
        text = self.field(name).strip()
        if not (text.isdigit() and len(text) <= 15):  # of bytes: ASCII digits alone
            raise Invalid("This is no whole number.", field=name)
        return int(text)


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith(MULTIPART)


@contextlib.asynccontextmanager
async def read_form(
    request: Request, store: Files, fields: Mapping[str, int], files: Mapping[str, int]
) -> AsyncIterator[Form]:
    """A request's form. `fields` and `files` name what it may have, and the bytes of each.

    Raises BadRequest, Invalid for a part that has no name here or is there twice, TooLarge.
    """
    with ExitStack() as incoming:
        reading = _Reading(store, incoming, fields, files)
        parser = _Parser(request.headers.get("content-type", ""))
        async for chunk in request.stream():
            for event in parser.feed(chunk):
                await reading.take(event)
        if not parser.ended:
            raise BadRequest("The form ended before its end.")
        yield reading.form


_Event = str | bytes | None
"""The name of a part that begins, some of what is in it, None at its end."""


class _Parser:
    """Turns bytes into events."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise BadRequest("The Content-Type of a form names its boundary.")
        self.ended = False
        self._events: list[_Event] = []
        self._header = bytearray()
        self._value = bytearray()
        self._name: bytes | None = None
        with _refusing():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
                    "on_part_end": lambda: self._events.append(None),
                    "on_end": self._ends,
                },
            )

    def feed(self, data: bytes) -> list[_Event]:
        """What these bytes bring."""
        self._events = []
        if data and not self.ended:
            with _refusing():
                self._parser.write(data)
        return self._events

    def _part_begins(self) -> None:
        self._name = None

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name")
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        if self._name is None:
            raise BadRequest("A part of the form has no name.")
        self._events.append(self._name.decode("utf-8", "replace"))

    def _ends(self) -> None:
        self.ended = True


class _Reading:
    """Takes events in."""

    def __init__(
        self, store: Files, incoming: ExitStack, fields: Mapping[str, int], files: Mapping[str, int]
    ) -> None:
        self.form = Form()
        self._store = store
        self._incoming = incoming
        self._rooms = {**fields, **files}
        self._files = files
        self._name = ""
        self._data = bytearray()
        self._room = 0

    async def take(self, event: _Event) -> None:
        if isinstance(event, str):
            self._begin(event)
        elif event is not None:
            self._room -= len(event)
            if self._room < 0:
                raise TooLarge(f"It may have {self._rooms[self._name]:,} bytes.", field=self._name)
            self._data += event
            if self._name in self._files and len(self._data) >= _CHUNK:
                await self._flush()
        elif self._name in self._files:
            await self._flush()
        else:
            self.form.fields[self._name] = bytes(self._data)
            self._data.clear()

    def _begin(self, name: str) -> None:
        if name not in self._rooms:
            known = ", ".join(self._rooms)
            raise Invalid(
                f"The form may not have a part {name[:_SHOWN]!r}: use {known}.", field=name[:_SHOWN]
            )
        if name in self.form.fields or name in self.form.files:
            raise Invalid("The form has this part twice.", field=name)
        self._name = name
        self._room = self._rooms[name]
        self._data.clear()
        if name in self._files:
            self.form.files[name] = self._incoming.enter_context(self._store.incoming())

    async def _flush(self) -> None:
        data = bytes(self._data)
        self._data.clear()
        await asyncio.to_thread(self.form.files[self._name].write, data)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise BadRequest(f"The form cannot be read: {error}.") from None
