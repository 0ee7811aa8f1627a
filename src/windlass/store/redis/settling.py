"""What ends a delivery, or a message: acknowledge, extend, release, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from windlass.errors import (
    MessageGone,
    MessageLeased,
    OutcomeUnknown,
    QueueNotFound,
    ReceiptGone,
    ReceiptStale,
    StoreUnavailable,
)
from windlass.ids import PLACE_BITS
from windlass.message import Acknowledgement, Extension, Settled
from windlass.store.redis.administration import Administration
from windlass.store.redis.call import Argument, Call, new_future, optional
from windlass.store.redis.link import Link
from windlass.store.redis.reading import Reading
from windlass.store.redis.records import member_of
from windlass.store.redis.upkeep import Upkeep


class Settling:
    """These verbs, as the store has them. A queue that is not known here is refused at once."""

    def __init__(self, link: Link, administration: Administration, upkeep: Upkeep, reading: Reading) -> None:
        self._link = link
        self._memory = link.memory
        self._administration = administration
        self._upkeep = upkeep
        self._reading = reading

    def acknowledge(self, queue: str, acks: Sequence[Acknowledgement]) -> Awaitable[list[Settled]]:
        number = self._memory.number(queue)
        if not acks:  # none of many receipts was ever issued
            nothing = new_future()
            nothing.set_result([])
            return nothing
        args: list[Argument] = []
        for ack in acks:
            args += [member_of(number, ack.number), ack.delivery]
            args += [optional(ack.outcome), optional(ack.holder), "1" if ack.tell else ""]
        call = Call(new_future(), "acknowledge", number, args, _settled, parts=len(acks))
        if any(ack.number >> PLACE_BITS != number for ack in acks):
            return self._acknowledge_letters(call, acks)
        if any(ack.tell for ack in acks) and not self._administration.is_marked(queue):
            return self._administration.submit_marked(queue, call)
        return self._link.submit(call)

    async def _acknowledge_letters(self, call: Call, acks: Sequence[Acknowledgement]) -> list[Settled]:
        """The same, with a look at where messages are that were sent to another queue."""
        settled: list[Settled] = await self._link.submit(call)
        for place, ack in enumerate(acks):
            if settled[place] is Settled.GONE:
                try:
                    life = await self._reading.find(ack.number)
                except StoreUnavailable as error:
                    raise OutcomeUnknown(
                        "This was done, and what became of some of the messages cannot be read.",
                        retry_after=1,
                    ) from error
                if life is not None and life.ended_at is None:
                    settled[place] = Settled.STALE
        return settled

    def extend(self, queue: str, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        return self._extend(self._memory.number(queue), extensions)

    async def extend_anywhere(self, extensions: Sequence[Extension]) -> list[int | Settled]:
        """Each in the queue that its number names."""
        by_queue: dict[int, list[int]] = {}
        for place, each in enumerate(extensions):
            by_queue.setdefault(each.number >> PLACE_BITS, []).append(place)
        results: list[int | Settled] = [Settled.GONE] * len(extensions)

        async def extend(number: int, places: Sequence[int]) -> None:
            try:
                found = await self._extend(number, [extensions[place] for place in places])
            except QueueNotFound:
                return
            for place, until in zip(places, found, strict=True):
                results[place] = until

        await asyncio.gather(*(extend(number, places) for number, places in by_queue.items() if number))
        return results

    def _extend(self, number: int, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        args: list[Argument] = []
        for each in extensions:
            args += [member_of(number, each.number), "" if each.lease is None else each.lease]
            args += [each.delivery, optional(each.holder), "" if each.longest is None else each.longest]
        return self._link.submit(Call(new_future(), "extend", number, args, _extended, parts=len(extensions)))

    async def release(
        self,
        queue: str,
        number: int,
        delivery: int,
        delay: int,
        *,
        holder: str | None,
        reason: str,
        counts: bool,
        last: bool,
    ) -> None:
        of = self._memory.number(queue)
        args: list[Argument] = [member_of(of, number), delivery, delay, optional(holder), reason]
        reply = await self._link.ask("release", of, [*args, "1" if counts else "", "1" if last else ""])
        await self._upkeep.carry_on(of, reply[5])
        if reply[0]:
            raise ReceiptStale if reply[0] == 1 else ReceiptGone

    async def cancel(
        self, queue: str, number: int, *, leased: bool, how: str, outcome: bytes | None, delivery: int | None
    ) -> None:
        if outcome is not None:
            await self._administration.mark(queue)
        of = self._memory.number(queue)
        args: list[Argument] = [member_of(of, number), "1" if leased else "", how, optional(outcome)]
        args.append("" if delivery is None else delivery)
        reply = await self._link.ask("cancel", of, args)
        if reply[0] == 1:
            raise MessageLeased("The message is leased. Wait until its lease is over, or acknowledge it.")
        if reply[0]:
            raise MessageGone


def _settled(parts: Sequence[int]) -> list[Settled]:
    return [Settled(part) for part in parts]


def _extended(parts: Sequence[Any]) -> list[int | Settled]:
    return [int(part) if isinstance(part, bytes) else Settled(-part) for part in parts]
