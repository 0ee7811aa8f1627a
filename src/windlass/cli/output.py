"""How things are printed: plain columns for people, JSON for programs, one line a message for pipes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer

from windlass.client import LeasedMessage, Message


def print_json(value: Any) -> None:
    """`value` as one JSON document on one line; structs and times are understood."""
    plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    print(json.dumps(plain, ensure_ascii=False, default=time))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be, never cut; the header is bold on a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    typer.secho(_line(header, widths), bold=True)
    for row in rows:
        print(_line(row, widths))


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name:<{width}}  {value}".rstrip())


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def content_line(message: Message) -> str:
    """The content on one line: a string as its text, unless that would break the line; else its JSON."""
    if message.raw.startswith('"'):
        text = message.content
        if isinstance(text, str) and (text.isprintable() or not text):
            return text
        return json.dumps(text)
    return raw_line(message)


def raw_line(message: Message) -> str:
    """The content's JSON text as it was sent; a line break between its tokens becomes a space."""
    return _one_line(message.raw)


def message_json(message: Message) -> str:
    """The whole message as a JSON object on one line, its content untouched."""
    fields: dict[str, Any] = {
        "id": message.id,
        "content": msgspec.Raw(_one_line(message.raw).encode()),
        "enqueued_at": time(message.enqueued_at),
        "deliveries": message.deliveries,
        "priority": message.priority,
        "group": message.group,
        "headers": message.headers,
    }
    if isinstance(message, LeasedMessage):
        fields |= {"receipt": message.receipt, "lease_until": time(message.lease_until)}
    return msgspec.json.encode(fields).decode()


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def time(moment: datetime) -> str:
    """As the server writes it: RFC 3339, UTC, milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(value: float | None) -> str:
    """A duration for people: 45 s, 5 min, 2 h 30 min; - when there is none."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.3g} s"
    parts = []
    left = round(value)
    for name, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def number(value: int | None) -> str:
    """A count for people, - when there is none."""
    return "-" if value is None else f"{value:,}"


def shown(text: str, *, lines: bool = False) -> str:
    """Text of others for a terminal: what is not printable, escape sequences above all, becomes visible.

    With `lines`, line breaks and tabs stay.
    """
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def note(text: str) -> None:
    """A remark for the person at the terminal; kept off stdout."""
    sys.stdout.flush()
    typer.echo(text, err=True)
