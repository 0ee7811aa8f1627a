"""The hot routes in `/openapi.json`: their schemas come from the very types that parse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from windlass.message import MAX_BATCH, MAX_LEASE, MAX_WAIT
from windlass.server.queue_admin import MESSAGE
from windlass.server.queue_bodies import (
    AcksBody,
    BatchBody,
    LeaseBody,
    MessageBody,
    OutcomeBody,
    ReceiveBody,
)

_TYPES = (MessageBody, BatchBody, ReceiveBody, OutcomeBody, AcksBody, LeaseBody)
_REF = "#/components/schemas/{name}"
_PROBLEMS = {
    400: "Broken JSON",
    401: "No valid API key",
    403: "Not allowed",
    404: "Not there",
    408: "The body did not arrive in time",
    409: "The message lives on without this lease",
    410: "The message has ended; nobody will get it again",
    413: "Too large",
    422: "A value is wrong",
    429: "The queue is full, or no more Idempotency-Keys can be remembered",
    503: "The store cannot do it now",
}
_USUAL = (400, 401, 403, 404, 408, 413, 422, 503)
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "example": "orders"}
_RECEIPT = {"name": "receipt", "in": "path", "required": True, "schema": {"type": "string"}}
_SENT = {
    "type": "object",
    "required": ["id", "duplicate"],
    "properties": {"id": {"type": "string"}, "duplicate": {"type": "boolean"}},
}


def describe(api: FastAPI, more: Sequence[type], hot: Mapping[str, dict[str, Any]]) -> None:
    """Make `api`'s OpenAPI tell of the lean lane's routes too, `hot` among them, and of `more` types that
    its own routes name."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(title=api.title, version=api.version, summary=api.summary, routes=api.routes)
            _, components = msgspec.json.schema_components((*_TYPES, *more), ref_template=_REF)
            schemas = schema["components"]["schemas"]
            assert not schemas.keys() & components.keys(), "two types of one name"
            schemas.update(components)
            schemas["LeaseBody"]["anyOf"] = [
                {"properties": {one: {"const": 0}}} for one in ("lease", "delay")
            ]  # a delay goes with giving back only
            schemas["Message"] = MESSAGE
            for path, operations in {**paths(), **hot}.items():
                schema["paths"].setdefault(path, {}).update(operations)
            schema["components"]["securitySchemes"] = {
                name: {"type": "http", "scheme": "bearer"} for name in ("key", "runner")
            }
            schema["security"] = [{}, {"key": []}]
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _problem_media(operation)
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]


def _problem_media(operation: dict[str, Any]) -> None:
    """Problems are problem documents, also where FastAPI assumed its own."""
    for status, response in operation["responses"].items():
        if int(status) >= 400 and "Health" not in str(response) and "Status" not in str(response):
            response["content"] = {
                "application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}
            }


