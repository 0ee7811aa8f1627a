"""The requests for jobs, runners, problems and submissions; as in calls.py, without any IO.

looking                              may be repeated
put and delete of a problem          yes: the second time changes nothing (but a problem's version)
create a problem                     never: a repeat makes a second one
submit, create a job                 yes, because of the Idempotency-Key
cancel a job                         yes: "it has ended" on a repeat means that the first one did it
rejudge                              never: a repeat throws away what was judged meanwhile
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from windlass.client.call import Call, Form, Plan, nothing, reader
from windlass.client.errors import NotSent
from windlass.client.values import to_json
from windlass.client.work_values import (
    Accepted,
    JobCreated,
    JobInfo,
    ProblemInfo,
    ProblemSummary,
    RunnerInfo,
    SubmissionInfo,
    SubmissionSummary,
)

_UNPACKING = 20_000_000
"""Bytes of test data that a slow server looks through in a second."""

Sent = Callable[[int], None]
"""Called with the number of bytes that went out since the last call."""


# Jobs


def create_job(
    command: Mapping[str, Any], labels: Sequence[str], priority: int, max_seconds: int | None
) -> Call[JobCreated]:
    body: dict[str, Any] = {"command": command, "labels": list(labels), "priority": priority}
    if max_seconds is not None:
        body["max_seconds"] = max_seconds
    return _keyed("/jobs", to_json(body), JobCreated)


def job(job_id: str, wait: float = 0.0) -> Call[JobInfo]:
    return _look(_path("jobs", job_id), JobInfo, wait)


def jobs(state: str, limit: int) -> Call[list[JobInfo]]:
    read = reader(_Jobs)
    return Call(
        method="GET",
        path="/jobs",
        query={"state": state, "limit": str(limit)},
        parse=lambda answer: read(answer).jobs,
        repeatable=True,
    )


def cancel_job(job_id: str) -> Call[None]:
    return Call(
        method="DELETE",
        path=_path("jobs", job_id),
        parse=nothing,
        repeatable=True,
        done_on_repeat=frozenset({"message_gone"}),
    )


def runners() -> Call[list[RunnerInfo]]:
    read = reader(_Runners)
    return Call(method="GET", path="/runners", parse=lambda answer: read(answer).runners, repeatable=True)


def job_events(job_id: str) -> str:
    """The path of a job's server-sent events."""
    return _path("jobs", job_id, "events")


# Problems


def create_problem(meta: Mapping[str, Any], testdata: bytes, sent: Sent | None) -> Call[ProblemInfo]:
    return _with_testdata("POST", "/problems", meta, testdata, sent)


def put_problem(
    problem_id: int, meta: Mapping[str, Any], testdata: bytes, sent: Sent | None
) -> Call[ProblemInfo]:
    return _with_testdata("PUT", _path("problems", str(problem_id)), meta, testdata, sent)


def _with_testdata(
    method: Any, path: str, meta: Mapping[str, Any], testdata: bytes, sent: Sent | None
) -> Call[ProblemInfo]:
    fields = {"meta": to_json(meta).encode()}
    return Call(
        method=method,
        path=path,
        body=Form(fields=fields, file="testdata", content=testdata, sent=sent),
        parse=reader(ProblemInfo),
        repeatable=method == "PUT",
        hold=len(testdata) / _UNPACKING,
    )


def problem(problem_id: int) -> Call[ProblemInfo]:
    return _look(_path("problems", str(problem_id)), ProblemInfo)


def problems(page: int = 1000) -> Plan[list[ProblemSummary]]:
    """All problems by their numbers, page after page."""
    found: list[ProblemSummary] = []
    after = 0
    while True:
        query = {"limit": str(page), "after": str(after)}
        answer: _Problems = yield Call(
            method="GET", path="/problems", query=query, parse=reader(_Problems), repeatable=True
        )
        found += answer.problems
        if answer.next is None:
            return found
        after = answer.next


def delete_problem(problem_id: int) -> Call[None]:
    return Call(
        method="DELETE",
        path=_path("problems", str(problem_id)),
        parse=nothing,
        repeatable=True,
        done_on_repeat=frozenset({"problem_not_found"}),
    )


def rejudge_problem(problem_id: int) -> Call[int]:
    read = reader(_Rejudged)
    path = _path("problems", str(problem_id), "rejudge")
    return Call(method="POST", path=path, body="{}", parse=lambda answer: read(answer).submissions)


# Submissions


def submit(
    problem_id: int, language: int, source: bytes, priority: int, labels: Sequence[str]
) -> Call[Accepted]:
    """`source`: the program's bytes, or a zip of it."""
    fields = {
        "problem_id": str(problem_id).encode(),
        "language": str(language).encode(),
        "priority": str(priority).encode(),
        "labels": ",".join(labels).encode(),
    }
    return _keyed("/submissions", Form(fields=fields, file="source", content=source), Accepted)


def submission(submission_id: str, wait: float = 0.0) -> Call[SubmissionInfo]:
    return _look(_path("submissions", submission_id), SubmissionInfo, wait)


def submissions(problem_id: int | None, most: int, page: int = 1000) -> Plan[list[SubmissionSummary]]:
    """The newest `most` submissions, of a problem where it is named."""
    found: list[SubmissionSummary] = []
    query = {} if problem_id is None else {"problem_id": str(problem_id)}
    while True:
        query = {**query, "limit": str(min(page, most - len(found)))}
        answer: _Submissions = yield Call(
            method="GET", path="/submissions", query=query, parse=reader(_Submissions), repeatable=True
        )
        found += answer.submissions
        if answer.next is None or len(found) >= most:
            return found
        query = {**query, "after": answer.next}


def rejudge(submission_id: str) -> Call[SubmissionInfo]:
    path = _path("submissions", submission_id, "rejudge")
    return Call(method="POST", path=path, body="{}", parse=reader(SubmissionInfo))


def submission_events(submission_id: str) -> str:
    """The path of a submission's server-sent events."""
    return _path("submissions", submission_id, "events")


# Reading answers


class _Jobs(msgspec.Struct):
    jobs: list[JobInfo]


class _Runners(msgspec.Struct):
    runners: list[RunnerInfo]


class _Problems(msgspec.Struct):
    problems: list[ProblemSummary]
    next: int | None = None


class _Submissions(msgspec.Struct):
    submissions: list[SubmissionSummary]
    next: str | None = None


class _Rejudged(msgspec.Struct):
    submissions: int


def _look(path: str, kind: type[Any], wait: float = 0.0) -> Call[Any]:
    query = {"wait": f"{wait:g}"} if wait else {}
    return Call(method="GET", path=path, query=query, parse=reader(kind), repeatable=True, hold=wait)


def _keyed(path: str, body: str | Form, kind: type[Any]) -> Call[Any]:
    return Call(
        method="POST",
        path=path,
        body=body,
        parse=reader(kind),
        key=uuid.uuid4().hex,
        spare_key=True,
        repeatable=True,
    )


def _path(*parts: str) -> str:
    for part in parts:
        if not part.strip("."):
            raise NotSent(f"{part!r} cannot be an id")
    return "/" + "/".join(quote(part, safe="") for part in parts)
