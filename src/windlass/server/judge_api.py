"""The judge over plain HTTP: problems and submissions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from windlass.errors import Invalid, ProblemNotFound, Unauthenticated
from windlass.judge.files import Incoming
from windlass.judge.generations import DONE
from windlass.judge.problem import MAX_ID, ProblemMeta
from windlass.judge.problems import MAX_TESTDATA
from windlass.judge.service import Judge
from windlass.judge.source import MAX_SOURCE
from windlass.judge.submission import Submission
from windlass.judge.submissions import Accepted
from windlass.message import MAX_WAIT, Once
from windlass.server.auth import ADMIN, RECEIVE, SEND, STRANGER, Principal
from windlass.server.body import check_json, decode
from windlass.server.following import WatchJob, follow
from windlass.server.judge_bodies import (
    NEW_PROBLEM_BODY,
    PROBLEM_BODY,
    SUBMISSION_BODY,
    Checksum,
    ProblemInfo,
    ProblemPage,
    Rejudged,
    SubmissionBody,
    SubmissionPage,
    answer,
    info_of,
    summary_of,
)
from windlass.server.lane import AsgiClient
from windlass.server.queue_admin import Caller, no_other_parameters, only
from windlass.server.queue_bodies import once_of
from windlass.server.streams import EVENTS_CONTENT, EventsAnswer, FileAnswer
from windlass.server.uploads import MULTIPART, Form, is_form, read_form

JUDGE = "windlass.judge"
"""What scopes call the judge: `send:windlass.judge` may submit, `receive:` look, `admin:` make problems."""

MAX_META = 8 * 1024 * 1024
"""Bytes of a form's `meta`: a long statement in JSON."""
_LONGEST = 3600
_FIELDS = {
    "problem_id": 20,
    "language": 20,
    "source": MAX_SOURCE + 1024 * 1024,
    "priority": 20,
    "labels": 2000,
}
_OVERHEAD = 64 * 1024
_PROBLEM = re.compile(r"/problems/[^/]+")
_READ_BY_RUNNERS = re.compile(r"/problems/[^/]+/(?:meta|testdata|checksum)")

MayRead = Callable[[Request], bool]
"""Whether a request that no API key lets in may still read a problem's meta, test data and checksum."""

_meta = msgspec.json.Decoder(ProblemMeta)
_submission = msgspec.json.Decoder(SubmissionBody)

ProblemId = Annotated[
    str,
    Path(
        description="A problem's id.",
        examples=["1"],
        json_schema_extra={"type": "integer", "minimum": 1, "maximum": MAX_ID},
    ),
]
SubmissionId = Annotated[str, Path(description="A submission's id.")]


def upload_limit(method: str, path: str, content_type: bytes) -> int | None:
    """Bytes of a body that its route reads as it arrives; None for all others, which are read first."""
    if content_type[: len(MULTIPART)].lower() != MULTIPART.encode():
        return None
    if (method == "PUT" and _PROBLEM.fullmatch(path)) or (method == "POST" and path == "/problems"):
        return MAX_TESTDATA + MAX_META + _OVERHEAD
    if method == "POST" and path == "/submissions":
        return sum(_FIELDS.values()) + _OVERHEAD
    return None


def is_of_judge(path: str) -> bool:
    """True for all that only the judge can answer."""
    return path.split("/", 2)[1] in ("problems", "submissions")


def may_be_a_runner(method: str, path: str) -> bool:
    """True for the routes that ask `may_read_problem`, so that no API key is needed to come so far."""
    return method == "GET" and _READ_BY_RUNNERS.fullmatch(path) is not None


