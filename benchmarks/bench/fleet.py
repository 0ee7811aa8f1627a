"""Runners as a server sees them: each with a connection that it keeps, jobs that it holds, and heartbeats.

They speak the runner protocol byte for byte as `windlass runner` does, and do no work. Heartbeats are evenly
spread over the interval; each goes out when it is due, whether or not the server keeps up.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from bench.api import complete
from bench.processes import BenchmarkError
from windlass.client.transport import headers
from windlass.runner import wire
from windlass.runner.link import REQUEST_TIMEOUT

NOTHING_TO_STOP = b'{"data":{"lost":[],"cancelled":[],"superseded":[]}}'
"""What a heartbeat is answered while each job that it names is held."""
ASKING = 64
"""Connections that submit jobs and look at them."""
_AT_ONCE = 200
"""Runners that connect and register at the same time."""
_PATIENCE = 60.0
"""Seconds for whatever is not measured."""
_JOB = b'{"command":{"argv":["true"]}}'


def request(port: int, method: str, path: str, body: bytes | None = None, token: str | None = None) -> bytes:
    """A request with the head that windlass.runner gives it."""
    named = headers("") | ({"content-type": "application/json"} if body is not None else {})
    named |= {"authorization": f"Bearer {token}"} if token else {}
    lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")


class Connection(asyncio.Protocol):
    """One connection that is kept, with one request under way at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._answered: Callable[[int, bytes], None] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(cls, "127.0.0.1", port)
        return made

    @property
    def busy(self) -> bool:
        return self._answered is not None

    def send(self, request: bytes, answered: Callable[[int, bytes], None]) -> None:
        """Send it; `answered` gets status and body, status 0 where the connection was lost."""
        self._answered = answered
        self._transport.write(request)

    async def ask(self, expected: int, request: bytes) -> Any:
        """The answer's JSON; BenchmarkError for any other status than `expected`."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.send(request, lambda status, body: future.set_result((status, body)))
        async with asyncio.timeout(_PATIENCE):
            status, body = await future
        if status != expected:
            raise BenchmarkError(f"{request[:60]!r}: {status} instead of {expected}: {body[:300]!r}")
        return json.loads(body)

    def close(self) -> None:
        self._answered = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if complete(self._received):
            head, _, body = self._received.partition(b"\r\n\r\n")
            self._received = b""
            self._tell(int(head[9:12]), body)

    def connection_lost(self, error: Exception | None) -> None:
        self._tell(0, f"the connection was lost: {error}".encode())

    def _tell(self, status: int, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, body)


class Runner:
    """One registered runner. Its first turn takes its jobs, each further one is a heartbeat."""

    __slots__ = ("asked_at", "connection", "heartbeat", "id", "jobs", "token")

    def __init__(self, connection: Connection, data: dict[str, Any]) -> None:
        self.connection = connection
        self.id: str = data["runner_id"]
        self.token: str = data["token"]
        self.jobs: list[str] = []
        self.heartbeat = b""
        """The request, once it holds its jobs."""
        self.asked_at = 0.0


class Beats:
    """What came of the heartbeats that were due in one window."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """How long each answer took."""
        self.late = 0.0
        """The longest that one went out behind its time, seconds: this process did not keep up."""

    def quantile(self, share: float) -> float:
        """Seconds in which `share` of the answers were there."""
        return statistics.quantiles(self.seconds, n=1000)[round(share * 1000) - 1]


class Fleet:
    """Runners that take turns, evenly spread, until it is closed."""

    def __init__(self, port: int, token: str, jobs_each: int) -> None:
        self._port = port
        self._token = token
        self._jobs_each = jobs_each
        self.runners: list[Runner] = []
        self._waiting_to_begin = 0
        self._interval = 1.0
        self._turn = 0
        self._turning: list[Runner] = []
        self._task: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.beats = Beats()

    async def grow(self, runners: int) -> None:
        """Register runners until there are so many, and submit as many jobs as the new ones are to hold."""
        new = runners - len(self.runners)
        body = wire.registration(self._token, "bench", (), wire.FEATURES)
        for first in range(0, new, _AT_ONCE):
            joined = (self._join(body) for _ in range(min(_AT_ONCE, new - first)))
            self.runners += await asyncio.gather(*joined)
        submit = request(self._port, "POST", "/jobs", _JOB)
        await self._ask_all(202, itertools.repeat(submit, new * self._jobs_each))

    async def _join(self, body: bytes) -> Runner:
        connection = await Connection.open(self._port)
        answer = await connection.ask(201, request(self._port, "POST", "/runners/register", body))
        return Runner(connection, answer["data"])

    async def _ask_all(self, expected: int, requests: Iterable[bytes]) -> list[Any]:
        """The answers to many requests that are not measured, in any order."""
        left = iter(requests)

        async def work() -> list[Any]:
            connection = await Connection.open(self._port)
            found = [await connection.ask(expected, each) for each in left]
            connection.close()
            return found

        return list(itertools.chain(*await asyncio.gather(*(work() for _ in range(ASKING)))))

    def spread(self, interval: float) -> None:
        """From now on all runners there are take turns, each once in `interval` seconds."""
        self._turning, self._interval, self._turn = list(self.runners), interval, 0
        self._waiting_to_begin = sum(not runner.jobs for runner in self._turning)
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._take_turns())

    async def all_begun(self) -> None:
        """Wait until each runner holds its jobs."""
        async with asyncio.timeout(_PATIENCE):
            while self._waiting_to_begin:
                await self.go_on(0.1)

    async def go_on(self, seconds: float) -> Beats:
        """Let heartbeats go on for so long; what came of them. BenchmarkError where one failed."""
        self.beats = beats = Beats()
        await asyncio.wait([self._failure], timeout=seconds)
        if self._failure.done():
            self._failure.result()
        return beats

    async def attempts(self) -> list[int]:
        """How often one job of each runner was tried. BenchmarkError where one is not running."""
        requests = [request(self._port, "GET", f"/jobs/{runner.jobs[0]}") for runner in self.runners]
        found = await self._ask_all(200, requests)
        if stopped := [job for job in found if job["state"] != "running"]:
            raise BenchmarkError(f"{len(stopped)} jobs do not run, {stopped[0]} for one")
        return [job["attempts"] for job in found]

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for runner in self.runners:
            runner.connection.close()

    async def _take_turns(self) -> None:
        due = time.perf_counter()
        for runner in itertools.cycle(self._turning):
            left = due - time.perf_counter()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self.beats.late = max(self.beats.late, -left)
            if self._failure.done():
                return
            self._take_turn(runner)
            due += self._interval / len(self._turning)

    def _take_turn(self, runner: Runner) -> None:
        now = time.perf_counter()
        if runner.connection.busy:  # its turn is left out, and missed in the count
            if now - runner.asked_at >= REQUEST_TIMEOUT:
                self._fail(f"a runner was not answered in {REQUEST_TIMEOUT:g} s")
            return
        runner.asked_at = now
        if not runner.jobs:
            path = f"/runners/{runner.id}/next-job?max={self._jobs_each}&claim={runner.id}"
            take = request(self._port, "GET", path, token=runner.token)
            runner.connection.send(take, lambda status, body: self._taken(runner, status, body))
            return
        beats = self.beats

        def answered(status: int, body: bytes) -> None:
            beats.seconds.append(time.perf_counter() - now)
            if (status, body) != (200, NOTHING_TO_STOP):
                self._fail(f"a heartbeat was answered {status} {body[:300]!r}")

        runner.connection.send(runner.heartbeat, answered)

    def _taken(self, runner: Runner, status: int, body: bytes) -> None:
        jobs: Sequence[dict[str, Any]] = json.loads(body)["data"] if status == 200 else []
        if len(jobs) != self._jobs_each:
            return self._fail(f"a runner asked for {self._jobs_each} jobs: {status} {body[:300]!r}")
        self._waiting_to_begin -= 1
        runner.jobs = [job["job_id"] for job in jobs]
        path, body = f"/runners/{runner.id}/heartbeat", wire.heartbeat(runner.jobs)
        runner.heartbeat = request(self._port, "POST", path, body, runner.token)
        return None

    def _fail(self, why: str) -> None:
        if not self._failure.done():
            self._failure.set_exception(BenchmarkError(why))
