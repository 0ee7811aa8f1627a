"""The store on Redis. Verbs are calls of functions; the link takes them there, together with others."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog

from windlass.clock import Clock
from windlass.errors import (
    IdempotencyFull,
    IdempotencyKeyReused,
    MessageGone,
    MessageLeased,
    OutcomeUnknown,
    QueueFull,
    QueueNotFound,
    ReceiptGone,
    ReceiptStale,
    StoreUnavailable,
    TooLarge,
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
    QueueSettings,
    Sent,
    Settled,
    State,
)
from windlass.store.base import Caller, Changes, Key, Runner, Store
from windlass.store.redis import library
from windlass.store.redis.address import Address
from windlass.store.redis.administration import Administration
from windlass.store.redis.call import REGISTRY, Argument, Call, new_future
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

_ROOM = 8 * 1024
"""Bytes that a message of a receive is taken to have when requests are put together."""


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
            self._administration = Administration(self._link, self._call)
            self._upkeep = Upkeep(self._link, self._call)
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
        self,
        name: str,
        settings: Mapping[str, Any],
        paused: bool | None = None,
        *,
        was: QueueSettings | None = None,
    ) -> QueueInfo:
        self.calls["update_queue"] += 1
        return await self._administration.update(name, settings, paused, was)

    async def delete_queue(self, name: str) -> None:
        self.calls["delete_queue"] += 1
        await self._administration.delete(name)

    async def queues(self, prefix: str = "", after: str = "", limit: int = 100) -> list[QueueInfo]:
        self.calls["queues"] += 1
        await self._administration.read_anew()
        found: list[QueueInfo] = []
        while len(found) < limit:
            names = self._memory.page(prefix, after, limit - len(found))
            infos = await asyncio.gather(*map(self._administration.info, names), return_exceptions=True)
            for info in infos:
                if isinstance(info, QueueInfo):
                    found.append(info)
                elif not isinstance(info, QueueNotFound):  # that one was deleted at this moment
                    raise info
            if not names:
                break
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
        names = self._memory.page("", "", len(self._memory.names))
        totals = [0] * len(State)
        count = 0
        infos = await asyncio.gather(*map(self._administration.info, names), return_exceptions=True)
        for info in infos:
            if isinstance(info, QueueInfo):
                count += 1
                for state in State:
                    totals[state] += getattr(info, state.name.lower())
            elif not isinstance(info, QueueNotFound):
                raise info
        return count, totals

    async def learn(self, queue: str) -> bool:
        self.calls["learn"] += 1
        return await self._known(queue)

    async def _known(self, queue: str) -> bool:
        if queue not in self._memory.numbers:
            number = await self._call("lookup", REGISTRY, [queue])
            if not number:
                return False
            self._memory.put(queue, int(number))
        return True

    async def refresh(self) -> bool:
        self.calls["refresh"] += 1
        return await self._administration.refresh()

    async def turn(self, work: str, seconds: float) -> bool:
        self.calls["turn"] += 1
        return bool(await self._call("turn", REGISTRY, [work, round(seconds * 1000)]))

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
            call = self._send(queue, contents, options, once)
        except QueueNotFound as error:
            return _failed(error)
        except (TypeError, UnicodeError, ValueError) as error:
            return _failed(StoreUnavailable(f"The store cannot take this: {error}."))
        return self._on_its_way(call)

    def _send(
        self, queue: str, contents: Sequence[bytes], options: Sequence[Options] | None, once: Once | None
    ) -> Call:
        size = sum(map(len, contents))
        if options is None and once is None:
            call = self._named("send", queue, contents, _whole, parts=1, label=len(contents), size=size)
            call.decode = partial(_sent, call, len(contents))
        else:
            args: list[Argument] = [once.key, once.fingerprint] if once is not None else ["", ""]
            for content, each in zip(contents, options or [Options()] * len(contents), strict=True):
                args += [content, _packed(each)]
            call = self._named("send_with", queue, args, _whole)
            call.decode = partial(_sent_with, call)
        return call

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
        args: list[Argument] = [limit, "" if lease is None else lease, holder, claim or ""]
        future = new_future()

        def abandoned() -> bool:
            return future.cancelled() or (caller is not None and caller.disconnected)

        try:
            call = self._named(
                "receive", queue, args, _whole, parts=1, size=limit * _ROOM, abandoned=abandoned
            )
        except QueueNotFound as error:
            return _failed(error)
        call.future = future
        call.decode = partial(_received, call)
        if claim is not None and self._unmarked(queue):
            return self._after_marking(queue, call)
        return self._on_its_way(call)

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
        return self._on_its_way(call)

    async def _settle_letters(self, call: Call, acks: Sequence[Acknowledgement]) -> list[Settled]:
        """The same, with a look at where messages are that were sent to another queue."""
        settled: list[Settled] = await self._on_its_way(call)
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
            return self._on_its_way(self._extension(queue, extensions))
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
                found = await self._on_its_way(call)
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

        call = self._about(queue, "release", args, _whole)
        reply = await self._on_its_way(call)
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

        reply = await self._on_its_way(self._about(queue, "cancel", args, _whole))
        if reply[0] == 1:
            raise MessageLeased("The message is leased. Wait until its lease is over, or acknowledge it.")
        if reply[0]:
            raise MessageGone

    async def purge(self, queue: str) -> int:
        self.calls["purge"] += 1
        reply = await self._on_its_way(self._named("purge", queue, [], _whole))
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
                call = Call(new_future(), "redrive", number, [limit - moved, of], _whole)
                reply = await self._on_its_way(call)
            else:
                call = self._named("redrive", queue, [limit - moved, ""], _whole)
                reply = await self._on_its_way(call)
            await self._upkeep.carry_on(call.number, reply[5])
            bites.append(reply[0][0])
            moved += reply[0][0]
            if reply[0][1]:
                letters = (await self._administration.info(queue)).settings.dead_letter
                if elsewhere or letters is None or not await self._known(letters):
                    return moved, True
                elsewhere, number, of = True, self._memory.number(letters), str(call.number)
        return moved, False

    # --- looking ----------------------------------------------------------------------------------

    async def peek(self, queue: str, limit: int, state: State = State.READY) -> list[Message]:
        self.calls["peek"] += 1
        call = self._named("peek", queue, [int(state), limit], _whole)
        found = await self._on_its_way(call)
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
                reply = await self._call("find", queue, [member])
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
            await self._call("told", queue, [member_of(queue, number), keep])
        except QueueNotFound:
            return

    async def _of_claimed(self, verb: str, args: Sequence[Argument]) -> list[tuple[int, Any]]:
        """What the queues answer in which there may be claims."""
        numbers = sorted({int(number) for number in await self._call("claimed", REGISTRY, [])})

        async def ask(number: int) -> Any:
            try:
                return await self._call(verb, number, args)
            except QueueNotFound:
                return []

        return list(zip(numbers, await asyncio.gather(*map(ask, numbers)), strict=True))

    async def oldest(self, queue: str) -> int | None:
        self.calls["oldest"] += 1
        found = await self._on_its_way(self._named("oldest", queue, [], _whole))
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
        number = await self._call("number", REGISTRY, ["next_runner"])
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
        packed = await self._call("runner", REGISTRY, [number])
        return decode_runner(packed) if packed else None

    # --- calls ------------------------------------------------------------------------------------

    def _named(
        self, verb: str, queue: str, args: Sequence[Argument], decode: Callable[[Any], Any], **how: Any
    ) -> Call:
        """A call for a queue. Raises QueueNotFound where that is not known here."""
        return Call(new_future(), verb, self._memory.number(queue), args, decode, name=queue, **how)

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

    def _on_its_way(self, call: Call) -> asyncio.Future[Any]:
        try:
            self._link.submit(call)
        except WindlassError as error:
            call.future.set_exception(error)
        return call.future

    async def _call(self, verb: str, number: int, args: Sequence[Argument]) -> Any:
        return await self._on_its_way(Call(new_future(), verb, number, args, _whole))

    def _unmarked(self, queue: str) -> bool:
        return self._memory.numbers.get(queue) not in self._memory.claimed

    async def _mark(self, queue: str) -> None:
        """Note, before there is one, that there are claims in a queue."""
        if await self._known(queue):
            number = self._memory.number(queue)
            await self._call("mark_claimed", REGISTRY, [number])
            self._memory.claimed.add(number)

    async def _after_marking(self, queue: str, call: Call) -> Any:
        await self._mark(queue)
        return await self._on_its_way(call)


def _whole(reply: Any) -> Any:
    return reply


def _failed(error: WindlassError) -> asyncio.Future[Any]:
    future = new_future()
    future.set_exception(error)
    return future


def _optional(value: str | bytes | None) -> Argument:
    if value is None:
        return "-"
    return b"+" + value if isinstance(value, bytes) else "+" + value


def _packed(options: Options) -> bytes:
    return encode(
        (
            options.delay,
            False if options.ttl is None else options.ttl,
            options.priority,
            False if options.group is None else options.group,
            False if options.dedup_id is None else options.dedup_id,
            False if options.headers is None else options.headers.decode(),
        )
    )


def _sent(call: Call, amount: int, parts: Sequence[Any]) -> Sent | None:
    (first,) = parts
    if isinstance(first, list):
        call.error = _refusal(call.name or "", first)
        return None
    start = call.number << PLACE_BITS | int(first)
    return Sent(call.number, range(start, start + amount))


def _sent_with(call: Call, reply: Any) -> Sent | None:
    answer = reply[0]
    if answer[0] != b"sent":
        call.error = _refusal(call.name or "", answer)
        return None
    numbers = [call.number << PLACE_BITS | int(place) for place in answer[1]]
    duplicates = [bool(known) for known in answer[2]]
    return Sent(call.number, numbers, duplicates if any(duplicates) else None)


def _refusal(queue: str, answer: Sequence[Any]) -> WindlassError:
    """Why a send was not taken."""
    if answer[0] == b"full":
        return QueueFull(
            f"Queue {queue!r} holds {answer[1]:,} messages, and there is no room for these (max_length)."
            " Try again when some have left.",
            retry_after=1,
        )
    if answer[0] == b"large":
        return TooLarge(
            f"The content has {answer[1]:,} bytes; queue {queue!r} takes fewer (max_message_bytes).",
            field="content",
        )
    if answer[0] == b"reused":
        return IdempotencyKeyReused(field="Idempotency-Key")
    return IdempotencyFull(
        f"{library.MAX_ANSWERS:,} Idempotency-Keys of this queue are remembered, the most there may be;"
        " each is kept 24 h.",
        retry_after=60,
    )


def _received(call: Call, answer: Any) -> list[Message]:
    (taken,) = answer
    queue = call.number
    return [
        message_of(queue, member, raw, deliveries, delivery, int(until))
        for member, raw, delivery, deliveries, until in taken
    ]


def _settled(parts: Sequence[int]) -> list[Settled]:
    return [Settled(part) for part in parts]


def _extended(parts: Sequence[Any]) -> list[int | Settled]:
    return [int(part) if isinstance(part, bytes) else Settled(-part) for part in parts]
