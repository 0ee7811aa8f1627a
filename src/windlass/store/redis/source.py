"""Reading a whole store on Redis, for a copy of it: what transfer.py names, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from windlass.errors import StartError
from windlass.ids import PLACE_BITS
from windlass.message import State
from windlass.store.redis.administration import AWAY
from windlass.store.redis.call import REGISTRY, Argument
from windlass.store.redis.direct import Direct
from windlass.store.redis.memory import Memory
from windlass.store.redis.records import decode, decode_settings, deliveries_of, pairs_of
from windlass.store.redis.upkeep import Upkeep
from windlass.store.transfer import BATCH, Answer, Dedup, Ended, Installation, Living, Past, Queue, Source

_PLACE = (1 << PLACE_BITS) - 1
_PLAIN = ord("P")
_INDEXES = {"r": State.READY, "g": State.BLOCKED, "l": State.LEASED, "y": State.DELAYED, "z": State.DEAD}

_decode_answer = msgspec.msgpack.Decoder(tuple[msgspec.Raw, list[str], list[int], int]).decode


class RedisSource(Source):
    """A store that no server has open."""

    spread = True

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        (self._facts,) = direct.do(REGISTRY, [("HGETALL", direct.key(REGISTRY, "s"))])
        if b"secret" not in self._facts:
            raise StartError(f"There is no store at {direct.address}: it has no registry.")
        _, names, keys, runners, _, _ = direct.ask("all", REGISTRY, [])
        self._memory = Memory()
        self._memory.read(self._memory.mark(), 0, pairs_of(names), pairs_of(keys), pairs_of(runners))
        self._numbers = sorted(self._memory.names)

    def check_quiet(self) -> None:
        """A server says at least every second that it is there. And what one left half done is finished."""
        (beat,) = self._direct.do(REGISTRY, [("HGET", self._direct.key(REGISTRY, "s"), "beat")])
        ago = self._direct.now() - int(beat or 0)
        if ago < AWAY:
            raise StartError(
                f"A server uses the store {self._direct.address}: it was there {max(ago, 0) / 1000:.1f} s"
                f" ago. Stop all of its servers, and begin again {AWAY // 1000} s later."
            )
        self._finish_moves()

    def _finish_moves(self) -> None:
        """Let messages arrive that were on their way between two queues when the last server ended."""

        async def ask(verb: str, number: int, args: Sequence[Argument]) -> Any:
            return self._direct.ask(verb, number, args)

        upkeep = Upkeep(self._direct.link, ask)
        for number in self._numbers:
            (moves,) = self._direct.do(number, [("HGETALL", self._direct.key(number, "v"))])
            looked_at = str(self._direct.now()).encode()
            asyncio.run(upkeep.move(number, [(*move, looked_at) for move in moves.items()]))

    # --- what there is once -----------------------------------------------------------------------

    def installation(self) -> Installation:
        facts, memory = self._facts, self._memory
        queues, last = [], 0
        for number in self._numbers:
            key = self._direct.key(number, "s")
            ((json, paused, created, place),) = self._direct.do(
                number, [("HMGET", key, "json", "paused", "created", "last")]
            )
            queues.append(
                Queue(number, memory.names[number], decode_settings(json), paused == b"1", int(created))
            )
            last = max(last, int(place))
        return Installation(
            secret=facts[b"secret"],
            queues=queues,
            keys=list(memory.keys.values()),
            runners=list(memory.runners.values()),
            last_queue=int(facts.get(b"next_queue", 0)),
            last_runner=int(facts.get(b"next_runner", 0)),
            last_number=last,
        )

    def counts(self) -> dict[int, list[int]]:
        counts = {}
        for number in self._numbers:
            _, _, _, ready, leased, delayed, dead, blocked, *_ = self._direct.ask("stats", number, [])
            by_state = {
                State.READY: ready,
                State.LEASED: leased,
                State.DELAYED: delayed,
                State.DEAD: dead,
                State.BLOCKED: blocked,
            }
            counts[number] = [by_state[state] for state in State]
        return counts

    # --- messages ---------------------------------------------------------------------------------

    def living(self, *, contents: bool = True) -> Iterator[Living]:
        for number in self._numbers:
            for index, state in _INDEXES.items():
                for member, _, raw, packed, forgotten in self._pages(number, index, "m", contents=contents):
                    yield _living(number, member, raw, packed, state, forgotten)

    def _pages(
        self, number: int, index: str, values: str, *, contents: bool = True
    ) -> Iterator[tuple[bytes, bytes, bytes, bytes, bytes]]:
        """Member, score, value, deliveries and when it is forgotten, of all that an index leads to."""
        at = 0
        while True:
            args: list[Argument] = [index, values, at, BATCH, "1" if contents else ""]
            seen, found = self._direct.ask("page", number, args)
            if not seen:
                return
            yield from found
            at += seen

    # --- records ----------------------------------------------------------------------------------

    def ended(self) -> Iterator[Ended]:
        for number in self._numbers:
            for index in ("ex", "u"):  # some that died are in `u`, too: those have no record yet
                for member, score, packed, *_ in self._pages(number, index, "e"):
                    yield _ended(number, member, packed, int(float(score)) if index == "ex" else None)

    def dedups(self) -> Iterator[Dedup]:
        for number in self._numbers:
            for dedup_id, _, value, *_ in self._pages(number, "ddx", "dd"):
                place, until = value.split()
                yield Dedup(number, dedup_id.decode(), int(place), int(until))

    def answers(self) -> Iterator[Answer]:
        for number in self._numbers:
            for key, _, packed, *_ in self._pages(number, "anx", "an"):
                fingerprint, places, known, until = _decode_answer(packed)
                duplicates = [bool(each) for each in known] if any(known) else None
                yield Answer(number, key, _bytes(fingerprint), list(map(int, places)), duplicates, until)

    def close(self) -> None:
        self._direct.close()


def _living(queue: int, member: bytes, raw: bytes, packed: bytes, state: State, forgotten: bytes) -> Living:
    home, number = _named(queue, member)
    place, rank, group, headers, expires, origin = number, 9, None, None, 0, None
    at = int.from_bytes(raw[1:7])
    if raw[0] == _PLAIN:
        content = raw[7:]
    else:
        body = 9 + int.from_bytes(raw[7:9])
        place, rank, group, headers, expires, origin = decode(raw[9:body])
        content = raw[body:]
    past = None
    if packed:
        known = deliveries_of(packed)
        leased, delayed = state is State.LEASED, state is State.DELAYED
        dead_due = int(float(forgotten)) if forgotten else None
        lapsed = leased and known.lapsed
        past = Past(
            due=known.due if leased or delayed else dead_due,
            token=known.token,
            count=known.count,
            base=known.base,
            since=known.since if leased else None,
            holder=(known.holder or "") if leased else None,  # type: ignore[arg-type]
            lapsed=lapsed,
            events=list(known.life),
            claim=_text(known.claim) if leased or state is State.DEAD else None,
            tentative=leased and known.tentative,
            forgiven=known.forgiven,
            unseen=known.unseen,
            longest=known.longest if leased else 0,
        )
        expires = 0 if lapsed else expires
    return Living(
        queue=queue,
        home=home,
        number=number,
        place=place,
        state=state,
        at=at,
        priority=9 - rank,
        content=content,
        group=_text(group),
        headers=_text(headers),
        expires=expires or None,
        origin=origin or None,
        past=past,
    )


def _ended(queue: int, member: bytes, packed: bytes, until: int | None) -> Ended:
    home, number = _named(queue, member)
    at, deliveries, rank, group, headers, life, ended_at, how, outcome, token = decode(packed)
    return Ended(
        queue=queue,
        home=home,
        number=number,
        at=at,
        deliveries=deliveries,
        priority=9 - rank,
        group=_text(group),
        headers=_text(headers),
        events=list(life),
        ended_at=ended_at,
        how=how,
        outcome=_text(outcome),
        token=token,
        until=until,
    )


def _named(queue: int, member: bytes) -> tuple[int, int]:
    """The queue that a message was sent to, and its number there."""
    home, colon, place = member.partition(b":")
    return (int(home), int(place)) if colon else (queue, int(home))


def _text(value: Any) -> str | None:
    """A text, None where `false` stands for none."""
    return value if isinstance(value, str) else None


def _bytes(raw: msgspec.Raw) -> bytes:
    """What MessagePack holds as a text: Lua's texts are bytes."""
    data = bytes(raw)
    if data[0] & 0xE0 == 0xA0:
        return data[1:]
    return data[1 + {0xD9: 1, 0xDA: 2, 0xDB: 4}[data[0]] :]
