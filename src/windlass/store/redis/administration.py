"""Queues come, change and go; keys and runners are kept: in the registry, which all servers share."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import redis
import structlog

from windlass.errors import (
    Conflict,
    OutcomeUnknown,
    QueueNotFound,
    StartError,
    StoreUnavailable,
)
from windlass.message import QueueInfo, QueueSettings
from windlass.store.redis.address import Address
from windlass.store.redis.call import REGISTRY, Argument, Call
from windlass.store.redis.faults import unavailable
from windlass.store.redis.link import Link
from windlass.store.redis.memory import Mark
from windlass.store.redis.records import decode_settings, fields_of, info_of, pairs_of
from windlass.store.refusals import compare, in_use, no_letter, not_found, own_letter

log = structlog.get_logger("windlass.store")

Ask = Callable[[str, int, Sequence[Argument]], Awaitable[Any]]
"""(verb, number of a queue, arguments): what its function answers."""

COPYING = "copying"
"""Field of the registry while what is there is the beginning of a copy."""
AWAY = 5_000
"""How long no server may be there, ms, before that is why nobody extended a lease."""
_LOST = (
    "Redis does not hold this installation any more: it was emptied, it started without its file, or this is"
    " another Redis. Bring what it held back, and this goes on by itself; or start all servers again, to"
    " begin with what is there."
)
_TRIES = 20
"""How often a change is begun anew because somebody else changed the same queue."""


class _Turns:
    """Those who change one queue, one after the other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Administration:
    """What is not about messages."""

    def __init__(self, link: Link, ask: Ask) -> None:
        self._link = link
        self._memory = link.memory
        self._ask = ask
        self._seen = -1
        """The registry's version when `refresh` was called last."""
        self._turns: dict[tuple[asyncio.AbstractEventLoop, str], _Turns] = {}
        self._secret = b""

    def open(self) -> bytes:
        """Read the registry; the installation's secret, made where there is none. Blocks."""
        self._refuse_unfinished()
        self._secret = self._link.ask_now("found", REGISTRY, secrets.token_bytes(32))
        self._read(self._memory.mark(), self._link.ask_now("all", REGISTRY))
        if self._link.ask_now("beat", REGISTRY) > AWAY:
            for number in self._memory.claimed:
                with contextlib.suppress(QueueNotFound):
                    self._link.ask_now("resume", number)
        return self._secret

    def _refuse_unfinished(self) -> None:
        (key, *_) = self._link.key_of(REGISTRY)
        try:
            copying = self._link.topology.node(key.encode()).client.hexists(key, COPYING)
        except redis.RedisError as error:
            raise unavailable(error) from error
        if copying:
            raise unfinished(self._link.topology.address)

    def _read(self, since: Mark, reply: Sequence[Any]) -> None:
        version, names, keys, runners, claimed, _ = reply
        self._memory.read(since, int(version), pairs_of(names), pairs_of(keys), pairs_of(runners))
        self._memory.claimed |= {int(number) for number in claimed}

    async def refresh(self) -> bool:
        """Read what others have changed; True where anything is different from what the last call left.

        The watch may have read it already, and told of it to those who have not heard yet.
        """
        await self.read_anew()
        seen, self._seen = self._seen, self._memory.version
        return seen != self._seen

    async def read_anew(self) -> None:
        """Have in memory what others have changed. Nobody is told of it: that is left to `refresh`."""
        if self._differs(await self._ask("version", REGISTRY, [])):
            self._read(self._memory.mark(), await self._ask("all", REGISTRY, []))

    def refresh_now(self) -> bool:
        """The same, without an event loop; True where there was something. Blocks."""
        if not self._differs(self._link.ask_now("version", REGISTRY)):
            return False
        self._read(self._memory.mark(), self._link.ask_now("all", REGISTRY))
        return True

    def _differs(self, reply: Sequence[bytes]) -> bool:
        """Whether the registry has another version than memory. Raises StoreUnavailable where it is not ours:
        numbers of queues are given out anew there, so that one we know may be another's."""
        version, secret = reply
        if secret != self._secret:
            if self._link.lost is None:
                log.error("store_lost", message=_LOST)
            self._link.lost = _LOST
            raise StoreUnavailable(_LOST, retry_after=5)
        self._link.lost = None
        return int(version) != self._memory.version

    # --- queues -----------------------------------------------------------------------------------

    async def info(self, name: str) -> QueueInfo:
        """Raises QueueNotFound."""
        for _ in range(2):
            number = await self.number(name)
            if number is None:
                break
            try:
                return info_of(name, await self._ask("stats", number, []))
            except QueueNotFound:  # deleted since, by somebody else, and made anew perhaps
                self._memory.remove(name)
        raise not_found(name)

    async def infos(self, names: Sequence[str]) -> list[QueueInfo]:
        """Several queues; one that is deleted at this moment is passed over."""
        found: list[QueueInfo] = []
        for info in await asyncio.gather(*map(self.info, names), return_exceptions=True):
            if isinstance(info, QueueInfo):
                found.append(info)
            elif not isinstance(info, QueueNotFound):
                raise info
        return found

    async def _changed(self, name: str) -> QueueInfo:
        """A queue behind a change. Raises QueueNotFound, OutcomeUnknown: the change is made all the same."""
        try:
            return await self.info(name)
        except StoreUnavailable as error:
            raise OutcomeUnknown(
                "The queue is as was asked, and cannot be read now: look at it, or repeat this.",
                retry_after=1,
            ) from error

    async def number(self, name: str) -> int | None:
        """A queue's number, looked up where it is not known here; None: there is no such queue."""
        number = self._memory.numbers.get(name)
        if number is None:
            found = await self._ask("lookup", REGISTRY, [name])
            if not found:
                return None
            number = int(found)
            self._memory.put(name, number)
        return number

    @contextlib.asynccontextmanager
    async def _in_turn(self, *names: str | None) -> AsyncIterator[None]:
        """One change of these queues after the other, in the order in which they were asked for here."""
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            for name in sorted({name for name in names if name is not None}):
                turns = self._turns.setdefault((loop, name), _Turns())
                turns.wanted += 1
                stack.callback(self._leave, (loop, name), turns)
                await stack.enter_async_context(turns.lock)
            yield

    def _leave(self, key: tuple[asyncio.AbstractEventLoop, str], turns: _Turns) -> None:
        turns.wanted -= 1
        if not turns.wanted:
            del self._turns[key]

    async def create(self, name: str, named: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        async with self._in_turn(name, named.get("dead_letter")):
            return await self._create(name, named)

    async def _create(self, name: str, named: Mapping[str, Any]) -> tuple[QueueInfo, bool]:
        for _ in range(_TRIES):
            try:
                known = await self.info(name)
            except QueueNotFound:
                known = None
            if known is not None:
                compare(name, known.settings, named)
                return known, False
            letters = named.get("dead_letter")
            target = await self._dead_letter(name, letters)
            settings = msgspec.structs.replace(QueueSettings(), **named)
            number = await self._ask("make", REGISTRY, [self._secret])
            if not number:
                await self.read_anew()  # says why
                continue
            fields: dict[str, Any] = {"number": number, "name": name, "paused": "0", **fields_of(settings)}
            fields["dl"] = target
            if (await self._ask("configure", number, ["", *_flat(fields)]))[0]:
                # The registry was set back and forgot it. Its messages are for whoever knows whose they are.
                log.warning("queue_left_over", number=number, keys=self._link.key_of(number)[0])
                await self._ask("buried", REGISTRY, [number])
                continue
            registered, deleted = await self._ask("register", REGISTRY, [name, number, letters or ""])
            for each in deleted:  # one of this name may be there still, and be sent to by who was not told
                await self.bury(int(each))
            if registered in (b"noletter", b"late"):
                await self.bury(number)
                if registered == b"noletter":
                    raise no_letter(letters)
                continue  # this server stood still for so long that others began to delete it
            if int(registered) != number:  # somebody else was faster
                await self.bury(number)
                self._memory.put(name, int(registered))
                await self._restore(int(registered), fields)
                continue
            self._memory.put(name, number)
            return await self._changed(name), True
        raise StoreUnavailable("The queue is made and deleted by others all the time.", retry_after=1)

    async def _restore(self, number: int, fields: Mapping[str, Any]) -> None:
        """Make a queue anew under its number, where a failover of its master took it and left its name."""
        try:
            await self._ask("stats", number, [])
        except QueueNotFound:
            await self._ask("configure", number, ["", *_flat({**fields, "number": number})])

    async def _dead_letter(self, name: str, letters: str | None) -> int | str:
        """The number of a dead-letter queue. Raises Invalid."""
        if letters is None:
            return ""
        if letters == name:
            raise own_letter()
        number = await self.number(letters)
        if number is not None:
            try:
                await self._ask("stats", number, [])
            except QueueNotFound:
                self._memory.remove(letters)
                number = await self.number(letters)
        if number is None:
            raise no_letter(letters)
        return number

    async def update(
        self, name: str, changes: Mapping[str, Any], paused: bool | None, was: QueueSettings | None
    ) -> QueueInfo:
        async with self._in_turn(name, changes.get("dead_letter")):
            return await self._update(name, changes, paused, was)

    async def _update(
        self, name: str, changes: Mapping[str, Any], paused: bool | None, was: QueueSettings | None
    ) -> QueueInfo:
        readdressed = False
        for _ in range(_TRIES):
            await self.info(name)
            number = self._memory.number(name)
            letters = changes.get("dead_letter")
            await self._dead_letter(name, letters)
            (json, *_) = await self._ask("stats", number, [])
            found = decode_settings(json)
            if was is not None and found != was:
                if readdressed:  # by the try before, which came too late
                    await self._ask("readdress", REGISTRY, [name, found.dead_letter or ""])
                raise Conflict(f"Queue {name!r} has been changed since it was looked at.")
            settings = msgspec.structs.replace(found, **changes)
            fields: dict[str, Any] = fields_of(settings)
            if "dead_letter" in changes:
                answer = await self._ask("readdress", REGISTRY, [name, letters or ""])
                if answer == b"noletter":
                    raise no_letter(letters)
                if answer == b"none":
                    raise not_found(name)
                fields["dl"] = answer  # its number at this moment
                readdressed = True
            if paused is not None:
                fields["paused"] = "1" if paused else "0"
            reply = await self._ask("configure", number, [json, *_flat(fields)])
            if reply[0] == 0:
                return await self._changed(name)
        raise StoreUnavailable("The queue is changed by others all the time.", retry_after=1)

    async def delete(self, name: str) -> None:
        async with self._in_turn(name):
            await self._delete(name)

    async def _delete(self, name: str) -> None:
        reply = await self._ask("unregister", REGISTRY, [name])
        if reply[0] == b"none":
            self._memory.remove(name)
            raise not_found(name)
        if reply[0] == b"used":
            raise in_use(name, by=reply[1].decode())
        self._memory.remove(name)
        with contextlib.suppress(StoreUnavailable):  # nobody finds it any more; the sweep goes on with it
            await self.bury(int(reply[0]))

    async def bury(self, number: int) -> None:
        """Take away what is left of a queue that nobody finds any more."""
        await self._ask("destroy", number, [])
        await self._ask("buried", REGISTRY, [number])

    async def gone(self) -> list[int]:
        """Queues that somebody began to delete."""
        return [int(number) for number in (await self._ask("all", REGISTRY, []))[5]]

    # --- claims -----------------------------------------------------------------------------------

    def is_marked(self, queue: str) -> bool:
        """Whether it is noted that there may be claims in a queue. From memory."""
        return self._memory.numbers.get(queue) in self._memory.claimed

    async def mark(self, queue: str) -> None:
        """Note, before there is one, that there are claims in a queue."""
        number = None if self.is_marked(queue) else await self.number(queue)
        if number is not None:
            await self._ask("mark_claimed", REGISTRY, [number])
            self._memory.claimed.add(number)

    async def submit_marked(self, queue: str, call: Call) -> Any:
        """Send a call that brings a claim, behind that note."""
        await self.mark(queue)
        return await self._link.submit(call)

    # --- the rest ---------------------------------------------------------------------------------

    async def keep(self, kind: str, name: str, value: bytes, how: Literal["", "known"] = "") -> int:
        """`known`: only where there is one, and nobody is told."""
        kept: int = await self._ask("keep", REGISTRY, [kind, name, value, how])
        return kept

    def settle(self, name: str, value: str, *, anew: bool) -> str:
        """What is kept under a name: what was there, or (`anew`) the value. Blocks."""
        settled: bytes = self._link.ask_now("settle", REGISTRY, name, value, "anew" if anew else "")
        return settled.decode()

    async def touch(self) -> None:
        """Write something. Raises StoreUnavailable, also while the servers give less than was asked."""
        if self._link.refusal is not None:
            raise StoreUnavailable(self._link.refusal, retry_after=5)
        await self._ask("keep", REGISTRY, ["s", "touched", str(self._link.clock.now()), "quietly"])


def unfinished(address: Address) -> StartError:
    """What is said of a store in which a copy was begun and not finished."""
    pattern = f"{address.prefix}:{{*"
    return StartError(
        f"The store {address} holds the beginning of a copy (`windlass store copy`) that was not finished:"
        " nothing can be served from it. Take it away"
        f" (redis-cli --scan --pattern '{pattern}' | xargs -d '\\n' redis-cli unlink, on each master of a"
        " Cluster), and copy again: what it was copied from is as it was."
    )


def _flat(fields: Mapping[str, Any]) -> list[Argument]:
    return [argument for pair in fields.items() for argument in pair]
