"""A submission as others see it, and how it is read from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, select

from windlass.clock import rfc3339
from windlass.ids import SUBMISSION, Ids
from windlass.judge import verdict
from windlass.judge.generations import DONE, JUDGING, PENDING
from windlass.judge.problem import meta_of
from windlass.judge.results import Points, task_score
from windlass.judge.tables import cases, submissions
from windlass.judge.verdict import Status

Verdict = Literal["AC", "WA", "CE", "TLE", "MLE", "RE", "OLE", "JE"]
_STEPS = {PENDING: 0, JUDGING: 1, DONE: 2}


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case."""

    case: int
    """From 1, as in the names of its files."""
    verdict: Verdict
    time_ms: float
    memory_kib: int
    exit_code: int | None
    stdout: str
    """The beginning of it."""
    stderr: str


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one task."""

    task_id: int
    verdict: Verdict
    score: float
    max_score: float
    cases: Sequence[CaseResult]


class SubmissionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A submission without its cases. Times are RFC 3339."""

    submission_id: str
    job_id: str | None
    """None until the dispatch has the job."""
    problem_id: int
    language: int
    status: Literal["pending", "judging", "done"]
    generation: int
    """How often it has been judged, this time included."""
    verdict: Verdict | None
    score: float | None
    max_score: float
    submitted_at: str
    judged_at: str | None


class Submission(SubmissionSummary, frozen=True, kw_only=True):
    """All that is known of a submission."""

    reason: str | None
    """Why there is no better verdict than a judge's error."""
    attempts: msgspec.Raw | None
    """The history of a job that failed."""
    tasks: Sequence[TaskResult]
    """Empty until it is done, and where the job itself failed."""

    @property
    def event_id(self) -> str:
        """Names this state of it: another one has another."""
        return f"{self.generation}.{_STEPS[self.status]}"


def summaries(
    connection: Connection, ids: Ids, problem_id: int | None, before: int | None, limit: int
) -> list[SubmissionSummary]:
    """Submissions, the newest first: those numbered below `before`, of a problem where it is named."""
    wanted = select(submissions).order_by(submissions.c.number.desc()).limit(limit)
    if problem_id is not None:
        wanted = wanted.where(submissions.c.problem_id == problem_id)
    if before is not None:
        wanted = wanted.where(submissions.c.number < before)
    rows = connection.execute(wanted).all()
    points = {
        key: meta_of(connection, *key).points() for key in {(row.problem_id, row.version) for row in rows}
    }
    return [SubmissionSummary(**_summary(ids, row, points[row.problem_id, row.version])) for row in rows]


def find(connection: Connection, ids: Ids, number: int) -> Submission | None:
    """One submission with its cases."""
    row = connection.execute(select(submissions).where(submissions.c.number == number)).first()
    if row is None:
        return None
    points = meta_of(connection, row.problem_id, row.version).points()
    return Submission(
        **_summary(ids, row, points),
        reason=row.reason.decode("utf-8", "replace") if row.reason is not None else None,
        attempts=msgspec.Raw(row.attempts) if row.attempts is not None else None,
        tasks=_tasks(connection, number, points) if row.state == DONE else (),
    )


def _summary(ids: Ids, row: Row[Any], points: Sequence[Points]) -> dict[str, Any]:
    return {
        "submission_id": ids.numbered(SUBMISSION, row.number),
        "job_id": row.job_id,
        "problem_id": row.problem_id,
        "language": row.language,
        "status": row.state,
        "generation": row.generation,
        "verdict": row.verdict,
        "score": row.score,
        "max_score": sum(task.score for task in points),
        "submitted_at": rfc3339(row.submitted_at).decode(),
        "judged_at": rfc3339(row.judged_at).decode() if row.judged_at is not None else None,
    }


def _tasks(connection: Connection, number: int, points: Sequence[Points]) -> list[TaskResult]:
    wanted = select(cases).where(cases.c.submission == number).order_by(cases.c.task, cases.c.number)
    return [
        _task(task, [_case(row) for row in rows], points[task - 1])
        for task, rows in groupby(connection.execute(wanted), lambda row: int(row.task))
    ]


def _task(task: int, results: Sequence[CaseResult], points: Points) -> TaskResult:
    statuses = [Status(result.verdict) for result in results]
    return TaskResult(
        task_id=task,
        verdict=verdict.worst(statuses).value,
        score=task_score(points, statuses),
        max_score=points.score,
        cases=results,
    )


def _case(row: Row[Any]) -> CaseResult:
    return CaseResult(
        case=row.number,
        verdict=row.status,
        time_ms=row.time_ms,
        memory_kib=row.memory_kib,
        exit_code=row.exit_code,
        stdout=row.stdout.decode("utf-8", "replace"),
        stderr=row.stderr.decode("utf-8", "replace"),
    )


def locked(connection: Connection, number: int) -> Row[Any] | None:
    """A submission's row, which nobody else changes before this transaction ends."""
    return connection.execute(
        select(submissions).where(submissions.c.number == number).with_for_update()
    ).first()
