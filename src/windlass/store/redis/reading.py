"""Looks: peek, find, held, untold, oldest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from windlass.errors import QueueNotFound
from windlass.ids import PLACE_BITS
from windlass.message import End, Held, Life, Message, State
from windlass.store.redis.call import REGISTRY, Argument, optional
from windlass.store.redis.link import Link
from windlass.store.redis.records import deliveries_of, ended, living, member_of, message_of
from windlass.store.redis.upkeep import Upkeep


class Reading:
    """These verbs, as the store has them."""

    def __init__(self, link: Link, upkeep: Upkeep) -> None:
        self._link = link
        self._memory = link.memory
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
        queue = number >> PLACE_BITS
        while queue:
            member = member_of(queue, number)
            try:
                reply = await self._link.ask("find", queue, [member])
            except QueueNotFound:
                return None
            name = self._memory.names.get(queue, "")
            if reply[0] == b"living":
                return living(queue, name, member.encode(), *reply[1:])
            if reply[0] == b"ended":
                return ended(queue, name, member.encode(), reply[1])
            if reply[0] == b"moving":
                await self._upkeep.move_on(queue)
            elif reply[0] == b"away" and int(reply[1]) != queue:
                queue = int(reply[1])
            else:
                return None
        return None

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
            name = self._memory.names.get(number, "")
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

    async def oldest(self, queue: str) -> int | None:
        found = await self._link.ask("oldest", self._memory.number(queue), [])
        return int(found) if found else None
