"""What became of jobs, written down in the submissions that they were for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy import Connection, Row, delete, insert, select, update

from windlass.clock import Clock
from windlass.database import Database
from windlass.ids import SUBMISSION, Ids
from windlass.judge import results
from windlass.judge.generations import DONE, JUDGING, PENDING
from windlass.judge.problem import meta_of
from windlass.judge.submission import locked
from windlass.judge.tables import cases, outbox, submissions
from windlass.queues.watching import Watches

log = structlog.get_logger("windlass.judge")


class Projection:
    """Writes it down. It may be told as often as it takes: a second time changes nothing."""

    def __init__(self, database: Database, ids: Ids, clock: Clock, watches: Watches) -> None:
        self._database = database
        self._ids = ids
        self._clock = clock
        self._watches = watches

    async def started(self, submission_id: str, generation: int) -> None:
        """A runner has begun. Only for people: nothing depends on it."""
        number = self._ids.parse_numbered(SUBMISSION, submission_id)
        if number is None:
            return
        now_judging = (
            update(submissions)
            .where(
                submissions.c.number == number,
                submissions.c.generation == generation,
                submissions.c.state == PENDING,
            )
            .values(state=JUDGING)
        )
        if await self._database.write(lambda connection: connection.execute(now_judging).rowcount):
            self._watches.tell([number])

    async def project(
        self, job_id: str, submission_id: str, generation: int, outcome: Mapping[str, Any]
    ) -> None:
        """Write down what came of a job. What is of an older generation, or known already, changes nothing.

        Without a `submission_id` it is for whoever has this job now. Raises StoreUnavailable; whatever the
        outcome is, it is confirmed otherwise.
        """
        if submission_id:
            number = self._ids.parse_numbered(SUBMISSION, submission_id)
        else:
            number = await self._database.read(lambda connection: _whose(connection, job_id))
        if number is None:
            log.warning("outcome_of_nothing", job=job_id, submission=submission_id[:64])
            return

        def step(connection: Connection) -> bool:
            row = locked(connection, number)
            if row is None or row.state == DONE:
                return False
            if (row.generation != generation) if submission_id else (row.job_id != job_id):
                return False
            judged = results.judge(outcome, meta_of(connection, row.problem_id, row.version).points())
            _write_down(connection, row, job_id, judged, self._clock.now())
            return True

        if await self._database.write(step):
            self._watches.tell([number])


def _whose(connection: Connection, job_id: str) -> int | None:
    """The submission with this job. Looks through all of them, and is needed when a record is damaged."""
    return connection.execute(select(submissions.c.number).where(submissions.c.job_id == job_id)).scalar()


def _write_down(connection: Connection, row: Row[Any], job_id: str, judged: results.Judged, now: int) -> None:
    connection.execute(delete(cases).where(cases.c.submission == row.number))
    rows = [
        {
            "submission": row.number,
            "task": task,
            "number": number,
            "status": case.status.value,
            "time_ms": case.execTime,
            "memory_kib": int(case.memoryUsage),
            "exit_code": case.exitCode,
            "stdout": results.cut(case.stdout, results.MAX_OUTPUT),
            "stderr": results.cut(
                case.stderr, results.MAX_COMPILER if (task, number) == (1, 1) else results.MAX_OUTPUT
            ),
        }
        for task, given in enumerate(judged.cases, 1)
        for number, case in enumerate(given, 1)
    ]
    if rows:
        connection.execute(insert(cases), rows)
    connection.execute(
        update(submissions)
        .where(submissions.c.number == row.number)
        .values(
            state=DONE,
            job_id=job_id,
            verdict=judged.verdict.value,
            score=judged.score,
            reason=results.cut(judged.reason, results.MAX_REASON) if judged.reason is not None else None,
            attempts=judged.attempts,
            judged_at=now,
        )
    )
    connection.execute(
        delete(outbox).where(
            outbox.c.submission == row.number,
            outbox.c.generation == row.generation,
            outbox.c.superseded.is_(False),
        )
    )