def router(judge: Judge, may_read_problem: MayRead, watch_job: WatchJob) -> APIRouter:
    """The routes, bound to one judge."""
    api = APIRouter(dependencies=[Depends(no_other_parameters)])
    problems, submissions = judge.problems, judge.submissions

    def reader(request: Request, caller: Caller) -> None:
        """Let a runner in, or whoever may do everything with problems."""
        if caller.may(ADMIN, JUDGE) or may_read_problem(request):
            return
        if caller is STRANGER:
            raise Unauthenticated("Send a runner's token, or an API key, as `Authorization: Bearer ...`.")
        caller.demand(ADMIN, JUDGE)

    Reader = Depends(reader)  # noqa: N806 - a dependency, named as Caller is

    # --- problems -------------------------------------------------------------------------------------

    @api.post(
        "/problems",
        tags=["problems"],
        status_code=201,
        openapi_extra=NEW_PROBLEM_BODY,
        responses={201: answer("Created.", ProblemInfo), **only(408, 413)},
    )
    async def create_problem(request: Request, caller: Caller) -> Response:
        """Create a problem under a number that the server chooses."""
        caller.demand(ADMIN, JUDGE)
        if not is_form(request):
            raise Invalid("A new problem needs its test data: send a form with `testdata`.", field="testdata")
        async with _problem_form(judge, request) as (meta, testdata):
            return _json(info_of(await problems.create(meta, testdata)), 201)

    @api.put(
        "/problems/{problem_id}",
        tags=["problems"],
        status_code=200,
        openapi_extra=PROBLEM_BODY,
        responses={
            200: answer("Changed.", ProblemInfo),
            201: answer("Created.", ProblemInfo),
            **only(408, 413),
        },
    )
    async def put_problem(problem_id: ProblemId, request: Request, caller: Caller) -> Response:
        """Create a problem, or replace it; as JSON, change its meta and keep its test data."""
        caller.demand(ADMIN, JUDGE)
        number = _problem_id(problem_id)
        if number is None:
            raise Invalid(f"A problem's id is a whole number from 1 to {MAX_ID:,}.", field="problem_id")
        if is_form(request):
            async with _problem_form(judge, request) as (meta, testdata):
                problem, created = await problems.put(number, meta, testdata)
        else:
            problem, created = await problems.put(number, decode(_meta, await request.body()))
        return _json(info_of(problem), 201 if created else 200)

    @api.get("/problems", tags=["problems"], responses={200: answer("A page.", ProblemPage), **only()})
    async def list_problems(
        caller: Caller,
        after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """Problems by id, a page at a time."""
        _demand_any(caller)
        found = await problems.list(after, limit + 1)
        more = found[limit - 1].id if len(found) > limit else None
        return _json(ProblemPage([summary_of(problem) for problem in found[:limit]], more))

    @api.get(
        "/problems/{problem_id}", tags=["problems"], responses={200: answer("It.", ProblemInfo), **only(404)}
    )
    async def show_problem(problem_id: ProblemId, caller: Caller) -> Response:
        """A problem, without its test data."""
        _demand_any(caller)
        return _json(info_of(await problems.get(_known(problem_id))))

    @api.get(
        "/problems/{problem_id}/meta",
        tags=["problems"],
        dependencies=[Reader],
        responses={200: answer("As it was put.", ProblemMeta), **only(404)},
    )
    async def show_problem_meta(problem_id: ProblemId) -> Response:
        """What a problem was put with: for runners, and to put it again."""
        return _json((await problems.get(_known(problem_id))).meta)

    @api.get(
        "/problems/{problem_id}/testdata",
        tags=["problems"],
        dependencies=[Reader],
        response_class=Response,
        responses={
            200: {
                "description": "A zip; its ETag is its checksum.",
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            },
            304: {"description": "It is the one in If-None-Match."},
            **only(404),
        },
    )
    async def get_testdata(
        problem_id: ProblemId, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """A problem's test data."""
        problem, file = await problems.open_testdata(_known(problem_id))
        etag = f'"{problem.testdata}"'
        if if_none_match is not None and etag in if_none_match:
            file.close()
            return Response(status_code=304, headers={"etag": etag})
        return FileAnswer(file, problem.testdata_size, {"content-type": "application/zip", "etag": etag})

    @api.get(
        "/problems/{problem_id}/checksum",
        tags=["problems"],
        dependencies=[Reader],
        responses={200: answer("SHA-256 of the archive.", Checksum), **only(404)},
    )
    async def show_checksum(problem_id: ProblemId) -> Response:
        """The checksum of a problem's test data: it changes when the data does."""
        return _json(Checksum((await problems.get(_known(problem_id))).testdata))

    @api.delete("/problems/{problem_id}", tags=["problems"], status_code=204, responses=only(404))
    async def delete_problem(problem_id: ProblemId, caller: Caller) -> Response:
        """Delete a problem. Its submissions stay; those without a verdict end as JE."""
        caller.demand(ADMIN, JUDGE)
        await problems.delete(_known(problem_id))
        return Response(status_code=204)

    @api.post(
        "/problems/{problem_id}/rejudge",
        tags=["problems"],
        status_code=202,
        responses={202: answer("Under way.", Rejudged), **only(404)},
    )
    async def rejudge_problem(problem_id: ProblemId, caller: Caller) -> Response:
        """Judge all submissions of a problem again, by the problem as it is now."""
        caller.demand(ADMIN, JUDGE)
        return _json(Rejudged(await submissions.rejudge_all(_known(problem_id))), 202)

    # --- submissions ----------------------------------------------------------------------------------

    @api.post(
        "/submissions",
        tags=["submissions"],
        status_code=202,
        openapi_extra=SUBMISSION_BODY,
        responses={202: answer("On disk; its job is sent.", Accepted), **only(404, 408, 413, 429)},
    )
    async def submit(
        request: Request,
        caller: Caller,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    ) -> Response:
        """Have a program judged."""
        caller.demand(SEND, JUDGE)
        if is_form(request):
            async with read_form(request, judge.files, _FIELDS, {}) as form:
                body, source = _from_form(form)
        else:
            body = decode(_submission, await request.body())
            source = body.source.encode()
        once = _once(idempotency_key, caller, body, source) if idempotency_key is not None else None
        accepted = await submissions.submit(
            body.problem_id, body.language, source, priority=body.priority, labels=body.labels, once=once
        )
        return _json(accepted, 202)

    @api.get(
        "/submissions", tags=["submissions"], responses={200: answer("A page.", SubmissionPage), **only(404)}
    )
    async def list_submissions(
        caller: Caller,
        problem_id: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
        after: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """Submissions, the newest first, a page at a time, without their cases."""
        caller.demand(RECEIVE, JUDGE)
        found = await submissions.list(problem_id, after, limit + 1)
        more = found[limit - 1].submission_id if len(found) > limit else None
        return _json(SubmissionPage(found[:limit], more))

    @api.get(
        "/submissions/{submission_id}",
        tags=["submissions"],
        responses={200: answer("As it is now.", Submission), **only(404)},
    )
    async def show_submission(
        submission_id: SubmissionId,
        request: Request,
        caller: Caller,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT, allow_inf_nan=False)] = 0,
    ) -> Response:
        """A submission's status, score and cases; with `wait`, once it is done."""
        caller.demand(RECEIVE, JUDGE)
        if not wait:
            return _json(await submissions.get(submission_id))
        client = AsgiClient(request.receive)
        try:
            return _json(await submissions.until(submission_id, _done, wait, client.gone()))
        finally:
            client.forget()

    @api.post(
        "/submissions/{submission_id}/rejudge",
        tags=["submissions"],
        status_code=202,
        responses={202: answer("Under way.", Submission), **only(404)},
    )
    async def rejudge_submission(submission_id: SubmissionId, caller: Caller) -> Response:
        """Judge a submission again, by its problem as it is now."""
        caller.demand(ADMIN, JUDGE)
        return _json(await submissions.rejudge(submission_id), 202)

    @api.get(
        "/submissions/{submission_id}/events",
        tags=["submissions"],
        response_class=Response,
        responses={
            200: {
                "description": "Server-sent events: `submission` at each change, until it is done; between"
                " them what the runner tells, such as `compiled` and `case`.",
                "content": EVENTS_CONTENT,
            },
            204: {"description": "Last-Event-ID was the last there is."},
            **only(404),
        },
    )
    async def follow_submission(
        submission_id: SubmissionId,
        caller: Caller,
        wait: Annotated[float, Query(ge=0, le=_LONGEST, allow_inf_nan=False)] = _LONGEST,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """A submission's changes and its cases as they come; for `wait` seconds at most."""
        caller.demand(RECEIVE, JUDGE)
        now = await submissions.get(submission_id)
        if _done(now) and now.event_id == last_event_id:
            return Response(status_code=204)  # which tells a browser not to ask again
        return EventsAnswer(lambda client: follow(judge, watch_job, now, last_event_id, wait, client))

    return api


def _done(submission: Submission) -> bool:
    return submission.status == DONE


def _problem_id(text: str) -> int | None:
    """The number in a path, None where it is none. One number has one text."""
    number = int(text) if re.fullmatch(r"[1-9][0-9]{0,9}", text, re.ASCII) else 0
    return number if 1 <= number <= MAX_ID else None


def _known(text: str) -> int:
    number = _problem_id(text)
    if number is None:
        raise ProblemNotFound
    return number


def _demand_any(caller: Principal) -> None:
    """Whoever may do anything here may read what is asked."""
    if not (caller.may(SEND, JUDGE) or caller.may(RECEIVE, JUDGE)):
        caller.demand(ADMIN, JUDGE)


@contextlib.asynccontextmanager
async def _problem_form(judge: Judge, request: Request) -> AsyncIterator[tuple[ProblemMeta, Incoming]]:
    """The two parts of a form that makes a problem."""
    async with read_form(request, judge.files, {"meta": MAX_META}, {"testdata": MAX_TESTDATA}) as form:
        check_json(form.field("meta"))
        meta = decode(_meta, form.field("meta"))
        if "testdata" not in form.files:
            raise Invalid("The form has no part 'testdata'.", field="testdata")
        yield meta, form.files["testdata"]


def _from_form(form: Form) -> tuple[SubmissionBody, bytes]:
    """What a form submits, and the source, which may be any bytes."""
    source = form.field("source")
    labels = [label.strip() for label in form.fields.get("labels", b"").decode("utf-8", "replace").split(",")]
    values: Mapping[str, Any] = {
        "problem_id": form.number("problem_id"),
        "language": form.number("language"),
        "priority": form.number("priority", 0),
        "labels": [label for label in labels if label],
        "source": "",
    }
    return decode(_submission, _encode(values)), source


def _once(key: str, caller: Principal, body: SubmissionBody, source: bytes) -> Once:
    """The Idempotency-Key of a submission: two forms with other boundaries ask for the same."""
    same = (body.problem_id, body.language, body.priority, body.labels, sha256(source).hexdigest())
    return once_of(key.encode("latin-1"), caller.name, "POST", "/submissions", _encode(same))


_encode = msgspec.json.Encoder().encode


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")
