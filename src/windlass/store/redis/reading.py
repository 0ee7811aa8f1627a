"""Looks: peek, find, where, held, untold, totals, oldest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import add
from typing import Any

from windlass.errors import QueueNotFound
from windlass.ids import PLACE_BITS
from windlass.message import End, Held, Life, Message, State
from windlass.store.redis.administration import Administration
from windlass.store.redis.call import REGISTRY, Argument, optional
from windlass.store.redis.link import Link
from windlass.store.redis.records import (
    PLACES,
    deliveries_of,
    ended,
    living,
    member_of,
    message_of,
    target_of,
)
from windlass.store.redis.upkeep import Upkeep

_COUNTED = 500
"""Queues that are counted at a time."""
_NOTHING: Any = (b"none",)


class Reading:
    """These verbs, as the store has them."""

    def __init__(self, link: Link, administration: Administration, upkeep: Upkeep) -> None:
        self._link = link
        self._memory = link.memory
        self._administration = administration
        self._upkeep = upkeep

    async def peek(self, queue: str, limit: int, state: State) -> list[Message]:
        number = self._memory.number(queue)
        messages: list[Message] = []
        for member, raw, packed in await self._link.ask("peek", number, [int(state), limit]):
            past = deliveries_of(packed)
            until = past.due if state is State.LEASED else 0
            messages.append(message_of(number, member, raw, past.count, 0, until))
        return messages

    async def find(self, number: int) -> Life | None:
        queue, reply = await self._look("find", number)
        if not queue:
            return None
        name, member = await self._name(queue), member_of(queue, number).encode()
        if reply[0] == b"living":
            return living(queue, name, member, *reply[1:])
        return ended(queue, name, member, reply[1])

    async def _name(self, queue: int) -> str:
        """A queue's name, though nobody told us yet that another server made it; "" for one that is gone."""
        if queue not in self._memory.names:
            await self._administration.read_anew()
        return self._memory.names.get(queue, "")

    async def where(self, number: int) -> tuple[int, bool]:
        """Number of the queue that a message, or the record of its end, is in (0: there is nothing of it any
        more), and whether it lives."""
        queue, reply = await self._look("where", number)
        return queue, bool(queue) and reply[0] == b"living"

    async def _look(self, verb: str, number: int) -> tuple[int, Any]:
        """What `verb` says of a message in the queue in which there is something of it, 0: there is nothing.

        From its home a pointer may lead on. One that leads nowhere, and is still there when that is known, is
        taken away: what it led to was purged, say.
        """
        home = at = number >> PLACE_BITS
        followed = b""
        while True:
            try:
                reply = await self._link.ask(verb, at, [member_of(at, number)]) if at else _NOTHING
            except QueueNotFound:
                reply = _NOTHING
            if reply[0] in (b"living", b"ended"):
                return at, reply
            if reply[0] == b"moving":
                await self._upkeep.move_on(at)
            elif reply[0] == b"away" and reply[1] != followed:
                followed = reply[1]
                at = target_of(followed)
            elif reply[0] == b"away":
                self._link.send_quietly("unpoint", home, [number & PLACES, followed])
                return 0, reply
            elif at != home:
                at = home
            else:
                return 0, reply

    async def held(self, holder: str | None) -> list[Held]:
        found: list[Held] = []
        for number, reply in await self._of_claimed("held", [optional(holder)]):
            for member, raw, packed in reply:
                past = deliveries_of(packed)
                message = message_of(number, member, raw, past.count, past.token, past.due)
                found.append(Held(message, str(past.holder), str(past.claim), past.tentative, past.since))
        return found

    async def untold(self, limit: int) -> list[End]:
        ends: list[End] = []
        for number, reply in await self._of_claimed("untold", [limit]):
            name = await self._name(number) if reply else ""
            for member, *rest in reply:
                if len(rest) == 1:
                    life = ended(number, name, member, rest[0])
                    ends.append(End(life.message.number, life.outcome, life))
                else:
                    life = living(number, name, member, int(State.DEAD), *rest)
                    ends.append(End(life.message.number, None, life))
        return sorted(ends, key=lambda end: end.number)[:limit]

    async def _of_claimed(self, verb: str, args: Sequence[Argument]) -> list[tuple[int, Any]]:
        """What the queues answer in which there may be claims."""
        numbers = sorted({int(number) for number in await self._link.ask("claimed", REGISTRY, [])})

        async def ask(number: int) -> Any:
            try:
                return await self._link.ask(verb, number, args)
            except QueueNotFound:
                return []

        return list(zip(numbers, await asyncio.gather(*map(ask, numbers)), strict=True))

    async def totals(self) -> tuple[int, list[int]]:
        """Of the queues that are known here. A bite a call, so that others get their turn."""
        numbers = list(self._memory.names)
        found = [0] * (1 + len(State))
        for at in range(0, len(numbers), _COUNTED):
            for counts in await self._counts(numbers[at : at + _COUNTED]):
                found = list(map(add, found, counts))
        return found[0], found[1:]

    async def _counts(self, numbers: Sequence[int]) -> Sequence[Sequence[int]]:
        if not self._link.topology.cluster:
            return [await self._link.ask("counts", REGISTRY, numbers)]
        return list(await asyncio.gather(*(self._link.ask("counts", number, []) for number in numbers)))

    async def oldest(self, queue: str) -> int | None:
        found = await self._link.ask("oldest", self._memory.number(queue), [])
        return int(found) if found else None
