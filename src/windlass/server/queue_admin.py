"""Queues over plain HTTP, the routes that people use: create, show, change, purge, peek, a message's life."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from windlass.clock import rfc3339
from windlass.errors import Invalid, MessageGone, MessageNotFound
from windlass.message import MAX_WAIT, Life, State
from windlass.queues import Queues
from windlass.queues.rules import check_own
from windlass.server.auth import ADMIN, RECEIVE, Principal
from windlass.server.lane import AsgiClient
from windlass.server.models import (
    NewQueue,
    Problem,
    Purged,
    Queue,
    QueueDetail,
    QueuePage,
    QueueSettingsBody,
    RedriveBody,
    Redriven,
    detail_of,
    queue_of,
)
from windlass.server.queue_api import render

QueueName = Annotated[str, Path(description="The queue's name.", examples=["orders"])]
MessageId = Annotated[str, Path(description="A message's id.")]
_encode = msgspec.json.Encoder().encode


def principal_of(request: Request) -> Principal:
    principal: Principal = request.scope["windlass.principal"]
    return principal


def no_other_parameters(request: Request) -> None:
    """Refuse a parameter that the route does not have: a misspelt one must not be passed over.

    And what is no UTF-8: FastAPI would make another text of it.
    """
    query: bytes = request.scope["query_string"]
    if b"%" in query:
        try:
            unquote_to_bytes(query).decode()
        except UnicodeDecodeError:
            raise Invalid(
                "The parameters in the URL have to be percent-encoded UTF-8.", field="query"
            ) from None
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            takes = f"use {', '.join(sorted(known))}" if known else "this route takes none"
            raise Invalid(f"There is no parameter {name[:50]!r}: {takes}.", field=name[:50])


Caller = Annotated[Principal, Depends(principal_of)]
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text, "content": {"application/problem+json": {}}}
    for status, text in (
        (400, "Broken JSON"),
        (401, "No valid API key"),
        (403, "Not allowed"),
        (404, "Not there"),
        (408, "The body did not arrive in time"),
        (409, "The state of things forbids it"),
        (410, "Over, and no record is kept"),
        (413, "Too large"),
        (422, "A value is wrong"),
        (429, "A limit is reached"),
        (503, "The store cannot do it now"),
    )
}
"""What any route may answer besides success."""


def only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in (400, 401, 403, 422, 503, *statuses)}


def router(queues: Queues) -> APIRouter:
    """The routes, bound to one service."""
    api = APIRouter(tags=["queues"], dependencies=[Depends(no_other_parameters)])
    store = queues.store

    @api.post(
        "/queues",
        status_code=201,
        responses={200: {"model": Queue, "description": "It exists."}, **only(409)},
    )
    async def create_queue(body: NewQueue, caller: Caller, response: Response) -> Queue:
        """Create a queue. One that exists is left as it is; only settings named here are compared."""
        caller.demand(ADMIN, body.name)
        info, created = await queues.create(body.name, body.named())
        response.status_code = 201 if created else 200
        return queue_of(info)

    @api.get("/queues", responses=only())
    async def list_queues(
        caller: Caller,
        prefix: Annotated[str, Query(max_length=128)] = "",
        after: Annotated[str, Query(max_length=128)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> QueuePage:
        """Queues by name, a page at a time: those that this caller may administer."""
        found: list[Queue] = []
        while True:
            page = await store.queues(prefix, after, limit + 1)
            for info in page:
                after = info.name
                if caller.may(ADMIN, info.name) or caller.may(RECEIVE, info.name):
                    if len(found) == limit:  # one more than the page holds: there is a next
                        return QueuePage(queues=found, next=found[-1].name)
                    found.append(queue_of(info))
            if len(page) <= limit:
                return QueuePage(queues=found, next=None)
            await asyncio.sleep(0)

    @api.get("/queues/{name}", responses=only(404))
    async def show_queue(name: QueueName, caller: Caller) -> QueueDetail:
        """A queue's settings and counts."""
        caller.demand(ADMIN, name)
        return await _detail(name)

    async def _detail(name: str) -> QueueDetail:
        return detail_of(await store.queue(name), await store.oldest(name), queues.clock.now())

    @api.patch("/queues/{name}", responses=only(404))
    async def update_queue(name: QueueName, body: QueueSettingsBody, caller: Caller) -> QueueDetail:
        """Change the settings named."""
        caller.demand(ADMIN, name)
        await queues.update(name, body.named())
        return await _detail(name)

    @api.delete("/queues/{name}", status_code=204, responses=only(404, 409))
    async def delete_queue(name: QueueName, caller: Caller) -> Response:
        """Delete a queue and all in it."""
        caller.demand(ADMIN, name)
        await queues.delete(name)
        return Response(status_code=204)

    @api.post("/queues/{name}/purge", responses=only(404))
    async def purge_queue(name: QueueName, caller: Caller) -> Purged:
        """End every message, leased ones too; their receipts become 410."""
        caller.demand(ADMIN, name)
        return Purged(purged=await queues.purge(name))

    @api.post("/queues/{name}/pause", responses=only(404))
    async def pause_queue(name: QueueName, caller: Caller) -> QueueDetail:
        """Receives answer as if the queue were empty; sends go on."""
        caller.demand(ADMIN, name)
        await queues.update(name, {}, paused=True)
        return await _detail(name)

    @api.post("/queues/{name}/resume", responses=only(404))
    async def resume_queue(name: QueueName, caller: Caller) -> QueueDetail:
        """Hand messages out again."""
        caller.demand(ADMIN, name)
        await queues.update(name, {}, paused=False)
        return await _detail(name)

    @api.post("/queues/{name}/redrive", responses=only(404))
    async def redrive_queue(name: QueueName, caller: Caller, body: RedriveBody | None = None) -> Redriven:
        """Give dead messages a new start at the end of their queue: same id, deliveries 0."""
        caller.demand(ADMIN, name)
        check_own(name)
        moved, done = await store.redrive(name, body.max if body else 10_000)
        return Redriven(redriven=moved, done=done)

    @api.get("/queues/{name}/peek", responses=only(404) | {200: _described("Messages, not taken.", _PEEKED)})
    async def peek_queue(
        name: QueueName,
        caller: Caller,
        most: Annotated[int, Query(alias="max", ge=1, le=1000)] = 10,
        state: Literal["ready", "delayed", "leased", "blocked", "dead"] = "ready",
    ) -> Response:
        """Look at messages in order without taking them."""
        caller.demand(RECEIVE, name)
        messages = await store.peek(name, most, State[state.upper()])
        texts = [render(message, queues.ids.message(message.queue, message.number)) for message in messages]
        return Response(b'{"messages":[%b]}' % b",".join(texts), media_type="application/json")

    @api.get(
        "/queues/{name}/messages/{message_id}",
        responses=only(404, 410) | {200: _described("The message's life.", _LIFE)},
    )
    async def show_message(
        name: QueueName,
        message_id: MessageId,
        request: Request,
        caller: Caller,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT, allow_inf_nan=False)] = 0,
    ) -> Response:
        """What became of a message; with `wait`, once it has ended."""
        caller.demand(RECEIVE, name)
        number = _number(name, message_id)
        client = AsgiClient(request.receive)
        try:
            life = await queues.life(number, wait, client.gone() if wait else None)
        finally:
            client.forget()
        home = store.queue_number(name)
        if life.in_queue != name and life.message.queue != home:
            raise MessageNotFound(f"This message is in queue {life.in_queue!r}.")
        return Response(_life(life, message_id.encode()), media_type="application/json")

    @api.delete("/queues/{name}/messages/{message_id}", status_code=204, responses=only(404, 409, 410))
    async def cancel_message(name: QueueName, message_id: MessageId, caller: Caller) -> Response:
        """End a message that is not leased."""
        caller.demand(RECEIVE, name)
        check_own(name)
        await store.cancel(name, _number(name, message_id))
        return Response(status_code=204)

    def _number(name: str, message_id: str) -> int:
        """A message's number. Raises QueueNotFound; MessageNotFound for an id never issued."""
        home = store.queue_number(name)
        parsed = queues.ids.parse_message(message_id)
        if parsed is None:
            raise MessageNotFound
        if parsed[0] != home and not store.shared and not store.has_queue_number(parsed[0]):
            raise MessageGone
        return parsed[1]

    return api


