"""What runners speak: register, next-job, heartbeat, complete, abort, and the source of a job.

next-job, heartbeat, complete and results are hot: they are routes of the lean lane. Runners of any age speak
this, so its shapes are read by hand, and what is beyond the oldest of them is asked for by the runner.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Request, Response

from windlass.dispatch import Control, Delivery, Dispatch
from windlass.dispatch.runners import Runner
from windlass.dispatch.service import MAX_TAKEN
from windlass.errors import (
    BadRequest,
    BrokenJson,
    Invalid,
    RegistrationDenied,
    ResultMalformed,
    RunnerUnknown,
    WindlassError,
)
from windlass.message import MAX_WAIT
from windlass.server.body import check_depth, check_json, check_text, decode
from windlass.server.lane import Answer, Begun, Handler
from windlass.server.lane import Request as HotRequest
from windlass.server.runner_docs import ABORT, CODE, EVENTS, REGISTER

MAX_CLAIM = 128
MAX_JOBS = 1_000
"""Jobs that a heartbeat names at most."""
MAX_EVENTS = 1_000

OpenSource = Callable[[str], Awaitable[bytes]]
"""The archive with the source of a submission."""

_encode = msgspec.json.Encoder().encode


class _Heartbeat(msgspec.Struct):
    active_job_ids: list[Any] | None = None


_decode_heartbeat = msgspec.json.Decoder(_Heartbeat).decode


class _Result(msgspec.Struct):
    job_id: str
    result: msgspec.Raw


class _Results(msgspec.Struct):
    results: Annotated[list[_Result], msgspec.Meta(max_length=MAX_TAKEN)]


_decode_results = msgspec.json.Decoder(_Results)


class RunnerApi:
    """The hot routes."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self.routes: dict[tuple[str, str], Handler] = {
            ("POST", "/runners/{runner_id}/heartbeat"): self.heartbeat,
            ("GET", "/runners/{runner_id}/next-job"): self.next_job,
            ("PUT", "/runners/{runner_id}/jobs/{job_id}/complete"): self.complete,
            ("POST", "/runners/{runner_id}/results"): self.results,
        }
        """(method, path) -> handler."""

    def next_job(self, request: HotRequest) -> Begun:
        runner = runner_of(self._dispatch, request.headers.get(b"authorization", b""), request.queue)
        claim, wait, limit = _claim_wait_and_max(request.query)
        gone = request.client.gone() if wait else None
        deliveries = self._dispatch.claim(runner, claim, wait, request.client, gone, limit or 1)

        def answer(found: Sequence[Delivery]) -> Answer:
            if not found:
                return 204, b""
            jobs = self._wired(request, runner, found)
            return 200, _encode({"data": jobs if limit else jobs[0]})

        return asyncio.ensure_future(deliveries), answer

    def heartbeat(self, request: HotRequest) -> Begun:
        runner = runner_of(self._dispatch, request.headers.get(b"authorization", b""), request.queue)
        controlled = "control" in runner.features

        def answer(control: Control) -> Answer:
            return (200, _encode({"data": control})) if controlled else (204, b"")

        return asyncio.ensure_future(self._dispatch.leases.heartbeat(runner, _named(request.body))), answer

    def complete(self, request: HotRequest) -> Begun:
        runner = runner_of(self._dispatch, request.headers.get(b"authorization", b""), request.queue)
        try:
            check_json(request.body)
        except (BrokenJson, Invalid) as error:  # whatever is wrong with it, to a runner it is no result
            raise ResultMalformed(error.detail, field="tasks") from None
        completed = self._dispatch.results.complete(runner, request.rest, request.body)
        return asyncio.ensure_future(completed), _nothing

    def results(self, request: HotRequest) -> Begun:
        runner = runner_of(self._dispatch, request.headers.get(b"authorization", b""), request.queue)
        check_text(request.body)
        brought = decode(_decode_results, request.body).results
        check_depth(request.body, "body")
        results = [(each.job_id, bytes(each.result)) for each in brought]
        claim, _, limit = _claim_wait_and_max(request.query)

        def answer(found: tuple[list[WindlassError | None], list[Delivery]]) -> Answer:
            refusals, deliveries = found
            taken = [
                {"job_id": job_id, "status": 204}
                if refusal is None
                else {"job_id": job_id, "status": refusal.status, "detail": refusal.detail}
                for (job_id, _), refusal in zip(results, refusals, strict=True)
            ]
            return 200, _encode(
                {"data": {"results": taken, "jobs": self._wired(request, runner, deliveries)}}
            )

        exchanged = self._dispatch.results.exchange(runner, results, claim, limit or 0, request.client)
        return asyncio.ensure_future(exchanged), answer

    def _wired(
        self, request: HotRequest, runner: Runner, deliveries: Sequence[Delivery]
    ) -> list[dict[str, Any]]:
        if not deliveries:
            return []
        origin, links = request.origin, self._dispatch.links
        return [each.job.wire(each.job_id, origin + links.to(runner, each.job_id)) for each in deliveries]


def _nothing(_: None) -> Answer:
    return 204, b""


def is_for_runners(method: str, path: str) -> bool:
    """True for the routes that ask for a runner's token, or a link, and not for an API key."""
    if path.startswith("/runners/"):
        return True
    return method == "GET" and path.startswith("/jobs/") and path.endswith("/code")


def judges_its_body(method: str, path: str) -> bool:
    """True for the routes whose answer to a body that is no proper JSON is their own."""
    return (method == "POST" and path == "/runners/register") or (
        method == "PUT" and path.startswith("/runners/") and path.endswith("/abort")
    )


