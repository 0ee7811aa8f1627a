"""Several servers of one source in one process, on a Redis that a test can stop, empty or set back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fakeredis import FakeRedis, FakeServer

from tests.unit.guard.scripted import ExactFilter, Source, settle
from windlass.guard.guard import Answer, Guard
from windlass.guard.views import Views

Copy = tuple[dict[Any, Any], list[Any]]


class Time:
    """One clock that all servers share; it moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Redis:
    """One Redis, whose process can end and start again with what it holds, nothing, or an old copy."""

    views, log = "{bloom:filter}:views", "{bloom:filter}:log"

    def __init__(self) -> None:
        self.server = FakeServer()
        self.run = 0
        self.clients: list[FakeRedis] = []
        self.own: Any = FakeRedis(server=self.server)
        self.latency: Callable[[], None] = lambda: None

    def client(self) -> FakeRedis:
        redis = self

        class Client(FakeRedis):
            def info(self, *_: Any) -> dict[str, Any]:  # type: ignore[override]
                return {"run_id": f"run{redis.run}"}

            def client_setname(self, *arguments: Any, **options: Any) -> Any:
                redis.latency()
                return super().client_setname(*arguments, **options)

            def pipeline(self, *arguments: Any, **options: Any) -> Any:
                redis.latency()
                return super().pipeline(*arguments, **options)

        client = Client(server=self.server)
        self.clients.append(client)
        return client

    def copy(self) -> Copy:
        return self.own.hgetall(self.views), self.own.xrange(self.log)

    def restart(self, held: Copy | None = None) -> None:
        """Another process; it holds what the last one did, or this."""
        if held is not None:
            self.own.flushall()
            if held[0]:
                self.own.hset(self.views, mapping=held[0])
            for at, fields in held[1]:
                self.own.xadd(self.log, fields, id=at)
        self.run += 1
        for client in self.clients:
            client.connection_pool.disconnect()


class Server:
    """A guard with its views; its rounds are made by hand, and what it does beside them at once."""

    def __init__(
        self, redis: Redis, source: Source, time: Callable[[], float], passing: str = "", **options: Any
    ) -> None:
        self.source = source
        self.filter = ExactFilter((), passing)
        self.guard = Guard(self.filter, source.load, monotonic=time)
        self.catch_up_fails: Exception | None = None
        self.caught_up = 0
        options = {"first": lambda _: True, "beside": lambda work: work()} | options
        self.views = Views(self.guard, redis.client(), self.catch_up, clock=time, **options)
        self.guard.peers = self.views

    def catch_up(self) -> None:
        if self.catch_up_fails is not None:
            raise self.catch_up_fails
        self.caught_up += 1
        for key in self.source.rows:
            self.filter.add(key)

    def rounds(self, number: int = 1) -> None:
        for _ in range(number):
            self.views.round()

    def write(self, key: str, *, held: bool = False) -> Write:
        return Write(self, key, held)

    async def ask(self, key: str) -> Answer[int]:
        return await self.guard.get(key)


class Write:
    """A write on its way: whether it runs, and whether it was answered."""

    def __init__(self, server: Server, key: str, held: bool) -> None:
        self.server, self.key = server, key
        self._runs = self._committed = False
        self.broken: Exception | None = None
        self.go = asyncio.Event()
        if not held:
            self.go.set()
        self.task = asyncio.ensure_future(server.guard.write([key], self._run, adding=True))

    async def _run(self) -> None:
        self._runs = True
        await self.go.wait()
        if self.broken is not None:
            raise self.broken
        self.commit()

    def commit(self) -> None:
        self._committed = True
        self.server.source.rows[self.key] = 1

    def runs(self) -> bool:
        return self._runs

    def committed(self) -> bool:
        return self._committed

    def answered(self) -> bool:
        return self.task.done() and self.task.exception() is None


async def go_on(*servers: Server) -> None:
    """Let everything go on that can: requests, then a round of each server, then requests."""
    await settle()
    for server in servers:
        server.rounds()
        await settle()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)