def _life(life: Life, one: bytes) -> bytes:
    message = life.message
    parts = [
        render(message, one)[:-1],
        b'"queue":%b,"state":"%b","life":%b'
        % (_encode(life.in_queue), life.state.encode(), _encode(life.events)),
    ]
    if life.outcome is not None:
        parts.append(b'"outcome":%b' % life.outcome)
    if life.ended_at is not None:
        parts.append(b'"ended_at":"%b"' % rfc3339(life.ended_at))
    return b",".join(parts) + b"}"


_MESSAGE_PROPERTIES: dict[str, Any] = {
    "id": {"type": "string"},
    "content": {"description": "Any JSON, byte for byte as it was sent."},
    "enqueued_at": {"type": "string", "format": "date-time"},
    "deliveries": {"type": "integer"},
    "priority": {"type": "integer"},
    "group": {"type": ["string", "null"]},
    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
}
MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": list(_MESSAGE_PROPERTIES),
    "properties": _MESSAGE_PROPERTIES
    | {
        "receipt": {"type": "string", "description": "With a lease: what acknowledges this delivery."},
        "lease_until": {"type": "string", "format": "date-time"},
    },
}
_PEEKED: dict[str, Any] = {
    "type": "object",
    "required": ["messages"],
    "properties": {"messages": {"type": "array", "items": MESSAGE}},
}
_LIFE: dict[str, Any] = {
    "type": "object",
    "required": [*(name for name in _MESSAGE_PROPERTIES if name != "content"), "queue", "state", "life"],
    "properties": _MESSAGE_PROPERTIES
    | {
        "queue": {"type": "string"},
        "state": {
            "enum": [
                *(state.name.lower() for state in State),
                "acknowledged",
                "received",
                "cancelled",
                "expired",
            ]
        },
        "life": {"type": "array", "items": {"type": "object", "required": ["event"]}},
        "outcome": {"description": "What the acknowledgement said."},
        "ended_at": {"type": "string", "format": "date-time"},
    },
}


def _described(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
