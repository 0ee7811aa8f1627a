"""The runners' routes in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from windlass.dispatch.service import MAX_TAKEN
from windlass.server.queue_docs import operation, problem_answers, query_parameter

_RUNNER = {"name": "runner_id", "in": "path", "required": True, "schema": {"type": "string"}}
_JOB = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
_JOB_ID = {"type": "string", "example": "jb_AAAAAAAAAAG8yl3Rz6k0vQ1f"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _data(schema: dict[str, Any]) -> dict[str, Any]:
    return _object(["data"], data=schema)


def _media(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _extra(body: dict[str, Any] | None, answers: dict[str, Any], *more: int) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "security": [{"runner": []}],
        "responses": {**answers, **problem_answers(401, 400, 422, 503, *more)},
    }
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _media(body)}
    return extra


_STRINGS = {"type": "array", "items": {"type": "string"}}
_CASE = _object(
    ["stdout", "stderr", "exitCode", "execTime", "memoryUsage", "status"],
    stdout={"type": "string"},
    stderr={"type": "string"},
    exitCode={"type": "integer"},
    execTime={"type": "number", "minimum": 0, "description": "Milliseconds."},
    memoryUsage={"type": "number", "minimum": 0, "description": "KiB."},
    status={"enum": ["AC", "WA", "CE", "TLE", "MLE", "RE", "OLE", "JE"]},
)
_TASKS = {"type": "array", "items": {"type": "array", "items": _CASE}}
_RESULT = _object(["tasks"], tasks=_TASKS)
_RESULTS = {
    "type": "array",
    "maxItems": MAX_TAKEN,
    "items": _object(
        ["job_id", "result"],
        job_id={**_JOB_ID, "description": "Each is looked at alone: what is wrong in one refuses that one."},
        result={"description": "What `complete` takes.", "example": {"tasks": [[]]}},
    ),
}
_TAKEN = _object(
    ["job_id", "status"],
    job_id=_JOB_ID,
    status={"type": "integer", "description": "204: taken, and on disk."},
    detail={"type": "string", "description": "Why not."},
)
_CONFIG = _object(
    ["heartbeat_interval_sec", "poll_interval_sec", "max_concurrent_jobs"],
    heartbeat_interval_sec={"type": "number"},
    poll_interval_sec={"type": "number"},
    max_concurrent_jobs={"type": "integer"},
    features=_STRINGS,
)
_REGISTERED = _data(
    _object(
        ["runner_id", "token", "config"],
        runner_id={"type": "string"},
        token={"type": "string"},
        config=_CONFIG,
    )
)
REGISTER = _extra(
    _object(
        ["registration_token", "name"],
        registration_token={"type": "string"},
        name={"type": "string", "minLength": 1, "maxLength": 200},
        labels=_STRINGS,
        features=_STRINGS,
    ),
    {"201": {"description": "The runner and its token.", "content": _media(_REGISTERED)}},
)
REGISTER["security"] = [{}]
ABORT = _extra(
    _object(["reason"], reason={"type": "string"}),
    {"202": {"description": "The job is ready for another runner."}},
    403, 404, 409, 413,
)  # fmt: skip
EVENTS = _extra(
    _object(["events"], events={"type": "array", "items": {"type": "object"}}),
    {"204": {"description": "Passed on to whoever watches."}},
    403, 404, 413,
)  # fmt: skip
CODE = _extra(
    None,
    {
        "200": {
            "description": "A zip with the source.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    403, 404,
)  # fmt: skip
CODE["security"] = [{}]

_DELIVERY = {
    "oneOf": [
        _object(
            ["job_id", "submission_id", "problem_id", "language", "code_url", "checker", "tasks"],
            job_id=_JOB_ID,
            submission_id={"type": "string"},
            problem_id={"type": "integer"},
            language={"type": "integer"},
            code_url={"type": "string", "description": "Absolute, signed, good for an hour."},
            checker={"type": "string"},
            interactor={"type": "string", "description": "Only for interactive problems."},
            tasks={
                "type": "array",
                "items": _object(
                    ["task_id", "case_count", "memory_limit", "time_limit"],
                    task_id={"type": "integer"},
                    case_count={"type": "integer"},
                    memory_limit={"type": "integer", "description": "KiB."},
                    time_limit={"type": "integer", "description": "Milliseconds."},
                ),
            },
        ),
        _object(["job_id", "command"], job_id=_JOB_ID, command={"type": "object"}),
    ]
}
_EXCHANGED = _data(
    _object(
        ["results", "jobs"],
        results={"type": "array", "items": _TAKEN},
        jobs={"type": "array", "items": _DELIVERY},
    )
)
_CLAIM = query_parameter(
    "claim",
    {"type": "string", "minLength": 1, "maxLength": 128},
    "Names this request: a repeat gets the same job.",
)
_MAX = query_parameter(
    "max", {"type": "integer", "minimum": 1, "maximum": MAX_TAKEN}, "As many as that at once, in an array."
)
_CONTROL = _data(
    _object(["lost", "cancelled", "superseded"], lost=_STRINGS, cancelled=_STRINGS, superseded=_STRINGS)
)


def _operation(
    name: str,
    summary: str,
    more: list[dict[str, Any]],
    answers: dict[str, Any],
    body: Any = None,
    problems: tuple[int, ...] = (),
) -> dict[str, Any]:
    """An operation of one runner; `more`: its other parameters, `problems`: those that are unusual."""
    described = operation(name, summary, [_RUNNER, *more], answers, body, problems, tag="runners")
    return described | {"security": [{"runner": []}]}


def paths() -> dict[str, dict[str, Any]]:
    """The hot routes by path and method."""
    return {
        "/runners/{runner_id}/next-job": {
            "get": _operation(
                "next_job",
                "The next job for a runner; with `max`, jobs",
                [
                    _CLAIM,
                    query_parameter(
                        "wait", {"type": "number", "minimum": 0, "maximum": 60}, "Seconds to wait for one."
                    ),
                    _MAX,
                ],
                {
                    "200": {
                        "description": "A job, leased; with `max`, one or more.",
                        "content": _media(
                            _data({"anyOf": [_DELIVERY, {"type": "array", "items": _DELIVERY}]})
                        ),
                    },
                    "204": {"description": "There is none."},
                },
            )
        },
        "/runners/{runner_id}/heartbeat": {
            "post": _operation(
                "heartbeat",
                "Keep the leases of a runner's jobs",
                [],
                {
                    "204": {"description": "Kept, as far as they were this runner's."},
                    "200": {
                        "description": "The same, for runners with the feature `control`: what to stop.",
                        "content": _media(_CONTROL),
                    },
                },
                {
                    "required": False,
                    "content": _media(
                        _object([], active_job_ids={"type": ["array", "null"], "maxItems": 1000, "items": {}})
                    ),
                },
            )
        },
        "/runners/{runner_id}/jobs/{job_id}/complete": {
            "put": _operation(
                "complete_job",
                "Bring a job's result: only who holds the job may; the same runner may repeat it",
                [_JOB],
                {"204": {"description": "Taken, and on disk; also when the same runner repeats it."}},
                {"required": True, "content": _media(_RESULT)},
                (409,),
            )
        },
        "/runners/{runner_id}/results": {
            "post": _operation(
                "complete_jobs",
                "Bring results, each taken or refused as if it came alone, and take jobs in exchange",
                [_CLAIM, _MAX],
                {
                    "200": {
                        "description": "What `complete` would have answered, in their order; and new jobs.",
                        "content": _media(_EXCHANGED),
                    }
                },
                {"required": True, "content": _media(_object(["results"], results=_RESULTS))},
            )
        },
    }
