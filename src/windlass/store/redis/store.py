"""The store on Redis. Verbs are calls of functions; the link takes them there, together with others."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from windlass.clock import Clock
from windlass.errors import (
    MessageGone,
    MessageLeased,
    OutcomeUnknown,
    QueueNotFound,
    ReceiptGone,
    ReceiptStale,
    StoreUnavailable,
    WindlassError,
)
from windlass.ids import PLACE_BITS
from windlass.message import (
    Acknowledgement,
    End,
    Extension,
    Held,
    Life,
    Message,
    Once,
    Options,
    QueueInfo,
    Sent,
    Settled,
    State,
)
from windlass.store.base import Caller, Changes, Key, Runner, Store
from windlass.store.redis import receiving, sending
from windlass.store.redis.address import Address
from windlass.store.redis.administration import Administration
from windlass.store.redis.call import REGISTRY, Argument, Call, new_future, whole
from windlass.store.redis.clock import ServerClock
from windlass.store.redis.durability import Asked, Reader, check
from windlass.store.redis.link import Link
from windlass.store.redis.memory import decode_runner
from windlass.store.redis.news import News
from windlass.store.redis.records import (
    Deliveries,
    deliveries_of,
    encode,
    ended,
    living,
    member_of,
    message_of,
)
from windlass.store.redis.topology import Topology
from windlass.store.redis.upkeep import Upkeep
from windlass.store.redis.watch import Watch

log = structlog.get_logger("windlass.store")


class RedisStore(Store):
    """Any number of servers may have it open."""

    kind = "Redis"
    shared = True
    spread = True

    def __init__(
        self,
        address: Address,
        *,
        clock: Clock | None = None,
        durability: Asked = "fsync",
        replicas: int = 1,
    ) -> None:
        """Connect; `clock` None: the servers' own. Raises StartError, StoreUnavailable; blocks."""
        self.calls: Counter[str] = Counter()
        self.clock = clock or ServerClock()
        server = secrets.token_hex(8)
        topology = Topology(address)
        reader = Reader(topology, durability, replicas)
        try:
            given = reader.read()
            check(given)
            self._link = Link(topology, address.prefix, self.clock, server)
            self._link.promise(given)
            self._memory = self._link.memory
            self._administration = Administration(self._link, self._link.ask)
            self._upkeep = Upkeep(self._link, self._link.ask)
            self.secret = self._administration.open()
        except BaseException:
            reader.close()
            topology.close()
            raise
        self._news = News(self._link)
        self._news.listen(REGISTRY)
        self._watch = Watch(self._link, self._administration, reader, given, self._news.registry_changed)
        self._watch.start()
        log.info(
            "store_open",
            address=str(address),
            queues=len(self._memory.names),
            **msgspec.to_builtins(given.survives),
        )
        for advice in given.advice:
            log.warning("store_advice", message=advice)

    # --- queues -----------------------------------------------------------------------------------

    async def create_queue(self, name: str, settings: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        self.calls["create_queue"] += 1
        return await self._administration.create(name, settings)

    async def update_queue(
        self, name: str, settings: Mapping[str, Any], paused: bool | None = None
    ) -> QueueInfo:
        self.calls["update_queue"] += 1
        return await self._administration.update(name, settings, paused)

    async def delete_queue(self, name: str) -> None:
        self.calls["delete_queue"] += 1
        await self._administration.delete(name)

    async def queues(self, prefix: str = "", after: str = "", limit: int = 100) -> list[QueueInfo]:
        self.calls["queues"] += 1
        await self._administration.read_anew()
        found: list[QueueInfo] = []
        while len(found) < limit:
            names = self._memory.page(prefix, after, limit - len(found))
            if not names:
                break
            found += await self._administration.infos(names)
            after = names[-1]
        return found

    async def queue(self, name: str) -> QueueInfo:
        self.calls["queue"] += 1
        return await self._administration.info(name)

    def queue_number(self, name: str) -> int:
        return self._memory.number(name)

    def has_queue_number(self, number: int) -> bool:
        return number in self._memory.names

    def ready(self, name: str) -> int:
        return self._memory.ready.get(self._memory.number(name), 1)  # who does not know has to look

    async def totals(self) -> tuple[int, list[int]]:
        self.calls["totals"] += 1
        await self._administration.read_anew()
        infos = await self._administration.infos(self._memory.page("", "", len(self._memory.names)))
        return len(infos), [sum(getattr(info, state.name.lower()) for info in infos) for state in State]

    async def learn(self, queue: str) -> bool:
        self.calls["learn"] += 1
        return await self._administration.number(queue) is not None

    async def refresh(self) -> bool:
        self.calls["refresh"] += 1
        return await self._administration.refresh()

    async def turn(self, work: str, seconds: float) -> bool:
        self.calls["turn"] += 1
        return bool(await self._link.ask("turn", REGISTRY, [work, round(seconds * 1000)]))

    def settle(self, name: str, value: str, *, anew: bool = False) -> str:
        self.calls["settle"] += 1
        return self._administration.settle(name, value, anew=anew)

    def tell(self, topic: str, payload: bytes) -> None:
        self._link.send_quietly("tell", REGISTRY, [topic, payload])

    def hear(self, topic: str, listener: Callable[[bytes], None]) -> None:
        self._news.hear(topic, listener)

    # --- messages in ------------------------------------------------------------------------------

    def send(
        self,
        queue: str,
        contents: Sequence[bytes],
        options: Sequence[Options] | None = None,
        once: Once | None = None,
    ) -> Awaitable[Sent]:
        self.calls["send"] += 1
        try:
            call = sending.call_of(self._memory, queue, contents, options, once)
        except QueueNotFound as error:
            return _failed(error)
        except (TypeError, UnicodeError, ValueError) as error:
            return _failed(StoreUnavailable(f"The store cannot take this: {error}."))
        return self._link.submit(call)

    # --- messages out -----------------------------------------------------------------------------

    def receive(
        self,
        queue: str,
        limit: int = 1,
        lease: int | None = None,
        holder: str = "",
        caller: Caller | None = None,
        claim: str | None = None,
    ) -> Awaitable[list[Message]]:
        self.calls["receive"] += 1
        try:
            call = receiving.call_of(self._memory, queue, limit, lease, holder, caller, claim)
        except QueueNotFound as error:
            return _failed(error)
        if claim is not None and self._unmarked(queue):
            return self._after_marking(queue, call)
        return self._link.submit(call)

    def acknowledge(
        self, queue: str, acknowledgements: Sequence[Acknowledgement]
    ) -> Awaitable[list[Settled]]:
        self.calls["acknowledge"] += 1
        try:
            self._memory.number(queue)
        except QueueNotFound as error:
            return _failed(error)
        if acknowledgements:
            return self._settle(queue, acknowledgements)
        nothing = new_future()  # none of many receipts was ever issued
        nothing.set_result([])
        return nothing

    def _settle(self, queue: str, acks: Sequence[Acknowledgement]) -> Awaitable[list[Settled]]:
        def args(number: int) -> list[Argument]:
            return [
                argument
                for ack in acks
                for argument in (
                    member_of(number, ack.number),
                    ack.delivery,
                    _optional(ack.outcome),
                    _optional(ack.holder),
                    "1" if ack.tell else "",
                )
            ]

        call = self._about(queue, "acknowledge", args, _settled, parts=len(acks))
        if any(ack.number >> PLACE_BITS != call.number for ack in acks):
            return self._settle_letters(call, acks)
        if any(ack.tell for ack in acks) and self._unmarked(queue):
            return self._after_marking(queue, call)
        return self._link.submit(call)

    async def _settle_letters(self, call: Call, acks: Sequence[Acknowledgement]) -> list[Settled]:
        """The same, with a look at where messages are that were sent to another queue."""
        settled: list[Settled] = await self._link.submit(call)
        for place, ack in enumerate(acks):
            if settled[place] is Settled.GONE:
                try:
                    life = await self.find(ack.number)
                except StoreUnavailable as error:
                    raise OutcomeUnknown(
                        "This was done, and what became of some of the messages cannot be read.",
                        retry_after=1,
                    ) from error
                if life is not None and life.ended_at is None:
                    settled[place] = Settled.STALE
        return settled

    def extend(self, queue: str | None, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        self.calls["extend"] += 1
        if queue is None:
            return self._extend_anywhere(extensions)
        try:
            return self._link.submit(self._extension(queue, extensions))
        except QueueNotFound as error:
            return _failed(error)

    def _extension(self, queue: str | None, extensions: Sequence[Extension], number: int = 0) -> Call:
        def args(of: int) -> list[Argument]:
            return [
                argument
                for each in extensions
                for argument in (
                    member_of(of, each.number),
                    "" if each.lease is None else each.lease,
                    each.delivery,
                    _optional(each.holder),
                    "" if each.longest is None else each.longest,
                )
            ]

        if queue is None:
            return Call(new_future(), "extend", number, args(number), _extended, parts=len(extensions))
        return self._about(queue, "extend", args, _extended, parts=len(extensions))

    async def _extend_anywhere(self, extensions: Sequence[Extension]) -> list[int | Settled]:
        """Each in the queue that its number names."""
        by_queue: dict[int, list[int]] = {}
        for place, each in enumerate(extensions):
            by_queue.setdefault(each.number >> PLACE_BITS, []).append(place)
        results: list[int | Settled] = [Settled.GONE] * len(extensions)

        async def extend(number: int, places: Sequence[int]) -> None:
            call = self._extension(None, [extensions[place] for place in places], number)
            try:
                found = await self._link.submit(call)
            except QueueNotFound:
                return
            for place, until in zip(places, found, strict=True):
                results[place] = until

        await asyncio.gather(*(extend(number, places) for number, places in by_queue.items() if number))
        return results

    async def release(
        self,
        queue: str,
        number: int,
        delivery: int = 0,
        delay: int = 0,
        *,
        holder: str | None = None,
        reason: str = "",
        counts: bool = True,
        last: bool = False,
    ) -> None:
        self.calls["release"] += 1

        def args(of: int) -> list[Argument]:
            return [
                member_of(of, number),
                delivery,
                delay,
                _optional(holder),
                reason,
                "1" if counts else "",
                "1" if last else "",
            ]

        call = self._about(queue, "release", args, whole)
        reply = await self._link.submit(call)
        await self._upkeep.carry_on(call.number, reply[5])
        if reply[0]:
            raise ReceiptStale if reply[0] == 1 else ReceiptGone

    async def cancel(
        self,
        queue: str,
        number: int,
        *,
        leased: bool = False,
        how: str = "cancelled",
        outcome: bytes | None = None,
    ) -> None:
        self.calls["cancel"] += 1
        if outcome is not None and self._unmarked(queue):
            await self._mark(queue)

        def args(of: int) -> list[Argument]:
            return [member_of(of, number), "1" if leased else "", how, _optional(outcome)]

        reply = await self._link.submit(self._about(queue, "cancel", args, whole))
        if reply[0] == 1:
            raise MessageLeased("The message is leased. Wait until its lease is over, or acknowledge it.")
        if reply[0]:
            raise MessageGone

    async def purge(self, queue: str) -> int:
        self.calls["purge"] += 1
        reply = await self._link.submit(self._named("purge", queue, [], whole))
        return int(reply[0])

    async def redrive(self, queue: str, limit: int) -> tuple[int, bool]:
        self.calls["redrive"] += 1
        bites: list[int] = []
        try:
            return await self._redrive(queue, limit, bites)
        except OutcomeUnknown:
            raise
        except StoreUnavailable:
            if not any(bites):
                raise
            return sum(bites), False  # so many were moved before

    async def _redrive(self, queue: str, limit: int, bites: list[int]) -> tuple[int, bool]:
        """The same; how many were moved each time is put down in `bites`."""
        moved, elsewhere = 0, False
        number, of = 0, ""
        while moved < limit:  # a bite a call, so that others get their turn
            if elsewhere:
                call = Call(new_future(), "redrive", number, [limit - moved, of], whole)
                reply = await self._link.submit(call)
            else:
                call = self._named("redrive", queue, [limit - moved, ""], whole)
                reply = await self._link.submit(call)
            await self._upkeep.carry_on(call.number, reply[5])
            bites.append(reply[0][0])
            moved += reply[0][0]
            if reply[0][1]:
                letters = (await self._administration.info(queue)).settings.dead_letter
                target = None if elsewhere or letters is None else await self._administration.number(letters)
                if target is None:
                    return moved, True
                elsewhere, number, of = True, target, str(call.number)
        return moved, False

    # --- looking ----------------------------------------------------------------------------------

    async def peek(self, queue: str, limit: int, state: State = State.READY) -> list[Message]:
        self.calls["peek"] += 1
        call = self._named("peek", queue, [int(state), limit], whole)
        found = await self._link.submit(call)
        messages: list[Message] = []
        for member, raw, packed in found:
            past = deliveries_of(packed)
            until = past.due if state is State.LEASED else 0
            messages.append(message_of(call.number, member, raw, past.count, 0, until))
        return messages

    async def find(self, number: int) -> Life | None:
        self.calls["find"] += 1
        home = number >> PLACE_BITS
        return await self._find(home, number) if home else None

    async def _find(self, queue: int, number: int) -> Life | None:
        member = member_of(queue, number)
        while True:
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
                member = member_of(queue, number)
            else:
                return None

    async def held(self, holder: str | None = None) -> list[Held]:
        self.calls["held"] += 1
        found: list[Held] = []
        for number, reply in await self._of_claimed("held", [_optional(holder)]):
            for member, raw, packed in reply:
                past: Deliveries = deliveries_of(packed)
                message = message_of(number, member, raw, past.count, past.token, past.due)
                found.append(Held(message, str(past.holder), str(past.claim), past.tentative, past.since))
        return found

    async def untold(self, limit: int = 100) -> list[End]:
        self.calls["untold"] += 1
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

    async def told(self, number: int, keep: int) -> None:
        self.calls["told"] += 1
        queue = number >> PLACE_BITS
        try:
            await self._link.ask("told", queue, [member_of(queue, number), keep])
        except QueueNotFound:
            return

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
        self.calls["oldest"] += 1
        found = await self._link.submit(self._named("oldest", queue, [], whole))
        return int(found) if found else None

    async def ping(self) -> None:
        self.calls["ping"] += 1
        await self._administration.touch()

    # --- time and life ----------------------------------------------------------------------------

    async def expire(self) -> int | None:
        self.calls["expire"] += 1
        return await self._upkeep.step()

    def listen(self, listener: Callable[[Changes], None]) -> None:
        self._link.answers.listen(listener)

    def attend(self, queue: str) -> None:
        number = self._memory.numbers.get(queue)
        if number is not None:
            self._news.attend(number)

    def durability(self) -> dict[str, Any]:
        return self._watch.durability.shown()

    def close(self) -> None:
        self._watch.stop()
        self._news.close()
        self._link.close()
        log.info("store_closed")

    # --- keys and runners -------------------------------------------------------------------------

    async def add_key(self, key: Key) -> None:
        self.calls["add_key"] += 1
        await self._administration.keep("k", key.id, encode(key))
        self._memory.do(lambda: self._memory.keys.update({key.id: key}))

    async def remove_key(self, key_id: str) -> bool:
        self.calls["remove_key"] += 1
        removed = await self._administration.keep("k", key_id, b"")
        self._memory.do(lambda: self._memory.keys.pop(key_id, None))
        return bool(removed)

    def keys(self) -> list[Key]:
        return list(self._memory.keys.values())

    async def add_runner(self, runner: Runner) -> Runner:
        self.calls["add_runner"] += 1
        number = await self._link.ask("number", REGISTRY, ["next_runner"])
        added = msgspec.structs.replace(runner, number=number)
        await self._administration.keep("ru", str(number), encode(added))
        self._memory.do(lambda: self._memory.runners.update({number: added}))
        return added

    async def seen_runner(self, number: int, at: int) -> None:
        self.calls["seen_runner"] += 1
        known = self._memory.runners.get(number)
        if known is not None:
            seen = self._memory.runners[number] = msgspec.structs.replace(known, seen_at=at)
            await self._administration.keep("ru", str(number), encode(seen), "known")

    async def remove_runner(self, number: int) -> None:
        self.calls["remove_runner"] += 1
        await self._administration.keep("ru", str(number), b"")
        self._memory.do(lambda: self._memory.runners.pop(number, None))

    def runners(self) -> list[Runner]:
        return list(self._memory.runners.values())

    async def runner(self, number: int) -> Runner | None:
        self.calls["runner"] += 1
        packed = await self._link.ask("runner", REGISTRY, [number])
        return decode_runner(packed) if packed else None

    # --- calls ------------------------------------------------------------------------------------

    def _named(
        self, verb: str, queue: str, args: Sequence[Argument], decode: Callable[[Any], Any], **how: Any
    ) -> Call:
        """A call for a queue. Raises QueueNotFound where that is not known here."""
        return Call(new_future(), verb, self._memory.number(queue), args, decode, **how)

    def _about(
        self,
        queue: str,
        verb: str,
        args: Callable[[int], list[Argument]],
        decode: Callable[[Any], Any],
        **how: Any,
    ) -> Call:
        """A call about messages, which are called by where they were sent to."""
        return self._named(verb, queue, args(self._memory.number(queue)), decode, **how)

    def _unmarked(self, queue: str) -> bool:
        return self._memory.numbers.get(queue) not in self._memory.claimed

    async def _mark(self, queue: str) -> None:
        """Note, before there is one, that there are claims in a queue."""
        number = await self._administration.number(queue)
        if number is not None:
            await self._link.ask("mark_claimed", REGISTRY, [number])
            self._memory.claimed.add(number)

    async def _after_marking(self, queue: str, call: Call) -> Any:
        await self._mark(queue)
        return await self._link.submit(call)


def _failed(error: WindlassError) -> asyncio.Future[Any]:
    future = new_future()
    future.set_exception(error)
    return future


def _optional(value: str | bytes | None) -> Argument:
    if value is None:
        return "-"
    return b"+" + value if isinstance(value, bytes) else "+" + value


def _settled(parts: Sequence[int]) -> list[Settled]:
    return [Settled(part) for part in parts]


def _extended(parts: Sequence[Any]) -> list[int | Settled]:
    return [int(part) if isinstance(part, bytes) else Settled(-part) for part in parts]
