"""Server-sent events ("text/event-stream", the HTML standard), as far as Windlass sends them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from windlass.client.errors import BadAnswer


class ServerEvent(NamedTuple):
    """One event: its name, its data, decoded, and its id where it has one."""

    name: str
    data: Any
    id: str = ""


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """The events in lines without their ends; one that is not finished is left out. Raises BadAnswer."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield _event(fields)
            fields = {}
            continue
        name, _, value = line.partition(":")
        if name:  # else it is a comment
            fields[name] = value.removeprefix(" ")


def _event(fields: dict[str, str]) -> ServerEvent:
    try:
        data = json.loads(fields["data"])
    except ValueError as error:
        raise BadAnswer(f"an event's data is not JSON: {error}") from error
    return ServerEvent(fields.get("event", "message"), data, fields.get("id", ""))
