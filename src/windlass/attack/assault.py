"""An attack on the look-ups of a running server, from outside: many connections, one mix of ids, a time."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from windlass.attack.report import Kind, Report, Sample
from windlass.client import transport
from windlass.client.connection import Connections, suits
from windlass.client.errors import AnswerLost, BadAnswer, NotSent, Unreachable, from_answer

LONGEST_ANSWER = 16 << 20
"""Bytes: a page of a thousand products with long names."""
_PAGE = 1000
_TIMEOUT = 10.0
_LOOK = 0.5
"""Seconds from one look at the server's counts to the next."""
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True)
class Plan:
    """How hard, for how long, and with what."""

    seconds: float
    rate: float
    """Requests a second, at most."""
    connections: int
    mix: Mapping[Kind, int]
    """How many of each kind among so many."""

    @property
    def crafted(self) -> int:
        """How many crafted ids it takes, if none is to be sent twice."""
        share = self.mix.get("crafted", 0) / sum(self.mix.values())
        return round(1.1 * self.seconds * self.rate * share)


class _Answer(msgspec.Struct):
    """A product or a problem document: who knew, or what went wrong."""

    source: str = "nobody"
    detail: str = "?"


class Target:
    """A server, as far as an attack looks at it. Raises what windlass.client raises."""

    def __init__(self, url: str, key: str | None = None, *, connections: int = 16) -> None:
        if not suits(url):
            raise NotSent(f"{url} is behind a proxy, or has a user's name in it: attack a server directly.")
        self.url = url
        self._headers = transport.headers(key)
        self._connections = Connections(url, LONGEST_ANSWER, kept=connections)

    def close(self) -> None:
        self._connections.close()

    async def get(self, path: str) -> tuple[int, bytes]:
        """(status, body), within ten seconds. Raises Unreachable where none comes, tried twice."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                try:
                    return await self._ask(path)
                except AnswerLost:  # the server may have closed a connection that was idle
                    return await self._ask(path)
        except AnswerLost as error:  # nothing was to be done, so nothing may have been done
            raise Unreachable(str(error)) from error
        except TimeoutError:
            raise Unreachable(f"no answer from {self.url} within {_TIMEOUT:.0f} s") from None

    async def _ask(self, path: str) -> tuple[int, bytes]:
        return await self._connections.request("GET", path, self._headers, None)

    async def read(self, path: str) -> Any:
        """The JSON of a 200."""
        status, body = await self.get(path)
        if status != HTTPStatus.OK:
            raise from_answer(status, {}, body)
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadAnswer(f"{self.url}{path} answered something that is not JSON") from None

    async def products(self) -> list[str]:
        """The ids of the first thousand products."""
        page = await self.read(f"/products?limit={_PAGE}")
        try:
            return [product["product_id"] for product in page["products"]]
        except (KeyError, TypeError):
            raise BadAnswer(f"{self.url}/products answered no page of products") from None

    async def counts(self) -> tuple[int, int]:
        """(look-ups, round trips of the database) since the server's start, by its own count."""
        counts = await self.read("/metrics")
        try:
            return counts["requests"], counts["requests"] - counts["database_roundtrips_saved"]
        except (KeyError, TypeError):
            raise BadAnswer(f"{self.url}/metrics counts no look-ups of products") from None


class Assault:
    """One attack. `real` and `crafted` are its ids; missing ones it makes up, a new one each time.

    `progress` is called with the report so far, some times a second.
    """

    def __init__(
        self,
        plan: Plan,
        target: Target,
        real: Sequence[str],
        crafted: Sequence[str],
        progress: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.target = target
        self.report = Report()
        self._progress = progress
        self._random = random.Random()
        self._next: Mapping[Kind, Iterator[str]] = {
            "real": iter(lambda: self._random.choice(real), None),
            "missing": map(f"missing-{secrets.token_hex(4)}-{{}}".format, itertools.count()),
            "crafted": itertools.cycle(crafted),
        }
        self._without_key: set[str] = set()
        self._turns = itertools.count()
        self._began = 0.0

    async def run(self) -> Report:
        """Attack, and look at the server's counts before, during and after."""
        await self._look()
        self._began = asyncio.get_running_loop().time()
        looks = asyncio.create_task(self._look_on())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.plan.connections):
                    group.create_task(self._work())
        except BaseExceptionGroup as failed:  # one is enough to know
            raise failed.exceptions[0] from None
        finally:
            looks.cancel()
            await asyncio.gather(looks, return_exceptions=True)
        if len(samples := self.report.samples) > 1 and self._elapsed() - samples[-1].at < _LOOK / 2:
            samples.pop()  # too short a time for a rate
        await self._look()
        return self.report

    async def _work(self) -> None:
        plan, kinds = self.plan, list(self.plan.mix)
        weights = list(itertools.accumulate(self.plan.mix.values()))
        while True:
            due = next(self._turns) / plan.rate
            if due >= plan.seconds:
                return
            if (early := due - self._elapsed()) > 0:
                await asyncio.sleep(early)
            elif self._elapsed() >= plan.seconds:
                return
            (kind,) = self._random.choices(kinds, cum_weights=weights)
            await self._ask(kind, next(self._next[kind]))

    async def _ask(self, kind: Kind, id_: str) -> None:
        tally = self.report.kinds[kind]
        sent = time.perf_counter()
        status, body = await self.target.get(f"/products/{quote(id_, safe='')}")
        tally.seconds.append(time.perf_counter() - sent)
        if status in _REFUSALS:
            raise from_answer(status, {}, body)
        if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            tally.failures[f"{status}: {_read(body).detail}"] += 1
            return
        source = _read(body).source
        tally.sources[source] += 1
        if kind == "real" and status == HTTPStatus.NOT_FOUND:
            self.report.denied.add(id_)
        if kind == "crafted" and source == "bloom_filter":
            self._without_key.add(id_)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            await self._look()

    async def _look(self) -> None:
        """The first one is at zero, whatever it takes."""
        requests, roundtrips = await self.target.counts()
        self.report.samples.append(
            Sample(
                self._elapsed() if self.report.samples else 0.0, requests, roundtrips, len(self._without_key)
            )
        )
        self._progress(self.report)

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._began


def _read(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Answer()
