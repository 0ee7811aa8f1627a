"""Jobs, runners, problems and submissions as the server tells of them: plain values.

Times are as the server writes them; durations are in milliseconds, memory in KiB, unless they say otherwise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class JobCreated(msgspec.Struct, frozen=True):
    """A job that was taken in."""

    job_id: str
    state: str = "queued"


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is: queued, running, done, failed, cancelled or superseded."""

    job_id: str
    state: str
    labels: list[str] = []
    priority: int = 0
    attempts: int = 0
    events: list[dict[str, Any]] = []
    runner: str | None = None
    submission_id: str | None = None
    command: dict[str, Any] | None = None
    result: Any = None

    @property
    def over(self) -> bool:
        return self.state not in ("queued", "running")


class RunnerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A registered runner; `jobs`: how many it holds."""

    runner_id: str
    name: str
    labels: list[str] = []
    seen_at: int
    """Milliseconds since 1970."""
    seconds_ago: float
    jobs: int


class ProblemSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A problem in a list."""

    problem_id: int
    title: str
    max_score: float
    version: int
    updated_at: datetime


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a problem."""

    score: float
    case_count: int
    time_limit: int
    memory_limit: int
    scoring: str = "all"


class ProblemInfo(ProblemSummary, frozen=True, kw_only=True):
    """A problem without its test data."""

    statement: str
    checker: str
    interactor: str = ""
    tasks: list[TaskInfo]
    checksum: str
    testdata_size: int
    """Bytes of the archive."""
    created_at: datetime


class Accepted(msgspec.Struct, frozen=True):
    """A submission that was taken in."""

    submission_id: str
    job_id: str
    status: str = "pending"


class CaseInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a case."""

    case: int
    verdict: str
    time_ms: float
    memory_kib: int
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""


class TaskOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task."""

    task_id: int
    verdict: str
    score: float
    max_score: float
    cases: list[CaseInfo]


class SubmissionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A submission without its cases; `status`: pending, judging or done."""

    submission_id: str
    job_id: str | None = None
    problem_id: int
    language: int
    status: str
    generation: int
    """How often it has been judged, this time included."""
    verdict: str | None = None
    score: float | None = None
    max_score: float
    submitted_at: datetime
    judged_at: datetime | None = None

    @property
    def done(self) -> bool:
        return self.status == "done"


class SubmissionInfo(SubmissionSummary, frozen=True, kw_only=True):
    """All that is known of a submission. `reason`: why there is no better verdict than JE."""

    reason: str | None = None
    attempts: Any = None
    tasks: list[TaskOutcome] = []
