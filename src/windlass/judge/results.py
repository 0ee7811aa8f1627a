"""What a job brought: the statuses of its cases as they came over the wire, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from windlass.errors import Invalid
from windlass.judge import verdict
from windlass.judge.verdict import Status

MAX_OUTPUT = 4 * 1024
"""Bytes that are kept of what a case printed, of each of its two outputs."""
MAX_COMPILER = 64 * 1024
"""Bytes that are kept of what the compiler said."""
MAX_REASON = 4 * 1024
MAX_ATTEMPTS = 64 * 1024
"""Bytes of the history of attempts, as JSON."""

_MOST = 2**53
_Measured = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]


class CaseOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One case as the wire has it; times in ms, memory in KiB."""

    status: Status
    stdout: str = ""
    stderr: str = ""
    exitCode: Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)] | None = None  # noqa: N815 - the wire's names
    execTime: _Measured = 0  # noqa: N815
    memoryUsage: _Measured = 0  # noqa: N815


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a submission."""

    verdict: Status
    score: float = 0.0
    cases: Sequence[Sequence[CaseOutcome]] = ()
    """By task; none where the job itself failed."""
    reason: str | None = None
    attempts: bytes | None = None
    """JSON."""


class Points(msgspec.Struct, frozen=True):
    """How a task scores, and how many cases it has."""

    score: float
    partial: bool
    case_count: int


def read_result(tasks: object, counts: Sequence[int]) -> list[list[CaseOutcome]]:
    """The cases of a result, by task. Raises Invalid where they are not those that `counts` asks for."""
    try:
        read = msgspec.convert(tasks, list[list[CaseOutcome]])
    except msgspec.ValidationError as error:
        raise Invalid(f"The result has the wrong shape: {error}.", field="tasks") from None
    found = [len(cases) for cases in read]
    if found != list(counts):
        raise Invalid(
            f"The result has {found} cases in its tasks, the job has {list(counts)}.", field="tasks"
        )
    return read


def judge(outcome: Mapping[str, Any], points: Sequence[Points]) -> Judged:
    """What a job's outcome comes to: `{"tasks": ...}`, or `{"failed": reason, "attempts": [...]}`.

    Raises nothing: what cannot be read is a judge's error, or its submission would wait for ever.
    """
    if "failed" in outcome:
        return Judged(
            verdict=Status.JUDGE_ERROR,
            reason=str(outcome["failed"])[:MAX_REASON],
            attempts=_history(outcome.get("attempts")),
        )
    try:
        cases = read_result(outcome.get("tasks"), [task.case_count for task in points])
    except Invalid as error:
        return Judged(verdict=Status.JUDGE_ERROR, reason=error.detail[:MAX_REASON])
    return Judged(
        verdict=verdict.worst(case.status for task in cases for case in task),
        score=sum(
            task_score(task, [case.status for case in given])
            for task, given in zip(points, cases, strict=True)
        ),
        cases=cases,
    )


def task_score(task: Points, statuses: Sequence[Status]) -> float:
    """What a task gives, rounded: a third of 10 points is 3.3333."""
    return round(verdict.score(task.score, statuses, partial=task.partial), 4)


def cut(text: str, most: int) -> bytes:
    """The beginning of a text, in UTF-8; what is no character is a question mark."""
    return text[:most].encode("utf-8", "replace")[:most]


def _history(attempts: object) -> bytes | None:
    """The attempts as JSON, the last of them where all would be too long."""
    listed = list(attempts) if isinstance(attempts, Sequence) and not isinstance(attempts, str) else []
    while listed:
        try:
            text = msgspec.json.encode(listed)
        except (TypeError, ValueError):
            return None
        if len(text) <= MAX_ATTEMPTS:
            return text
        listed = listed[len(listed) // 2 + 1 :]
    return None
