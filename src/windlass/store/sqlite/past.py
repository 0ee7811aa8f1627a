"""A living message's past, as its row keeps it: JSON objects with commas between them, of bounded length.

Where it gets too long, events in the middle make room: how a message began and what became of it last are
what people look for.
"""

from __future__ import annotations

import msgspec

LIMIT = 4_000
"""Characters of past events up to which nothing is left out."""
BEGINNING = 4
"""Events at the beginning that are kept in any case: two deliveries and their ends."""
_LATEST = 2_000
"""Characters of the latest events that stay when others make room."""


class _Omitted(msgspec.Struct, tag_field="event", tag="omitted"):
    """Stands for so many events."""

    omitted: int


_encode = msgspec.json.Encoder().encode
_events = msgspec.json.Decoder(list[msgspec.Raw]).decode


def longer(past: str | None, *events: str) -> str:
    """`past` with more events."""
    text = ",".join((past, *events) if past else events)
    return text if len(text) <= LIMIT else _shorter(text)


def _shorter(text: str) -> str:
    events = [bytes(event) for event in _events(f"[{text}]")]
    first, rest = events[:BEGINNING], events[BEGINNING:]
    omitted = 0
    if rest and (gap := _gap(rest[0])) is not None:
        omitted, rest = gap, rest[1:]
    cut, room = len(rest), _LATEST
    while cut and (room := room - len(rest[cut - 1])) >= 0:
        cut -= 1
    omitted += cut
    gap_in_it = [_encode(_Omitted(omitted))] if omitted else []
    return b",".join([*first, *gap_in_it, *rest[cut:]]).decode()


def _gap(event: bytes) -> int | None:
    """How many events this one stands for, None where it is an event."""
    try:
        return msgspec.json.decode(event, type=_Omitted).omitted
    except msgspec.ValidationError:
        return None
