"""The hot routes of jobs in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from windlass.message import MAX_WAIT
from windlass.server.job_api import NewJob
from windlass.server.queue_docs import operation, query_parameter

TYPES = (NewJob,)

_JOB = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
_CREATED = {
    "type": "object",
    "required": ["job_id", "state"],
    "properties": {"job_id": {"type": "string"}, "state": {"const": "queued"}},
}
_EXAMPLE = {"command": {"argv": ["python3", "-c", "print(6*7)"]}, "priority": 5}


def _media(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **more}}


def paths() -> dict[str, dict[str, Any]]:
    """The hot routes by path and method."""
    return {
        "/jobs": {
            "post": operation(
                "create_job",
                "Give a command to whichever runner asks first",
                [],
                {"202": {"description": "On disk.", "content": _media(_CREATED)}},
                {
                    "required": True,
                    "content": _media(
                        {"$ref": "#/components/schemas/NewJob"}, examples={"one": {"value": _EXAMPLE}}
                    ),
                },
                (429,),
                tag="jobs",
            )
        },
        "/jobs/{job_id}": {
            "get": operation(
                "get_job",
                "A job; with `wait`, once it has ended or the seconds are over",
                [
                    _JOB,
                    query_parameter(
                        "wait", {"type": "number", "minimum": 0, "maximum": MAX_WAIT}, "Seconds to wait."
                    ),
                ],
                {
                    "200": {
                        "description": "As it is now.",
                        "content": _media({"$ref": "#/components/schemas/JobDetail"}),
                    }
                },
                tag="jobs",
            )
        },
    }
