"""What ends a delivery, or a message: acknowledge, extend, release, cancel; and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

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

R = TypeVar("R")


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
        args = [argument for ack in acks for argument in _acknowledging(number, ack)]
        call = Call(new_future(), "acknowledge", number, args, _settled, parts=len(acks))
        letters = any(ack.number >> PLACE_BITS != number for ack in acks)
        if not letters:
            call.elsewhere = lambda settled: self._acknowledge_elsewhere(number, acks, settled)
        if any(ack.tell for ack in acks) and not self._administration.is_marked(queue):
            submitted: Awaitable[Any] = self._administration.submit_marked(queue, call)
        else:
            submitted = self._link.submit(call)
        return self._acknowledge_letters(number, acks, submitted) if letters else submitted

    async def _acknowledge_letters(
        self, number: int, acks: Sequence[Acknowledgement], submitted: Awaitable[list[Settled | None]]
    ) -> list[Settled]:
        """The same, with a look at where messages are that were sent to another queue."""
        return await self._acknowledge_elsewhere(number, acks, await submitted)

    async def _acknowledge_elsewhere(
        self, number: int, acks: Sequence[Acknowledgement], settled: Sequence[Settled | None]
    ) -> list[Settled]:
        """What is said of all, where that of some depends on where they are now."""

        async def look(ack: Acknowledgement, found: Settled | None) -> Settled:
            if not _is_open(found, ack.number, number):
                return Settled.GONE if found is None else found
            queue, lives = await self._reading.where(ack.number)
            if lives:
                return Settled.STALE
            if queue in (0, number):
                return Settled.GONE
            (ended,) = _settled((await self._link.ask("acknowledge", queue, _acknowledging(queue, ack)))[0])
            return Settled.GONE if ended is None else ended

        return await _all(look(ack, found) for ack, found in zip(acks, settled, strict=True))

    def extend(self, queue: str, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        return self._extend(self._memory.number(queue), extensions)

    async def extend_anywhere(self, extensions: Sequence[Extension]) -> list[int | Settled]:
        """Each in the queue that its message is in."""
        by_queue: dict[int, list[int]] = {}
        for place, each in enumerate(extensions):
            by_queue.setdefault(each.number >> PLACE_BITS, []).append(place)
        results: list[int | Settled] = [Settled.GONE] * len(extensions)

        async def extend(number: int, places: Sequence[int]) -> None:
            try:
                found = await self._extend(number, [extensions[place] for place in places], anywhere=True)
            except QueueNotFound:
                return
            for place, until in zip(places, found, strict=True):
                results[place] = until

        await asyncio.gather(*(extend(number, places) for number, places in by_queue.items() if number))
        return results

    def _extend(
        self, number: int, extensions: Sequence[Extension], *, anywhere: bool = False
    ) -> Awaitable[list[int | Settled]]:
        args = [argument for each in extensions for argument in _extending(number, each)]
        call = Call(new_future(), "extend", number, args, _extended, parts=len(extensions))
        if any(each.number >> PLACE_BITS != number for each in extensions):
            return self._extend_letters(call, extensions)
        call.elsewhere = lambda found: self._extend_elsewhere(number, extensions, found, anywhere=anywhere)
        return self._link.submit(call)

    async def _extend_letters(self, call: Call, extensions: Sequence[Extension]) -> list[int | Settled]:
        found = await self._link.submit(call)
        return await self._extend_elsewhere(call.number, extensions, found, anywhere=False)

    async def _extend_elsewhere(
        self,
        number: int,
        extensions: Sequence[Extension],
        results: Sequence[int | Settled | None],
        *,
        anywhere: bool,
    ) -> list[int | Settled]:
        """When all end, where some are in another queue now; `anywhere`: they are extended there."""

        async def look(extension: Extension, found: int | Settled | None) -> int | Settled:
            while _is_open(found, extension.number, number):
                queue, lives = await self._reading.where(extension.number)
                if not lives:
                    return Settled.GONE
                if not anywhere:
                    return Settled.STALE
                try:
                    reply = await self._link.ask("extend", queue, _extending(queue, extension))
                except QueueNotFound:
                    continue
                (found,) = _extended(reply[0])  # open still, if it was moved on at this moment
            return Settled.GONE if found is None else found

        return await _all(look(each, found) for each, found in zip(extensions, results, strict=True))

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
        (settled,) = _settled([reply[0]])
        if _is_open(settled, number, of):
            _, lives = await self._reading.where(number)
            settled = Settled.STALE if lives else Settled.GONE
        if settled is not Settled.ACKNOWLEDGED:
            raise ReceiptStale if settled is Settled.STALE else ReceiptGone

    async def told(self, number: int, keep: int) -> None:
        home = number >> PLACE_BITS
        with contextlib.suppress(QueueNotFound):
            if (await self._link.ask("told", home, [member_of(home, number), keep]))[0]:
                return
            queue, _ = await self._reading.where(number)
            if queue not in (0, home):
                await self._link.ask("told", queue, [member_of(queue, number), keep])

    async def cancel(self, queue: str, number: int, *, leased: bool, how: str, outcome: bytes | None) -> None:
        if outcome is not None:
            await self._administration.mark(queue)
        of = self._memory.number(queue)
        args: list[Argument] = [member_of(of, number), "1" if leased else "", how, optional(outcome)]
        reply = await self._link.ask("cancel", of, args)
        if reply[0] == 1:
            raise MessageLeased("The message is leased. Wait until its lease is over, or acknowledge it.")
        if reply[0]:
            raise MessageGone


_ELSEWHERE = 3
"""What a function answers of a message of its queue that was moved to another one."""


def _settled(parts: Sequence[int]) -> list[Settled | None]:
    """None: it was moved to another queue."""
    return [None if part == _ELSEWHERE else Settled(part) for part in parts]


def _extended(parts: Sequence[Any]) -> list[int | Settled | None]:
    """None: as above."""
    return [int(part) if isinstance(part, bytes) else _settled([-part])[0] for part in parts]


def _is_open(found: int | Settled | None, message: int, queue: int) -> bool:
    """Whether something else has to be said of a message that lives in another queue than this."""
    return found is None or (found is Settled.GONE and message >> PLACE_BITS != queue)


def _acknowledging(queue: int, ack: Acknowledgement) -> list[Argument]:
    args: list[Argument] = [member_of(queue, ack.number), ack.delivery, optional(ack.outcome)]
    return [*args, optional(ack.holder), ("", "1", "2", "3")[ack.tell + 2 * ack.late]]


def _extending(queue: int, each: Extension) -> list[Argument]:
    args: list[Argument] = [member_of(queue, each.number), "" if each.lease is None else each.lease]
    return [*args, each.delivery, optional(each.holder), "" if each.longest is None else each.longest]


async def _all(looks: Iterable[Awaitable[R]]) -> list[R]:
    """What comes of looks behind something that is done. Raises OutcomeUnknown."""
    try:
        return await asyncio.gather(*looks)
    except StoreUnavailable as error:
        raise OutcomeUnknown(
            "This was done, and what became of some of the messages cannot be read.", retry_after=1
        ) from error
