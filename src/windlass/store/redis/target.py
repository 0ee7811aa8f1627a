"""Writing a whole store on Redis, for a copy of it: plain commands, in the formats that the verbs write."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from windlass.errors import StartError
from windlass.ids import PLACE_BITS
from windlass.message import State
from windlass.store.redis.administration import COPYING, unfinished
from windlass.store.redis.call import REGISTRY, Argument
from windlass.store.redis.direct import Direct
from windlass.store.redis.link import QUEUE_KEYS, REGISTRY_KEYS
from windlass.store.redis.records import Deliveries, encode, fields_of
from windlass.store.redis.source import RedisSource
from windlass.store.transfer import (
    Answer,
    Dedup,
    Ended,
    Installation,
    Living,
    Queue,
    Record,
    Source,
    Target,
    in_words,
    ordered,
)

_RANK = 1 << PLACE_BITS
_INDEXES = {State.READY: "r", State.LEASED: "l", State.DELAYED: "y", State.DEAD: "z"}


class RedisTarget(Target):
    """An installation's keys, of which there are none yet."""

    spread = True

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        self._installation: Installation | None = None
        self._claimed: set[int] = set()
        self._histories: dict[int, bool] = {}
        """Number of a queue -> whether it keeps records of all messages."""

    # --- the beginning ----------------------------------------------------------------------------

    def begin(self, installation: Installation) -> None:
        self._refuse_what_is_there(installation)
        if installation.last_number >= _RANK:
            raise StartError(
                f"Numbers of messages have outgrown {PLACE_BITS} bits, the most that Redis takes."
            )
        (first,) = self._registry([("HSETNX", "s", COPYING, str(self._direct.now()))])
        if not first:
            raise unfinished(self._direct.address)
        self._installation = installation
        for queue in installation.queues:
            self._histories[queue.number] = queue.settings.history_seconds > 0
            self._put_queue(queue, installation)

    def _refuse_what_is_there(self, installation: Installation) -> None:
        direct = self._direct
        copying, secret = self._registry([("HGET", "s", COPYING), ("HGET", "s", "secret")])
        if copying is not None:
            raise unfinished(direct.address)
        if secret is not None:
            raise StartError(
                f"The store {direct.address} is not empty: it has {_contents(direct)}. Nothing was changed."
                " Name another database or prefix (?prefix=NAME)."
            )
        for number in (REGISTRY, *(queue.number for queue in installation.queues)):
            names = QUEUE_KEYS if number else REGISTRY_KEYS
            keys = [direct.key(number, name) for name in names]
            there = direct.do(number, [("EXISTS", key) for key in keys])
            if any(there):
                raise StartError(
                    f"The store {direct.address} is not empty: there is a key {keys[there.index(1)]}."
                    " Nothing was changed. Name another database or prefix (?prefix=NAME)."
                )

    def _put_queue(self, queue: Queue, installation: Installation) -> None:
        letters = {each.name: each.number for each in installation.queues}
        dead_letter = queue.settings.dead_letter
        fields: dict[str, Argument] = {
            "number": queue.number,
            "name": queue.name,
            "paused": "1" if queue.paused else "0",
            **fields_of(queue.settings),
            "dl": letters[dead_letter] if dead_letter is not None else "",
            "last": installation.last_number,
            "created": queue.created_at,
        }
        self._direct.do(queue.number, [("HSET", self._direct.key(queue.number, "s"), *_flat(fields))])

    # --- records ----------------------------------------------------------------------------------

    def put(self, batch: Sequence[Record]) -> None:
        pointers: dict[int, list[Argument]] = {}
        for number, records in _by_queue(batch).items():
            commands: dict[tuple[str, str], list[Argument]] = {}

            def add(
                command: str,
                name: str,
                *args: Argument,
                into: dict[tuple[str, str], list[Argument]] = commands,
            ) -> None:
                into.setdefault((command, name), []).extend(args)

            for record in records:
                if isinstance(record, Living):
                    self._add_living(add, record)
                elif isinstance(record, Ended):
                    self._add_ended(add, record)
                elif isinstance(record, Dedup):
                    add("HSET", "dd", record.dedup_id, f"{record.number} {record.until}")
                    add("ZADD", "ddx", record.until, record.dedup_id)
                else:
                    add("HSET", "an", record.key, _answer(record))
                    add("ZADD", "anx", record.until, record.key)
                if isinstance(record, Living | Ended) and record.home != number:
                    pointers.setdefault(record.home, []).extend((record.number, number))
            self._do(number, commands)
        for home, places in pointers.items():
            if home in self._histories:  # else that queue is gone
                self._do(home, {("HSET", "away"): places})

    def _do(self, number: int, commands: dict[tuple[str, str], list[Argument]]) -> None:
        self._direct.do(
            number,
            [(command, self._direct.key(number, name), *args) for (command, name), args in commands.items()],
        )

    def _add_living(self, add: Callable[..., None], message: Living) -> None:
        member, state, past = _member(message), message.state, message.past
        raw = _raw(message)
        add("HSET", "m", member, raw)
        if state is State.READY:
            add("ZADD", "r", (9 - message.priority) * _RANK + message.place, member)
        elif state is State.DEAD:
            add("ZADD", "z", message.at, member)
        elif state is not State.BLOCKED:
            assert past is not None
            add("ZADD", _INDEXES[state], past.due or 0, member)
        if past is not None:
            plain = raw[:1] == b"P" and not self._histories[message.queue]
            add("HSET", "d", member, _deliveries(message, plain=plain))
            if state is State.LEASED and past.claim is not None:
                add("ZADD", "c", 0, f"{past.holder}\0{member}")
                self._claimed.add(message.queue)
            elif state is State.DEAD and past.claim is not None:
                add("ZADD", "u", 0, member)
                self._claimed.add(message.queue)
            elif state is State.DEAD and past.due is not None:
                add("ZADD", "zx", past.due, member)
        if message.expires is not None:
            add("ZADD", "x", message.expires, member)
        if message.group is not None and state is not State.DEAD:
            size = len(message.group.encode())
            add("ZADD", "g", 0, f"{size:04x}{message.group}{message.place:015d}:{member}")
        if message.origin is not None:
            add("ZADD", "o", 0, f"{message.origin:010d}{message.place:015d}:{member}")

    def _add_ended(self, add: Callable[..., None], record: Ended) -> None:
        member = _member(record)
        packed = encode(
            (
                record.at,
                record.deliveries,
                9 - record.priority,
                _or_false(record.group),
                _or_false(record.headers),
                [ordered(event) for event in record.events],
                record.ended_at,
                record.how,
                _or_false(record.outcome),
                record.token,
            )
        )
        add("HSET", "e", member, packed)
        if record.until is None:
            add("ZADD", "u", 0, member)
            self._claimed.add(record.queue)
        else:
            add("ZADD", "ex", record.until, member)

    # --- the end ----------------------------------------------------------------------------------

    def finish(self) -> None:
        installation = self._installation
        assert installation is not None
        names = {queue.name: queue.number for queue in installation.queues}
        letters = {
            queue.name: queue.settings.dead_letter
            for queue in installation.queues
            if queue.settings.dead_letter is not None
        }
        facts: dict[str, Argument] = {
            "secret": installation.secret,
            "version": 1,
            "next_queue": installation.last_queue,
            "next_runner": installation.last_runner,
            "beat": 0,  # for long no server was there: whoever starts gives confirmed claims a whole lease
        }
        commands: list[Sequence[Argument]] = [("HSET", "s", *_flat(facts))]
        for key, fields in (
            ("names", names),
            ("letters", letters),
            ("k", {key.id: encode(key) for key in installation.keys}),
            ("ru", {str(runner.number): encode(runner) for runner in installation.runners}),
        ):
            if fields:
                commands.append(("HSET", key, *_flat(fields)))
        if self._claimed:
            commands.append(("SADD", "claimed", *self._claimed))
        self._registry(commands)

    def _registry(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Answers to commands about the registry; the second word of each is the end of a key."""
        direct = self._direct
        return direct.do(
            REGISTRY, [(name, direct.key(REGISTRY, str(key)), *args) for name, key, *args in commands]
        )

    def reading(self) -> Source:
        return RedisSource(Direct(self._direct.address, self._direct.link.clock))

    def commit(self) -> None:
        self._registry([("HDEL", "s", COPYING)])

    def close(self) -> None:
        self._direct.close()


def _contents(direct: Direct) -> str:
    """What an installation has, in a few words."""
    (names,) = direct.do(REGISTRY, [("HKEYS", direct.key(REGISTRY, "names"))])
    return f"an installation with {in_words([name.decode() for name in names])}"


def _by_queue(batch: Sequence[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in batch:
        found.setdefault(record.queue, []).append(record)
    return found


def _member(record: Living | Ended) -> str:
    return str(record.number) if record.home == record.queue else f"{record.home}:{record.number}"


def _raw(message: Living) -> bytes:
    """What never changes of it: see common.lua."""
    plain = (
        message.priority == 0
        and (message.group, message.headers, message.expires, message.origin) == (None, None, None, None)
        and message.home == message.queue
        and message.place == message.number
    )
    at = message.at.to_bytes(6)
    if plain:
        return b"P" + at + message.content
    head = encode(
        (
            message.place,
            9 - message.priority,
            _or_false(message.group),
            _or_false(message.headers),
            message.expires or 0,
            message.origin or False,
        )
    )
    return b"S" + at + struct.pack(">H", len(head)) + head + message.content


def _deliveries(message: Living, *, plain: bool) -> bytes:
    past = message.past
    assert past is not None
    return encode(
        Deliveries(
            state=int(State.READY if message.state is State.BLOCKED else message.state),
            due=0 if message.state is State.DEAD else past.due or 0,
            token=past.token,
            count=past.count,
            base=past.base,
            since=message.at if message.state is State.DEAD else past.since or 0,
            holder=_or_false(past.holder),
            lapsed=past.lapsed,
            life=[ordered(event) for event in past.events],
            claim=_or_false(past.claim),
            tentative=past.tentative,
            forgiven=past.forgiven,
            unseen=past.unseen,
            plain=plain and message.state is State.LEASED,
            longest=past.longest,
        )
    )


def _answer(record: Answer) -> bytes:
    duplicates = record.duplicates or [False] * len(record.numbers)
    places = [str(number) for number in record.numbers]
    # Lua's texts are bytes, and its MessagePack knows no others.
    fingerprint = msgspec.Raw(struct.pack(">BI", 0xDB, len(record.fingerprint)) + record.fingerprint)
    return encode((fingerprint, places, [int(known) for known in duplicates], record.until))


def _or_false(value: str | None) -> str | bool:
    return False if value is None else value


def _flat(fields: dict[str, Any]) -> list[Argument]:
    return [argument for pair in fields.items() for argument in pair]
