"""The store on Redis. Verbs are calls of functions; the link takes them there, together with others."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from windlass.clock import Clock
from windlass.errors import QueueNotFound, StoreUnavailable
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
from windlass.store.redis import receiving, redriving, sending
from windlass.store.redis.address import Address
from windlass.store.redis.administration import Administration
from windlass.store.redis.call import REGISTRY, failed
from windlass.store.redis.clock import ServerClock
from windlass.store.redis.durability import Asked, Reader, check
from windlass.store.redis.link import Link
from windlass.store.redis.memory import decode_runner
from windlass.store.redis.news import News
from windlass.store.redis.reading import Reading
from windlass.store.redis.records import encode
from windlass.store.redis.settling import Settling
from windlass.store.redis.topology import Topology
from windlass.store.redis.upkeep import Upkeep
from windlass.store.redis.watch import Watch
from windlass.store.refusals import purged_lately

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
            self._reading = Reading(self._link, self._administration, self._upkeep)
            self._settling = Settling(self._link, self._administration, self._upkeep, self._reading)
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
        return await self._reading.totals()

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
            return failed(error)
        except (TypeError, UnicodeError, ValueError) as error:
            return failed(StoreUnavailable(f"The store cannot take this: {error}."))
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
        *,
        whole_groups: bool = False,
    ) -> Awaitable[list[Message]]:
        self.calls["receive"] += 1
        try:
            call = receiving.call_of(self._memory, queue, limit, lease, holder, caller, claim, whole_groups)
        except QueueNotFound as error:
            return failed(error)
        if claim is not None and not self._administration.is_marked(queue):
            return self._administration.submit_marked(queue, call)
        return self._link.submit(call)

    def acknowledge(
        self, queue: str, acknowledgements: Sequence[Acknowledgement]
    ) -> Awaitable[list[Settled]]:
        self.calls["acknowledge"] += 1
        try:
            return self._settling.acknowledge(queue, acknowledgements)
        except QueueNotFound as error:
            return failed(error)

    def extend(self, queue: str | None, extensions: Sequence[Extension]) -> Awaitable[list[int | Settled]]:
        self.calls["extend"] += 1
        if queue is None:
            return self._settling.extend_anywhere(extensions)
        try:
            return self._settling.extend(queue, extensions)
        except QueueNotFound as error:
            return failed(error)

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
        await self._settling.release(
            queue, number, delivery, delay, holder=holder, reason=reason, counts=counts, last=last
        )

    async def cancel(
        self, queue: str, number: int, *, leased: bool = False, how: str = "cancelled",
        outcome: bytes | None = None,
    ) -> None:  # fmt: skip
        self.calls["cancel"] += 1
        await self._settling.cancel(queue, number, leased=leased, how=how, outcome=outcome)

    async def purge(self, queue: str, *, apart: float = 0) -> int:
        self.calls["purge"] += 1
        reply = await self._link.ask("purge", self._memory.number(queue), [round(apart * 1000)])
        if reply[0] < 0:
            raise purged_lately(queue)
        return int(reply[0])

    async def redrive(self, queue: str, limit: int) -> tuple[int, bool]:
        self.calls["redrive"] += 1
        return await redriving.redrive(self._link, self._administration, self._upkeep, queue, limit)

    # --- looking ----------------------------------------------------------------------------------

    async def peek(self, queue: str, limit: int, state: State = State.READY) -> list[Message]:
        self.calls["peek"] += 1
        return await self._reading.peek(queue, limit, state)

    async def find(self, number: int) -> Life | None:
        self.calls["find"] += 1
        return await self._reading.find(number)

    async def held(self, holder: str | None = None) -> list[Held]:
        self.calls["held"] += 1
        return await self._reading.held(holder)

    async def untold(self, limit: int = 100) -> list[End]:
        self.calls["untold"] += 1
        return await self._reading.untold(limit)

    async def told(self, number: int, keep: int) -> None:
        self.calls["told"] += 1
        await self._settling.told(number, keep)

    async def oldest(self, queue: str) -> int | None:
        self.calls["oldest"] += 1
        return await self._reading.oldest(queue)

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
