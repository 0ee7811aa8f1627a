"""The shapes of the runner protocol, as this side reads and writes them.

The server is not trusted to be well: whatever does not have its shape is Malformed, which is a failure like
any other and ends nothing. Fields that nobody here knows are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec
from msgspec import Meta

CONTROL = "control"
"""Feature: heartbeats answer which of the jobs named in them are not to be worked on any longer:
200 `{"data": {"lost": [...], "cancelled": [...], "superseded": [...]}}`."""
WAIT = "wait"
"""Feature: next-job takes `claim` and `wait`, so that no job is lost on the way and none waits for a poll."""
EVENTS = "events"
"""Feature: the server takes the progress of jobs: POST .../jobs/{job_id}/events, `{"events": [...]}`, 204."""
BATCH = "batch"
"""Feature: next-job takes `max`, and answers an array of jobs then; and POST .../results takes many results,
`{"results": [{"job_id", "result"}, ...]}`, and gives up to `max` new jobs in exchange: 200
`{"data": {"results": [{"job_id", "status", "detail"}, ...], "jobs": [...]}}`."""
FEATURES = (BATCH, CONTROL, EVENTS, WAIT)
MOST_AT_ONCE = 100
"""Jobs in one request, with BATCH."""

Id = Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[!-~]{1,200}\Z")]
"""An id becomes a part of paths, so it may not be one that a path takes for something else."""
Seconds = Annotated[float, Meta(ge=0, le=86_400)]

Shape = TypeVar("Shape")


class Malformed(Exception):  # noqa: N818 - what happened, said as it is
    """An answer of the server does not have the shape of the contract; str() says where."""


class MalformedJob(Malformed):
    """A job that nobody can work on; `job_id` is there to hand it back with."""

    def __init__(self, job_id: str, what: str) -> None:
        super().__init__(what)
        self.job_id = job_id


class Config(msgspec.Struct, frozen=True):
    """How the server wants its runners to behave."""

    heartbeat_interval_sec: Seconds = 15.0
    poll_interval_sec: Seconds = 3.0
    max_concurrent_jobs: Annotated[int, Meta(ge=1, le=10_000)] = 8
    features: tuple[str, ...] = ()
    """Those of the features asked for that the server has."""


class Registered(msgspec.Struct, frozen=True):
    """What a runner is to its server from now on."""

    runner_id: Id
    token: Annotated[str, Meta(pattern=r"^[!-~]{1,1024}\Z")]
    config: Config = Config()


@dataclass(frozen=True)
class Job:
    """A delivery, as far as the runner itself looks at it; executors look at the rest."""

    job_id: str
    code_url: str | None
    """Where the program's source is; None for jobs that have none."""
    problem_id: int | None
    """Whose test data the job is judged with; None for jobs without."""
    case_counts: Sequence[int]
    """The cases of each of its tasks."""
    payload: Mapping[str, Any]
    """The whole of it, as it came."""


class Control(msgspec.Struct, frozen=True):
    """Jobs to stop at once, by their ids: the lease is gone, somebody cancelled it, a newer one counts."""

    lost: list[str] = []
    cancelled: list[str] = []
    superseded: list[str] = []


class Taken(msgspec.Struct, frozen=True):
    """What the server says to one of several results; `status` as if it had come alone."""

    job_id: str
    status: int
    detail: str = ""


class _Exchanged(msgspec.Struct):
    results: list[Taken]
    jobs: list[dict[str, Any]] = []


class _Data(msgspec.Struct, Generic[Shape]):
    data: Shape


class _Named(msgspec.Struct):
    job_id: Id


class _Task(msgspec.Struct):
    case_count: Annotated[int, Meta(ge=1, le=99)]


class _Job(msgspec.Struct):
    code_url: str | None = None
    problem_id: int | None = None
    tasks: Annotated[list[_Task], Meta(min_length=1, max_length=99)] | None = None


def registered(body: bytes) -> Registered:
    """The answer to register. Raises Malformed."""
    return _data(body, Registered)


def control(body: bytes) -> Control:
    """The answer to a heartbeat, with the feature. Raises Malformed."""
    return _data(body, Control)


def exchanged(body: bytes, job_ids: Sequence[str]) -> tuple[list[Taken], list[Job | MalformedJob]]:
    """The answer to results of these jobs. Raises Malformed where it is not about them, in their order."""
    found = _data(body, _Exchanged)
    if [each.job_id for each in found.results] != list(job_ids):
        raise Malformed("it is not about these jobs")
    return found.results, [_read(payload) for payload in found.jobs]


def jobs(body: bytes) -> list[Job | MalformedJob]:
    """The answer to next-job, one job or an array of them. Raises Malformed where one is not even named."""
    found: Any = _data(body, cast("type[Any]", dict[str, Any] | list[dict[str, Any]]))
    if not found:
        raise Malformed("there is no job in it")
    return [_read(payload) for payload in (found if isinstance(found, list) else [found])]


def _read(payload: dict[str, Any]) -> Job | MalformedJob:
    try:
        named = msgspec.convert(payload, _Named)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from None
    try:
        found = msgspec.convert(payload, _Job)
    except msgspec.ValidationError as error:
        return MalformedJob(named.job_id, str(error))
    if found.problem_id is not None and not found.tasks:
        return MalformedJob(named.job_id, "it names a problem and no tasks")
    counts = [task.case_count for task in found.tasks or ()]
    return Job(named.job_id, found.code_url, found.problem_id, counts, payload)


def checksum(body: bytes) -> str:
    """The answer to /problems/{id}/checksum: `{"data": {"checksum"}}`, the same bare, or the text alone."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = body.decode("latin-1").strip()
    for name in ("data", "checksum"):
        if isinstance(value, dict):
            value = value.get(name, value)
    if not isinstance(value, str) or not 1 <= len(value) <= 256:
        raise Malformed("there is no checksum in it")
    return value


def registration(token: str, name: str, labels: Sequence[str], features: Sequence[str]) -> bytes:
    """The body of register. Without labels and features it is the contract's oldest form."""
    body: dict[str, Any] = {"registration_token": token, "name": name}
    if features:
        body["features"] = features
    if labels:
        body["labels"] = labels
    return msgspec.json.encode(body)


def heartbeat(job_ids: Sequence[str]) -> bytes:
    return msgspec.json.encode({"active_job_ids": job_ids})


def results(brought: Sequence[tuple[str, bytes]]) -> bytes:
    """The body of results: (job id, its result, which is JSON already)."""
    each = [
        b'{"job_id":%b,"result":%b}' % (msgspec.json.encode(job_id), result) for job_id, result in brought
    ]
    return b'{"results":[' + b",".join(each) + b"]}"


def events(encoded: Sequence[bytes]) -> bytes:
    """The body of events, each of which is JSON already."""
    return b'{"events":[' + b",".join(encoded) + b"]}"


def reason(text: str, longest: int = 1000) -> bytes:
    """The body of abort; half of a surrogate pair, which JSON cannot carry, becomes a question mark."""
    clean = text.encode("utf-8", "replace").decode()
    return msgspec.json.encode({"reason": clean if len(clean) <= longest else clean[: longest - 3] + "..."})


def _data(body: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(body, type=_Data[shape]).data  # type: ignore[valid-type]  # made at run time
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
