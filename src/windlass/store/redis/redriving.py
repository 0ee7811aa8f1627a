"""redrive: what is dead in a queue comes back, and behind that what its dead-letter queue holds of it."""

from __future__ import annotations

from windlass.errors import OutcomeUnknown, StoreUnavailable
from windlass.store.redis.administration import Administration
from windlass.store.redis.link import Link
from windlass.store.redis.upkeep import Upkeep


async def redrive(
    link: Link, administration: Administration, upkeep: Upkeep, queue: str, limit: int
) -> tuple[int, bool]:
    """As the store has it."""
    moved = place = 0
    of = ""  # or else the queue's own number, as its dead-letter queue knows it by
    try:
        while moved < limit:  # a bite a call, so that others get their turn
            if not of:
                place = link.memory.number(queue)
            reply = await link.ask("redrive", place, [limit - moved, of])
            await upkeep.carry_on(place, reply[5])
            bite, finished = reply[0]
            moved += bite
            if finished:
                if of:
                    return moved, True
                letters = (await administration.info(queue)).settings.dead_letter
                target = None if letters is None else await administration.number(letters)
                if target is None:
                    return moved, True
                place, of = target, str(place)
    except OutcomeUnknown:
        raise
    except StoreUnavailable:
        if not moved:
            raise
    return moved, False  # or Redis is away: so many were moved before
