"""What time brings, by whichever server is there: leases, delays and ttls run out, moves are finished.

The registry knows when something is due in which queue. A server takes some of what is due for itself, for a
few seconds: if it dies, another takes the same. What the registry was not told of, because a server died in
between, is found by whoever looks through all queues once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from windlass.errors import QueueNotFound, StoreUnavailable
from windlass.store.redis.administration import AWAY, Ask
from windlass.store.redis.call import REGISTRY
from windlass.store.redis.clock import ServerClock
from windlass.store.redis.link import Link
from windlass.store.redis.records import decode, target_of

log = structlog.get_logger("windlass.store")

_AT_ONCE = 64
"""Queues that are looked after at the same time."""
_MINE = 5_000
"""How long what a server took is its own, ms."""
_SWEEP_EVERY = 60_000
_POINTERS = 256
"""Pointers of a queue that are looked into at a time."""
_TOO_LATE = 2
"""What `arrive` answers where others may have finished that move since."""
_LOOK_EVERY = 1_000
"""How often the registry is looked at for what other servers noted, ms."""


class Upkeep:
    """One server's part of it."""

    def __init__(self, link: Link, ask: Ask) -> None:
        self._link = link
        self._ask = ask
        self._alone = not isinstance(link.clock, ServerClock)
        """A test's clock: nobody else notes anything, and time stands still."""

    async def step(self) -> int | None:
        """Do some of what is due; when to come again, ms, None: nothing is due."""
        if not self._alone and await self._ask("beat", REGISTRY, []) > AWAY:
            await asyncio.gather(*map(self._resume, list(self._link.memory.claimed)))
        if await self._ask("claim_sweep", REGISTRY, [_SWEEP_EVERY]):
            await self.sweep()
        if late := self._link.late_notes():
            await self._ask("note_due", REGISTRY, late)
        found, noted, following, now = await self._ask("claim_due", REGISTRY, [_AT_ONCE, _MINE])
        if found:
            dues = await asyncio.gather(*(self._expire(int(number)) for number in found))
            args: list[Any] = []
            for number, version, due in zip(found, noted, dues, strict=True):
                args += [number, version, due]
            following = await self._ask("set_due", REGISTRY, args)
        moment = int(float(following)) if following else None
        if not self._alone:
            latest = int(now) + _LOOK_EVERY
            moment = latest if moment is None else min(moment, latest)
        return moment

    async def _resume(self, number: int) -> None:
        with contextlib.suppress(QueueNotFound):
            await self._ask("resume", number, [])

    async def _expire(self, number: int) -> bytes:
        """A bite of what is due in a queue; when the next is."""
        try:
            reply = await self._ask("expire", number, [])
            if reply[5]:
                await self.move(number, reply[5])
                reply = await self._ask("expire", number, [])
        except QueueNotFound:
            return b""
        due: bytes = reply[8] if reply[0] else reply[4]
        return due

    # --- moves ------------------------------------------------------------------------------------

    async def move(self, source: int, moves: Sequence[Sequence[bytes]]) -> None:
        """Have messages arrive that left queue `source`."""
        if moves:
            await asyncio.gather(*(self._move(source, *each) for each in moves))

    async def carry_on(self, source: int, moves: Sequence[Sequence[bytes]]) -> None:
        """The same behind a call that is done, whatever comes of this: others finish what fails."""
        try:
            await self.move(source, moves)
        except StoreUnavailable as error:
            log.warning("move_unfinished", queue=source, error=error.detail)

    async def move_on(self, source: int) -> None:
        """Finish the moves of a queue that somebody began."""
        try:
            await self.move(source, (await self._ask("expire", source, []))[5])
        except QueueNotFound:
            return

    async def _move(self, source: int, member: bytes, packed: bytes, looked_at: bytes) -> None:
        (size,) = struct.unpack_from(">I", packed)
        token, target, _, home, place, *_ = decode(packed[4 : 4 + size])
        name = place if home == target else f"{home}:{place}"
        try:
            reply = await self._ask("arrive", target, [packed, name, looked_at])
        except QueueNotFound:
            await self._ask("comeback", source, [member, token])
            return
        if reply[0] == _TOO_LATE:
            return
        if home not in (source, target):
            await self._point(home, place, target)
        await self._ask("depart", source, [member, token])
        try:
            await self._ask("forget", target, [token])
        except QueueNotFound:
            return

    async def _point(self, home: int, place: str, target: int) -> None:
        try:
            await self._ask("point", home, [place, target])
        except QueueNotFound:
            return

    # --- the sweep --------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Look through all queues for what nobody was told of."""
        await self._ask("unmade", REGISTRY, [_SWEEP_EVERY])
        reply = await self._ask("all", REGISTRY, [])
        for number in reply[5]:
            await self._ask("destroy", int(number), [])
            await self._ask("buried", REGISTRY, [number])
        numbers = [int(number) for number in reply[1][1::2]]
        for at in range(0, len(numbers), _AT_ONCE):
            some = numbers[at : at + _AT_ONCE]
            dues = await asyncio.gather(*map(self._expire, some))
            notes = [argument for pair in zip(some, dues, strict=True) if pair[1] for argument in pair]
            if notes:
                await self._ask("note_due", REGISTRY, notes)
            await asyncio.gather(*map(self._forget_departed, some))
            await asyncio.gather(*map(self._forget_pointers, some))

    async def _forget_departed(self, number: int) -> None:
        """Forget what arrived here and has departed there: whoever moved it died in between."""
        try:
            limit = self._link.clock.now() - _SWEEP_EVERY
            tokens = await self._ask("stale_arrivals", number, [limit])
        except QueueNotFound:
            return
        for token in tokens:
            source, _, rest = token.partition(b":")
            member = rest.rpartition(b":")[0]
            try:
                left = await self._ask("has_left", int(source), [member, token])
            except QueueNotFound:
                left = 0
            if not left:
                await self._ask("forget", number, [token])

    async def _forget_pointers(self, number: int) -> None:
        """Take away some pointers of a queue that lead nowhere, and more while those are the most."""
        while True:
            try:
                found = await self._ask("pointers", number, [_POINTERS])
                places: dict[bytes, bytes] = dict(zip(found[::2], found[1::2], strict=True))
                lost = await self._lost(number, places)
                if lost:
                    pairs = ((place, places[place]) for place in lost)
                    await self._ask("unpoint", number, [part for pair in pairs for part in pair])
            except QueueNotFound:
                return
            if 2 * len(lost) <= len(places):
                return

    async def _lost(self, home: int, places: Mapping[bytes, bytes]) -> list[bytes]:
        """Those places of a queue whose pointers lead nowhere."""
        by_target: dict[int, list[bytes]] = {}
        for place, pointer in places.items():
            by_target.setdefault(target_of(pointer), []).append(place)
        lost: list[bytes] = []
        for target, led in by_target.items():
            try:
                members = await self._ask("nowhere", target, [b"%d:%b" % (home, place) for place in led])
                lost += [member.partition(b":")[2] for member in members]
            except QueueNotFound:
                lost += led
        return lost
