"""What Redis keeps of a message, and what comes of it: see functions/common.lua for how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.clock import rfc3339
from windlass.ids import PLACE_BITS
from windlass.message import Life, Message, QueueInfo, QueueSettings, State

PLACES = (1 << PLACE_BITS) - 1
_PLAIN = ord("P")
_MINUTE = 60
_COUNT = 1 << 20

decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode
decode_settings = msgspec.json.Decoder(QueueSettings).decode
encode_settings = msgspec.json.Encoder().encode


def member_of(queue: int, number: int) -> str:
    """What a message is called in queue number `queue`."""
    home = number >> PLACE_BITS
    return str(number & PLACES) if home == queue else f"{home}:{number & PLACES}"


def number_of(queue: int, member: bytes) -> int:
    """The number of what is called so in queue number `queue`."""
    home, colon, place = member.partition(b":")
    return int(home) << PLACE_BITS | int(place) if colon else queue << PLACE_BITS | int(home)


def target_of(pointer: bytes) -> int:
    """The number of the queue that a pointer leads to."""
    return int(pointer.partition(b":")[0])


def message_of(
    queue: int, member: bytes, raw: bytes, deliveries: int, delivery: int = 0, lease_until: int = 0
) -> Message:
    """A message of queue number `queue` from what never changes of it."""
    number = number_of(queue, member)
    at = int.from_bytes(raw[1:7])
    if raw[0] == _PLAIN:
        return Message(
            number >> PLACE_BITS, number, raw[7:], at, deliveries, 0, None, None, delivery, lease_until
        )
    size = int.from_bytes(raw[7:9])
    _, rank, group, headers, *_ = decode(raw[9 : 9 + size])
    return Message(
        number >> PLACE_BITS,
        number,
        raw[9 + size :],
        at,
        deliveries,
        9 - rank,
        group or None,
        headers.encode() if headers else None,
        delivery,
        lease_until,
    )


class Deliveries(msgspec.Struct, array_like=True, gc=False):
    """A message's deliveries, as D of common.lua names them."""

    state: int = 0
    due: int = 0
    token: int = 0
    count: int = 0
    base: int = 0
    since: int = 0
    holder: str | bool = False
    lapsed: bool = False
    life: list[dict[str, Any]] = []
    claim: str | bool = False
    tentative: bool = False
    forgiven: int = 0
    unseen: int = 0
    plain: bool = False
    longest: int = 0


_decode_deliveries = msgspec.msgpack.Decoder(Deliveries).decode


def deliveries_of(packed: bytes) -> Deliveries:
    return _decode_deliveries(packed) if packed else Deliveries()


def living(queue: int, name: str, member: bytes, state: int, raw: bytes, packed: bytes) -> Life:
    """The life of a message that has not ended."""
    past = deliveries_of(packed)
    events = [{"event": "sent", "at": int.from_bytes(raw[1:7])}, *past.life]
    if past.state == State.LEASED:
        events.append({"event": "leased", "at": past.since, "until": past.due, "by": past.holder or ""})
    elif past.state == State.DELAYED:
        events.append({"event": "delayed", "until": past.due})
    message = message_of(queue, member, raw, past.count)
    return Life(message, State(state).name.lower(), name, _dated(events))


def ended(queue: int, name: str, member: bytes, packed: bytes) -> Life:
    """The life of a message that has ended, from its record."""
    at, deliveries, rank, group, headers, life, ended_at, how, outcome, _ = decode(packed)
    number = number_of(queue, member)
    message = Message(
        number >> PLACE_BITS,
        number,
        b"",
        at,
        deliveries,
        9 - rank,
        group or None,
        headers.encode() if headers else None,
    )
    events = _dated([{"event": "sent", "at": at}, *life])
    return Life(message, how, name, events, outcome.encode() if outcome is not False else None, ended_at)


def _dated(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events whose times are texts."""
    return [
        {
            name: rfc3339(value).decode() if name in ("at", "until") and isinstance(value, int) else value
            for name, value in sorted(event.items(), key=_order)
        }
        for event in events
    ]


_ORDER = {name: place for place, name in enumerate(("event", "at", "until", "by"))}


def _order(item: tuple[str, Any]) -> int:
    return _ORDER.get(item[0], len(_ORDER))


def pairs_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash from its fields and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def info_of(name: str, reply: Sequence[Any]) -> QueueInfo:
    """A queue from what `stats` answers."""
    json, paused, created, ready, leased, delayed, dead, blocked, passed, now = reply
    second = int(now) // 1000
    rates = {b"i": 0, b"o": 0}
    for field, value in pairs_of(passed).items():
        at, count = divmod(int(value), _COUNT)
        if second - _MINUTE < at <= second:
            rates[field[:1]] += count
    return QueueInfo(
        name=name,
        settings=decode_settings(json),
        paused=paused == b"1",
        created_at=int(created),
        ready=ready,
        leased=leased,
        delayed=delayed,
        dead=dead,
        blocked=blocked,
        in_rate=round(rates[b"i"] / _MINUTE, 3),
        out_rate=round(rates[b"o"] / _MINUTE, 3),
    )


def fields_of(settings: QueueSettings) -> dict[str, str | bytes]:
    """Settings as the functions read them: ms, '' where there is no limit."""

    def ms(seconds: float | None) -> str:
        return "" if seconds is None else str(round(seconds * 1000))

    return {
        "json": encode_settings(settings),
        "lease": ms(settings.lease_seconds),
        "maxdel": "" if settings.max_deliveries is None else str(settings.max_deliveries),
        "maxlen": "" if settings.max_length is None else str(settings.max_length),
        "maxbytes": str(settings.max_message_bytes),
        "retention": ms(settings.retention_seconds),
        "dedup": ms(settings.dedup_window_seconds),
        "history": ms(settings.history_seconds),
        "outcome": ms(settings.outcome_ttl_seconds),
        "dlname": settings.dead_letter or "",
    }
