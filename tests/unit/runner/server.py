"""The server's side of the runner protocol, kept in memory, with faults on demand.

In a unit test it answers through `Server.transport`; for real processes `Served` puts it on a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import threading
import zipfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx

SECRET = "registration-secret"

DROP = "drop"
"""Fault: end the connection instead of doing anything."""
LOSE = "lose"
"""Fault: do it, and end the connection instead of answering."""
HANG = "hang"
"""Fault: take the request and never answer."""


class Held:
    """Fault: answer when the test says so; with `then`, a status and a body, without doing anything."""

    def __init__(self, then: tuple[int, bytes] | None = None) -> None:
        self.then = then
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()

    async def wait(self) -> None:
        while not self._released.is_set():  # noqa: ASYNC110 - by a thread that has no part in this loop
            await asyncio.sleep(0.01)


Fault = str | int | tuple[int, bytes] | Held
"""DROP, LOSE, HANG, Held, or a status without doing anything, perhaps with a body."""

Reply = tuple[int, bytes]


@dataclass
class Request:
    """One request as it came; `at`: the time of the event loop."""

    route: str
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def job_id(self) -> str:
        return self.path.split("/")[4]


@dataclass
class Server:
    """What a server of the contract does; jobs go round as they would there, leases never run out."""

    heartbeat: float = 15.0
    poll: float = 3.0
    limit: int = 8
    features: tuple[str, ...] = ()
    """Those that it has."""
    url: str = "http://windlass.test"
    ready: deque[dict[str, Any]] = field(default_factory=deque)
    leased: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """By job id: the runner's id and the job."""
    claims: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    aborts: list[tuple[str, str]] = field(default_factory=list)
    """(job id, reason)"""
    tokens: dict[str, str] = field(default_factory=dict)
    """By token: the runner's id."""
    names: list[str] = field(default_factory=list)
    control: dict[str, list[str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """What GET answers besides, by path."""
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    """Seconds that an answer takes, by route."""
    again_on_abort: bool = False
    """Whether a job that is handed back is ready once more."""

    # --- for tests ------------------------------------------------------------------------------

    def fail(self, route: str, *faults: Fault) -> None:
        """The next requests of a route end so, one after the other."""
        self.faults.setdefault(route, deque()).extend(faults)

    def asked(self, route: str) -> list[Request]:
        return [request for request in self.requests if request.route == route]

    def add(self, job_id: str, **fields: Any) -> dict[str, Any]:
        """A job that any runner may have; without `problem_id` it has neither source nor test data."""
        job: dict[str, Any] = {"job_id": job_id, "submission_id": f"s-{job_id}"} | fields
        if "problem_id" in fields:
            self.files[f"/code/{job_id}"] = zipped({"main.py": b"print(1)"})
            job = {
                "language": 2, "checker": "", "code_url": f"{self.url}/code/{job_id}?signature=x",
                "tasks": [{"task_id": 1, "case_count": 1, "memory_limit": 65536, "time_limit": 1000}],
            } | job  # fmt: skip
        self.ready.append(job)
        return job

    def problem(self, problem_id: int, files: Mapping[str, bytes], checksum: str | None = None) -> str:
        """Put up the test data of a problem; returns its checksum."""
        return self.put_up(problem_id, zipped(files), checksum)

    def put_up(self, problem_id: int, data: bytes, checksum: str | None = None) -> str:
        """The same, packed."""
        checksum = checksum or hashlib.sha256(data).hexdigest()
        self.files[f"/problems/{problem_id}/testdata"] = data
        self.files[f"/problems/{problem_id}/checksum"] = json.dumps({"data": {"checksum": checksum}}).encode()
        return checksum

    @property
    def transport(self) -> httpx.MockTransport:
        async def answer(request: httpx.Request) -> httpx.Response:
            body = await request.aread()
            url = f"{request.url.raw_path.decode()}"
            reply = await self.answer(request.method, url, dict(request.headers), body)
            if reply is None:
                raise httpx.ReadError("the connection was dropped", request=request)
            return httpx.Response(reply[0], stream=httpx.ByteStream(reply[1]))

        return httpx.MockTransport(answer)

    # --- the contract -----------------------------------------------------------------------------

    async def answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes] | None:
        """The answer to a request; None where the connection ends without one."""
        parts = urlsplit(url)
        request = Request(
            _route(method, parts.path), method, parts.path, dict(parse_qsl(parts.query)), headers, body,
            asyncio.get_running_loop().time(),
        )  # fmt: skip
        self.requests.append(request)
        await asyncio.sleep(self.delays.get(request.route, 0))
        waiting = self.faults.get(request.route)
        fault = waiting.popleft() if waiting else None
        if isinstance(fault, Held):
            await fault.wait()
            fault = fault.then
        if fault == HANG:
            await asyncio.sleep(86_400)
        if fault == DROP:
            return None
        if isinstance(fault, int):
            return fault, b""
        if isinstance(fault, tuple):
            return fault
        reply = await self._do(request)
        return None if fault == LOSE else reply

    async def _do(self, request: Request) -> Reply:
        if request.route == "register":
            return self._register(request)
        if request.route in ("code", "problem", "other"):
            if request.route == "problem" and request.token not in self.tokens:
                return 401, b""
            return (200, self.files[request.path]) if request.path in self.files else (404, b"")
        runner = request.path.split("/")[2]
        if self.tokens.get(request.token) != runner:
            return 401, b""
        if request.route == "heartbeat":
            return (200, json.dumps({"data": self.control}).encode()) if self._has("control") else (204, b"")
        if request.route == "next-job":
            return await self._next_job(request, runner)
        if request.route == "events":
            return 204, b""
        if request.route == "results":
            return await self._results(request, runner)
        holder, job = self.leased.get(request.job_id, ("", {}))
        if request.route == "complete":
            return self._complete(request.job_id, runner, request.json), b""
        if holder != runner:
            return (409 if holder else 404), b""
        del self.leased[request.job_id]
        self.aborts.append((request.job_id, request.json["reason"]))
        if self.again_on_abort:
            self.ready.append(job)
        return 202, b""

    async def _results(self, request: Request, runner: str) -> Reply:
        taken = []
        for each in request.json["results"]:
            status = self._complete(each["job_id"], runner, each["result"])
            taken.append({"job_id": each["job_id"], "status": status})
        jobs: list[Any] = []
        if "max" in request.query:
            status, body = await self._next_job(request, runner)
            jobs = json.loads(body)["data"] if status == 200 else []
        return 200, json.dumps({"data": {"results": taken, "jobs": jobs}}).encode()

    def _complete(self, job_id: str, runner: str, result: Any) -> int:
        holder, _ = self.leased.get(job_id, ("", {}))
        if job_id in self.results:
            return 204
        if holder != runner:
            return 409 if holder else 404
        self.results[job_id] = result
        del self.leased[job_id]
        return 204

    def _register(self, request: Request) -> Reply:
        if request.json["registration_token"] != SECRET:
            return 401, b""
        number = len(self.names) + 1
        self.names.append(request.json["name"])
        self.tokens[f"rk_{number}"] = f"rn_{number}"
        config: dict[str, Any] = {
            "heartbeat_interval_sec": self.heartbeat,
            "poll_interval_sec": self.poll,
            "max_concurrent_jobs": self.limit,
        }
        if self.features:
            config["features"] = [name for name in request.json.get("features", ()) if self._has(name)]
        data = {"runner_id": f"rn_{number}", "token": f"rk_{number}", "config": config}
        return 201, json.dumps({"data": data}).encode()

    async def _next_job(self, request: Request, runner: str) -> Reply:
        claim = request.query.get("claim", "")
        if claim in self.claims:
            return self._given(request, self.claims[claim])
        until = asyncio.get_running_loop().time() + float(request.query.get("wait", 0))
        # Jobs are added from other threads, too, which no asyncio.Event hears of.
        while not self.ready and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if not self.ready:
            return 204, b""
        many = int(request.query.get("max", 1))
        jobs = [self.ready.popleft() for _ in range(min(many, len(self.ready)))]
        self.leased |= {job["job_id"]: (runner, job) for job in jobs}
        if claim:
            self.claims[claim] = jobs
        return self._given(request, jobs)

    def _given(self, request: Request, jobs: list[dict[str, Any]]) -> Reply:
        return 200, json.dumps({"data": jobs if "max" in request.query else jobs[0]}).encode()

    def _has(self, feature: str) -> bool:
        return feature in self.features


def _route(method: str, path: str) -> str:
    match path.split("/")[1:], method:
        case (["runners", "register"], "POST"):
            return "register"
        case (["runners", _, "heartbeat"], "POST"):
            return "heartbeat"
        case (["runners", _, "results"], "POST"):
            return "results"
        case (["runners", _, "next-job"], "GET"):
            return "next-job"
        case (["runners", _, "jobs", _, ("complete" | "abort") as route], "PUT"):
            return route
        case (["runners", _, "jobs", _, "events"], "POST"):
            return "events"
        case (["code", *_], "GET"):
            return "code"
        case (["problems", *_], "GET"):
            return "problem"
    return "other"


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


class Served:
    """A Server on a port of its own, in a thread; use as a context manager."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        server.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._main: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        main = self._main
        assert main is not None
        self._loop.call_soon_threadsafe(main.cancel)
        self._thread.join(60)

    def _run(self) -> None:
        with (
            contextlib.suppress(asyncio.CancelledError),
            asyncio.Runner(loop_factory=lambda: self._loop) as runner,
        ):
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._main = asyncio.current_task()
        server = await asyncio.start_server(self._talk, "127.0.0.1", self._port)
        self._listening.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, url, _ = head[0].split(" ")
                fields = (line.partition(":") for line in head[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in fields}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                gone = asyncio.ensure_future(reader.read(1))
                answering = asyncio.ensure_future(self.server.answer(method, url, headers, body))
                await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                answering.cancel()  # does nothing to one that is done
                await asyncio.wait({gone, answering})
                reply = answering.result() if answering.done() and not answering.cancelled() else None
                if reply is None:
                    break
                status, content = reply
                length = "" if status == 204 else f"Content-Length: {len(content)}\r\n"
                writer.write(f"HTTP/1.1 {status} X\r\n{length}\r\n".encode() + content)
                await writer.drain()