def paths() -> dict[str, dict[str, Any]]:
    """The lean lane's operations by path and method."""
    received = {
        "oneOf": [
            {"$ref": _REF.format(name="Message")},
            {
                "type": "object",
                "required": ["messages"],
                "properties": {"messages": {"type": "array", "items": {"$ref": _REF.format(name="Message")}}},
            },
        ]
    }
    answers = {
        "200": _json("One message, or with `max` an object with `messages`.", received, _MESSAGE_EXAMPLE),
        "204": {"description": "Nothing is ready."},
    }
    return {
        "/queues/{name}/messages": {
            "post": operation(
                "send_message",
                "Send one message, or a batch: all or nothing",
                [_NAME, _IDEMPOTENCY],
                {
                    "201": _json("On disk.", _one_or_many(_SENT), _SENT_EXAMPLE),
                    "200": _json("A dedup id that is known: the first message's id.", _SENT),
                },
                _body(["MessageBody", "BatchBody"], _SEND_EXAMPLES),
                (429,),
            ),
            "get": operation(
                "receive_message",
                "Take the next message; with `lease` borrow it",
                [
                    _NAME,
                    query_parameter(
                        "lease",
                        {"type": "number", "minimum": 0, "maximum": MAX_LEASE},
                        "Seconds; bare: the queue's.",
                    ),
                    query_parameter(
                        "wait",
                        {"type": "number", "minimum": 0, "maximum": MAX_WAIT},
                        "Seconds to wait for one.",
                    ),
                    query_parameter(
                        "max", {"type": "integer", "minimum": 1, "maximum": MAX_BATCH}, "How many at most."
                    ),
                ],
                answers,
            ),
        },
        "/queues/{name}/receive": {
            "post": operation(
                "receive_messages",
                "The same with the parameters as a body, for what may repeat a GET",
                [_NAME],
                answers,
                _body(
                    ["ReceiveBody"],
                    {"lease": {"value": {"lease": 30, "wait": 20, "max": 10}}},
                    required=False,
                ),
            )
        },
        "/queues/{name}/receipts/{receipt}": {
            "delete": operation(
                "acknowledge",
                "Acknowledge: the message is done",
                [_NAME, _RECEIPT],
                {"204": {"description": "It is gone for good."}},
                _body(["OutcomeBody"], {"outcome": {"value": {"outcome": {"ok": True}}}}, required=False),
                (409, 410),
            ),
            "patch": operation(
                "extend_lease",
                "Extend the lease, or give the message back",
                [_NAME, _RECEIPT],
                {
                    "200": _json(
                        "Extended.",
                        {
                            "type": "object",
                            "required": ["lease_until"],
                            "properties": {"lease_until": {"type": "string", "format": "date-time"}},
                        },
                    ),
                    "204": {"description": "Given back."},
                },
                _body(
                    ["LeaseBody"],
                    {"extend": {"value": {"lease": 60}}, "give back": {"value": {"lease": 0, "delay": 5}}},
                ),
                (409, 410),
            ),
        },
        "/queues/{name}/acks": {
            "post": operation(
                "acknowledge_many",
                "Acknowledge many receipts",
                [_NAME],
                {"200": _json("What became of each, in order.", _RESULTS)},
                _body(
                    ["AcksBody"],
                    {"two": {"value": {"acks": [{"receipt": "r..."}, {"receipt": "r...", "outcome": 1}]}}},
                ),
            )
        },
    }


_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key gives the same answer for 24 h; the send happens once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}
_RESULTS = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["receipt", "status"],
                "properties": {
                    "receipt": {"type": "string"},
                    "status": {"enum": ["acknowledged", "stale", "gone", "unknown"]},
                },
            },
        }
    },
}
_SENT_EXAMPLE = {"id": "mAAAAAQAAAAAAAA1xGv0cQ9dY4wYb2kz", "duplicate": False}
_MESSAGE_EXAMPLE = {
    "id": "mAAAAAQAAAAAAAA1xGv0cQ9dY4wYb2kz",
    "content": {"order": 17},
    "enqueued_at": "2026-11-21T12:00:00.000Z",
    "deliveries": 1,
    "priority": 0,
    "group": None,
    "headers": {},
    "receipt": "rAAAAAQAAAAAAAA0AAAABm2Zq4cQ9dY4wYb2",
    "lease_until": "2026-11-21T12:00:30.000Z",
}
_SEND_EXAMPLES = {
    "one": {"value": {"content": "hello"}},
    "with options": {"value": {"content": {"order": 17}, "delay": 5, "priority": 9, "group": "customer-4"}},
    "batch": {"value": {"messages": [{"content": 1}, {"content": 2}]}},
}


def operation(
    name: str,
    summary: str,
    parameters: list[dict[str, Any]],
    answers: dict[str, Any],
    body: dict[str, Any] | None = None,
    more: tuple[int, ...] = (),
    tag: str = "queues",
) -> dict[str, Any]:
    """An operation of the lean lane; `answers` are its successes, `more` its unusual problems."""
    described: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "parameters": parameters,
        "responses": {**answers, **problem_answers(*_USUAL, *more)},
    }
    if body is not None:
        described["requestBody"] = body
    return described


def problem_answers(*statuses: int) -> dict[str, Any]:
    """Responses that are problem documents."""
    return {str(status): {"description": _PROBLEMS[status], "content": {}} for status in sorted({*statuses})}


def _body(names: list[str], examples: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    refs = [{"$ref": _REF.format(name=name)} for name in names]
    schema = refs[0] if len(refs) == 1 else {"oneOf": refs}
    return {"required": required, "content": {"application/json": {"schema": schema, "examples": examples}}}


def query_parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _json(text: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": schema}
    if example is not None:
        media["example"] = example
    return {"description": text, "content": {"application/json": media}}


def _one_or_many(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "oneOf": [
            schema,
            {
                "type": "object",
                "required": ["messages"],
                "properties": {"messages": {"type": "array", "items": schema}},
            },
        ]
    }