def runner_of(dispatch: Dispatch, authorization: bytes, runner_id: str | None = None) -> Runner:
    """The runner that asks; with `runner_id`, only if that is who it is. Raises RunnerUnknown."""
    if authorization[:7].lower() != b"bearer ":
        raise RunnerUnknown("Send the runner's token as `Authorization: Bearer rk_...`.")
    runner = dispatch.runners.known(authorization[7:].strip().decode("latin-1"))
    if runner_id is not None and runner.id != runner_id:
        raise RunnerUnknown("This token is another runner's.")
    return runner


def _claim_wait_and_max(query: bytes) -> tuple[str | None, float, int | None]:
    claim, wait, limit = None, 0.0, None
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "claim" and 1 <= len(value) <= MAX_CLAIM and value.isascii() and value.isprintable():
            claim = value
        elif name == "wait":
            try:
                wait = float(value)
            except ValueError:
                wait = -1.0
            if not 0 <= wait <= MAX_WAIT:
                raise Invalid(f"wait must be from 0 to {MAX_WAIT} seconds.", field="wait")
        elif name == "max":
            limit = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0
            if not 1 <= limit <= MAX_TAKEN:
                raise Invalid(f"max is a whole number from 1 to {MAX_TAKEN}.", field="max")
        elif name == "claim":
            raise Invalid(f"claim must be 1 to {MAX_CLAIM} printable ASCII characters.", field="claim")
    return claim, wait, limit


def _named(body: bytes) -> list[Any] | None:
    if not body.strip():
        return None
    try:
        named = _decode_heartbeat(body).active_job_ids
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The heartbeat is malformed: {error}.", field="active_job_ids") from None
    if named is not None and len(named) > MAX_JOBS:
        raise Invalid(f"A heartbeat names at most {MAX_JOBS} jobs.", field="active_job_ids")
    return named


def router(dispatch: Dispatch, open_source: OpenSource) -> APIRouter:
    """The other routes, bound to one dispatch."""
    api = APIRouter(tags=["runners"])

    def caller(request: Request, runner_id: str) -> Runner:
        return runner_of(dispatch, request.headers.get("authorization", "").encode("latin-1"), runner_id)

    @api.post("/runners/register", status_code=201, openapi_extra=REGISTER, response_class=Response)
    async def register_runner(request: Request) -> Response:
        """Register a runner by the server's registration token; its own token is in the answer, this once."""
        text = await request.body()
        try:
            check_json(text)
            body = msgspec.json.decode(text)
        except (BrokenJson, Invalid) as error:  # half of a surrogate pair, say: it is in nobody's token
            raise RegistrationDenied(error.detail) from None
        if not isinstance(body, dict):
            raise RegistrationDenied
        features = body.get("features", [])
        runner, token = await dispatch.runners.register(
            body.get("registration_token"), body.get("name"), body.get("labels", []), features
        )
        timing = dispatch.timing
        config: dict[str, Any] = {
            "heartbeat_interval_sec": _whole(timing.heartbeat),
            "poll_interval_sec": _whole(timing.poll),
            "max_concurrent_jobs": timing.jobs,
        }
        if features:
            config["features"] = sorted(runner.features)
        data = {"runner_id": runner.id, "token": token, "config": config}
        return Response(_encode({"data": data}), 201, media_type="application/json")

    @api.put(
        "/runners/{runner_id}/jobs/{job_id}/abort",
        status_code=202,
        openapi_extra=ABORT,
        response_class=Response,
    )
    async def abort_job(runner_id: str, job_id: str, request: Request) -> Response:
        """Give a job back; it is ready for another runner at once. `drain` and `shutdown` do not count."""
        runner = caller(request, runner_id)
        await dispatch.results.abort(runner, job_id, _reason(await request.body()))
        return Response(status_code=202)

    @api.post("/runners/{runner_id}/jobs/{job_id}/events", status_code=204, openapi_extra=EVENTS)
    async def tell_of_job(runner_id: str, job_id: str, request: Request) -> Response:
        """Tell of a job under way: output, cases that are judged. For people who watch."""
        runner = caller(request, runner_id)
        events = (await _object(request)).get("events")
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            raise BadRequest("events is a list of objects.", field="events")
        if len(events) > MAX_EVENTS:
            raise Invalid(f"At most {MAX_EVENTS} events at a time.", field="events")
        await dispatch.leases.tell(runner, job_id, events)
        return Response(status_code=204)

    @api.get("/jobs/{job_id}/code", openapi_extra=CODE, response_class=Response)
    async def fetch_code(job_id: str, runner: str = "", expires: str = "", signature: str = "") -> Response:
        """The archive with a job's source, by the link of next-job; no header is needed."""
        whose = await dispatch.links.read(job_id, runner, expires, signature)
        job = await dispatch.leases.confirm(whose, job_id)
        return Response(await open_source(job.owner), media_type="application/zip")

    return api


def _reason(body: bytes) -> str:
    """Why a job comes back. What is no character in it is replaced: nobody keeps a job for such a reason."""
    try:
        found = json.loads(body.decode("utf-8", "replace"), strict=False) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BrokenJson(f"The body is not JSON: {error}.") from None
    reason = found.get("reason", "") if isinstance(found, dict) else None
    if not isinstance(reason, str):
        raise BadRequest("The body is an object with a text, reason.", field="reason")
    return reason.encode("utf-8", "replace").decode()


async def _object(request: Request) -> dict[str, Any]:
    body = await request.body()
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenJson(f"The body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise BadRequest("The body must be a JSON object.")
    return found


def _whole(seconds: float) -> float:
    """Older runners read whole numbers only, where they are whole."""
    return int(seconds) if seconds == int(seconds) else seconds
