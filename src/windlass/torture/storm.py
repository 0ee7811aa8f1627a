"""The storm: senders and consumers without pause, and a server that is killed under them.

Four queues show four kinds of promise. `leased` is received with leases by many, who acknowledge, give
back, extend, forget and come late. `grouped` is the same with every message in a group. `ordered` has one
sender and one plain receiver, so its order is exact. `plain` is sent to and received from by many at once.
Where the protocol has no plain receives, those of these two acknowledge at once.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from windlass.torture.client import Field
from windlass.torture.consumer import Consumer, PlainConsumer
from windlass.torture.face import Face
from windlass.torture.http_face import HttpFace
from windlass.torture.ledger import Ledger
from windlass.torture.process import Server, ServerEnded
from windlass.torture.query_face import QueryFace
from windlass.torture.records import Violation
from windlass.torture.sender import Sender
from windlass.torture.sqs_face import SqsFace

FACES: Mapping[str, Face] = {"http": HttpFace(), "sqs": SqsFace(), "sqs-query": QueryFace()}
"""By their protocols."""


@dataclass(frozen=True)
class Plan:
    """What the storm is made of; the seed decides every choice that is not the operating system's."""

    seed: int
    kills: int = 20
    seconds: float | None = None  # no more kills after so long
    senders: int = 8
    consumers: int = 12
    lease_seconds: float = 2.0
    protocol: str = "http"  # one of FACES
    starting: float = 0.2  # the share of kills that hit the server again while it starts


@dataclass(frozen=True)
class Progress:
    """How far the storm is."""

    kills: int
    stored: int
    received: int
    acknowledged: int
    phase: str


@dataclass
class Report:
    """What happened, and whether every promise was kept."""

    seed: int
    kills: int = 0
    seconds: float = 0.0
    stored: int = 0  # messages acknowledged by 201
    unanswered_sends: int = 0  # requests cut off by a kill, or by the client's hanging up
    retried_sends: int = 0  # of these, sent again under the same key
    received: int = 0  # messages, plain and leased, each delivery
    acknowledged: int = 0
    unanswered_receives: int = 0  # plain ones, at a kill
    gone: int = 0  # messages they took with them
    ready_seconds: list[float] = field(default_factory=list)  # of each start
    violations: list[Violation] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"passed": self.passed}


class Storm:
    """One storm against one server; `progress` is called after every kill and some times a second."""

    sender: type[Sender] = Sender
    consumer: type[Consumer] = Consumer
    plain_consumer: type[Consumer] = PlainConsumer

    def __init__(
        self, plan: Plan, server: Server, progress: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self.plan = plan
        self.server = server
        self._face = FACES[plan.protocol]
        self.ledger = Ledger(whole_groups=self._face.whole_groups)
        self.report = Report(plan.seed)
        self._progress = progress
        self._rng = random.Random(plan.seed)
        self._field = Field(server, self.ledger, self.report, plan.lease_seconds, self._face)

    async def run(self) -> Report:
        """Storm, drain, judge. The report is whole even when the server does not come up again."""
        began = time.monotonic()
        ticker = asyncio.create_task(self._tick())
        try:
            await self._storm()
        except ServerEnded as ended:
            self.ledger.failed("the server", str(ended))
            self.report.violations = list(self.ledger.violations)
        else:
            self.report.violations = self.ledger.verdict()
            self.report.gone = self.ledger.vanished
        finally:
            ticker.cancel()
            await self.server.kill()
        self.report.seconds = time.monotonic() - began
        return self.report

    async def _storm(self) -> None:
        await self._start()
        await self._field.create(self._face.queues)
        kills = asyncio.create_task(self._kill_again_and_again())
        kills.add_done_callback(lambda _: self._field.calm())
        clients = self._clients()
        tasks = {kills, *(asyncio.create_task(client.run()) for client in clients)}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in clients:
                client.hang_up()
        await self._field.count(self._face.queues)

    def _clients(self) -> list[Sender | Consumer]:
        def rng() -> random.Random:
            return random.Random(self._rng.random())

        # One client is enough where order is exact; the rest take turns.
        leased, grouped, ordered, plain = self._face.queues
        turns = itertools.cycle((leased, plain, grouped, leased))
        queues = [ordered, *itertools.islice(turns, self.plan.senders - 1)]
        clients: list[Sender | Consumer] = [
            self.sender(self._field, rng(), queue, f"s{number}", queue == grouped)
            for number, queue in enumerate(queues)
        ]
        turns = itertools.cycle((leased, plain, grouped, leased))
        for queue in (ordered, *itertools.islice(turns, self.plan.consumers - 1)):
            kind = self.plain_consumer if queue in (ordered, plain) else self.consumer
            clients.append(kind(self._field, rng(), queue))
        return clients

    async def _kill_again_and_again(self) -> None:
        deadline = time.monotonic() + (self.plan.seconds or float("inf"))
        while self.report.kills < self.plan.kills and time.monotonic() < deadline:
            if self.ledger.violations:
                return
            await self.server.die(self._rng)
            self.report.kills += 1
            while self.report.kills < self.plan.kills and self._rng.random() < self.plan.starting:
                await self.server.die_starting(self._rng)
                self.report.kills += 1
            await self._start()

    async def _start(self) -> None:
        self.report.ready_seconds.append(await self.server.start())

    async def _tick(self) -> None:
        while True:
            report = self.report
            phase = "draining" if self._field.calmed else "storming"
            self._progress(Progress(report.kills, report.stored, report.received, report.acknowledged, phase))
            await asyncio.sleep(0.1)
