"""Which problems there are: a guard in front of their table, so that a guess at a number reaches no database.

It remembers whether there is a problem, and nothing of what it is: that comes from the database each time.
Where other servers write the same database, it remembers nothing: each look-up is a query, which those share
who wait.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Select, select

from windlass.database import Database
from windlass.errors import ProblemNotFound
from windlass.guard.bloom import BloomFilter
from windlass.guard.guard import Alone, Guard, Limits
from windlass.judge.tables import problems, versions

R = TypeVar("R")

EXPECTED = 100_000
"""Problems that the filter is made for; beyond them it grows."""
RATE = 0.001
_LIMITS = Limits(cache_bytes=4 << 20, negative_bytes=4 << 20)
_PAGE = 10_000


class Presence:
    """Knows of every problem that there ever was: of a deleted one, submissions are kept."""

    def __init__(self, database: Database, *, shared: bool) -> None:
        """Read all numbers, unless it is `shared` with other servers. Blocks; raises StoreUnavailable."""
        self._database = database
        # Read anew at each start and kept nowhere: a secret of this process is enough.
        known = BloomFilter(os.urandom(32), expected_items=EXPECTED, false_positive_rate=RATE)
        if not shared:
            known.update(map(str, _ever(database)))
        peers = _Unheard() if shared else Alone()
        self._guard: Guard[bool] = Guard(known, self._look, limits=_LIMITS, peers=peers)

    async def expect(self, problem_id: int) -> None:
        """Raise ProblemNotFound where there is no such problem."""
        if not await self.has(problem_id):
            raise ProblemNotFound

    async def has(self, problem_id: int) -> bool:
        return (await self._guard.get(str(problem_id))).value is not None

    def never(self, problem_id: int) -> bool:
        """True where there never was such a problem, as far as memory knows: so there is nothing of it."""
        answer = self._guard.remembered(str(problem_id))
        return answer is not None and answer.source == "bloom_filter"

    async def write(self, problem_id: int, operation: Callable[[], Awaitable[R]], *, adding: bool) -> R:
        """Run what makes, changes or deletes a problem, to its end; `adding`: it may be there afterwards."""
        return await self._guard.write([str(problem_id)], operation, adding=adding)

    async def _look(self, key: str) -> bool | None:
        wanted = select(problems.c.id).where(problems.c.id == int(key))
        found = await self._database.read(lambda connection: connection.execute(wanted).first())
        return True if found is not None else None


class _Unheard(Alone):
    """Others that tell of nothing."""

    def current(self) -> bool:
        return False


def _ever(database: Database) -> Iterator[int]:
    """The numbers of all problems that there ever were, page by page."""
    wanted = select(versions.c.problem_id).distinct().order_by(versions.c.problem_id).limit(_PAGE)
    found = database.look(partial(_all, wanted))
    while found:
        yield from found
        found = database.look(partial(_all, wanted.where(versions.c.problem_id > found[-1])))


def _all(wanted: Select[int], connection: Connection) -> Sequence[int]:
    return connection.execute(wanted).scalars().all()
