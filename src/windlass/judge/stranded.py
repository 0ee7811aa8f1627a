"""Submissions that wait for a job that is over, or that there is not: found, and judged again.

Where a record was damaged before it was noted whose job it is, the end of that job names nobody, and is
confirmed all the same. Whoever waits for it would wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, select

from windlass.database import Database
from windlass.judge.generations import JUDGING, PENDING, Generations
from windlass.judge.jobs import Dispatch
from windlass.judge.problem import current
from windlass.judge.tables import outbox, submissions

log = structlog.get_logger("windlass.judge")

_PAGE = 500
"""Submissions that one look goes through, at most."""


class _Waiting(NamedTuple):
    number: int
    generation: int
    job_id: str | None


class Stranded:
    """Looks at those that wait, a page at a time."""

    def __init__(
        self,
        database: Database,
        dispatch: Dispatch,
        generations: Generations,
        tell: Callable[[Sequence[int]], None],
    ) -> None:
        """`tell`: whom to tell of the submissions that are judged again."""
        self._database = database
        self._dispatch = dispatch
        self._generations = generations
        self._tell = tell
        self._after = 0
        self._suspects: list[_Waiting] = []
        """Those whose job was over at the last look: its outcome may still have been on its way."""

    async def look(self) -> int:
        """Begin a new generation of those that were stranded at the last look too; how many.

        Raises StoreUnavailable, and what the dispatch raises.
        """
        renewed: list[int] = []
        if self._suspects:
            renewed = await self._database.write(partial(self._renew, self._suspects))
            self._suspects = []
        page = await self._database.read(partial(_page, self._after))
        self._after = page[-1].number if len(page) == _PAGE else 0
        self._suspects = [
            each for each in page if each.job_id is None or await self._dispatch.over(each.job_id)
        ]
        if renewed:
            log.warning(
                "stranded",
                message=f"{len(renewed)} submissions waited for jobs that are over. They are judged again.",
            )
            self._tell(renewed)
        return len(renewed)

    def _renew(self, suspects: Sequence[_Waiting], connection: Connection) -> list[int]:
        renewed: list[int] = []
        for number, generation, job_id in suspects:
            whose = select(submissions.c.problem_id).where(submissions.c.number == number)
            problem_id = connection.execute(whose).scalar()
            problem = current(connection, problem_id, lock="read") if problem_id is not None else None
            if problem is None:
                continue
            same = (
                (submissions.c.number == number)
                & (submissions.c.generation == generation)
                & submissions.c.job_id.is_not_distinct_from(job_id)
                & _WAITS
            )
            if connection.execute(select(submissions.c.number).where(same).with_for_update()).first():
                renewed += self._generations.renew(connection, submissions.c.number == number, problem)
        return renewed


_UNSENT = (
    select(outbox.c.id)
    .where(outbox.c.submission == submissions.c.number, outbox.c.generation == submissions.c.generation)
    .exists()
)
_WAITS = submissions.c.state.in_((PENDING, JUDGING)) & ~_UNSENT


def _page(after: int, connection: Connection) -> list[_Waiting]:
    wanted = (
        select(submissions.c.number, submissions.c.generation, submissions.c.job_id)
        .where(submissions.c.number > after, _WAITS)
        .order_by(submissions.c.number)
        .limit(_PAGE)
    )
    return [_Waiting(*row) for row in connection.execute(wanted)]
