"""Several servers of one store under the load of `windlass torture`, while something breaks that is not they.

Its clients but for one thing: while something is broken, 503 with Retry-After is no answer, whatever was
done, and the client asks again where it may. The ledger judges the rest.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.harness import ServerProcess
from windlass.torture import Ledger, Plan, Server, Storm
from windlass.torture.client import Client
from windlass.torture.consumer import Consumer, PlainConsumer
from windlass.torture.records import Send, Take
from windlass.torture.sender import Sender
from windlass.torture.wire import Answer, Asked, Connection, Dropped

WITHIN = 90.0
"""Seconds in which service must return by itself."""
LATE = 60.0
"""Seconds for which a command may lie before a Redis that stands still, and be done after all."""
LEASE = 2.0
PROBES = (
    Asked("POST", "/queues", {"name": "probe"}),
    Asked("POST", "/queues/probe/messages", {"content": "well?"}),
    Asked("POST", "/queues/probe/receive", {"wait": 1}),
)


class Fleet(Server):
    """Servers of one store, which a client of the storm takes for one: it connects to any that lives.

    `environments` are those of the servers, one each.
    """

    def __init__(self, folder: Path, *arguments: str, environments: list[Mapping[str, str]]) -> None:
        self.servers = [
            ServerProcess(folder / f"server-{each}", *arguments, environment=environment)
            for each, environment in enumerate(environments)
        ]
        self.excused: Counter[str] = Counter()
        """Code of a 503 -> how often it came."""
        self._ready: list[ServerProcess] = []
        self._chance = random.Random(0)
        super().__init__(folder, folder)

    @property
    def port(self) -> int:
        """Of a server that is ready."""
        return self._chance.choice(self._ready or self.servers).port

    @port.setter
    def port(self, _: int) -> None:
        """Every server has its own, from the start."""

    @property
    def running(self) -> bool:
        return any(each.running for each in self.servers)

    async def start(self) -> float:
        began = time.monotonic()
        wanted = self.servers if self.generation else self.servers[:1]  # one makes the queues
        await asyncio.gather(*(asyncio.to_thread(each.start) for each in wanted if not each.running))
        self._ready = wanted
        self.generation += 1
        self.dying = False
        self.up.set()
        return time.monotonic() - began

    async def kill_one(self, server: ServerProcess) -> None:
        """Kill one of several."""
        self.dying = True
        self._ready = [each for each in self._ready if each is not server]
        await asyncio.to_thread(server.kill)

    async def kill(self) -> None:
        self.dying = True
        self.up.clear()
        for server in self.servers:
            if server.process is not None:
                await asyncio.to_thread(server.kill)

    def last_words(self) -> str:
        return "\n".join(f"{each.url}: {each.log[-2000:]}" for each in self.servers)


class LateLedger(Ledger):
    """Knows that what was not answered may still be done: a server that stands still has it before itself."""

    def given_up(self, send: Send, now: float) -> None:
        """It was never answered, so it may be anywhere."""

    def unanswered(self, take: Take, now: float) -> None:
        super().unanswered(take, now + LATE)


class _Patient(Client):
    """Takes a 503 for no answer."""

    async def ask(self, asked: Asked, *, wait: float = 0, repeatable: bool = False) -> Answer:
        answer = await super().ask(asked, wait=wait, repeatable=repeatable)
        fleet = self.field.server
        if answer.status == 503 and not self.field.calmed and isinstance(fleet, Fleet):
            fleet.excused[self.face.fault(answer)] += 1
            if not int(answer.headers.get("retry-after", 0)) > 0:
                self.ledger.failed(self.queue, f"{asked}: {answer}, without Retry-After")
            await asyncio.sleep(self.rng.uniform(0.01, 0.1))
            raise Dropped(str(answer))
        return answer


class _Sender(_Patient, Sender):
    pass


class _Consumer(_Patient, Consumer):
    pass


class _PlainConsumer(_Patient, PlainConsumer):
    pass


class FaultStorm(Storm):
    """Load on a fleet, and `rounds` of a harm: each begins at some moment, and ends when service is back."""

    sender, consumer, plain_consumer = _Sender, _Consumer, _PlainConsumer

    def __init__(
        self,
        fleet: Fleet,
        harm: Callable[[FaultStorm], Awaitable[None]],
        rounds: int,
        seed: int,
        protocol: str,
    ) -> None:
        plan = Plan(seed=seed, kills=rounds, senders=6, consumers=9, lease_seconds=LEASE, protocol=protocol)
        super().__init__(plan, fleet)
        self.fleet = fleet
        self.rng = random.Random(seed)
        self.ledger = self._field.ledger = LateLedger(whole_groups=self._face.whole_groups)
        self._harm = harm

    def told(self, code: str) -> int:
        """How often clients were told of a fault by this code; SQS has one for all of them."""
        return self.fleet.excused[code if self.plan.protocol == "http" else "ServiceUnavailable"]

    async def more(self, amount: int) -> None:
        """Until so many more messages are stored."""
        wanted = self.report.stored + amount
        await self._until(lambda: self.report.stored >= wanted, "messages go in")

    async def felt(self, amount: int = 1) -> None:
        """Until so many more requests were answered with 503."""
        wanted = self.fleet.excused.total() + amount
        await self._until(
            lambda: self.fleet.excused.total() >= wanted, "clients are told that something is broken"
        )

    async def felt_or_more(self, amount: int) -> None:
        """Until a request was answered with 503, or so many more messages are stored."""
        felt, stored = self.fleet.excused.total(), self.report.stored + amount
        await self._until(
            lambda: self.fleet.excused.total() > felt or self.report.stored >= stored, "requests are answered"
        )

    async def _kill_again_and_again(self) -> None:
        await self.fleet.start()
        while self.report.kills < self.plan.kills and not self.ledger.violations:
            await self.more(self.rng.randint(50, 300))
            await self._harm(self)
            self.report.kills += 1
            await asyncio.gather(*map(self._served, self.fleet.servers))

    async def _served(self, server: ServerProcess) -> None:
        """Until a server takes and gives again, with nobody's help."""

        async def well() -> bool:
            try:
                connection = await Connection.open("127.0.0.1", server.port)
                answers = [await connection.request(each) for each in PROBES]
            except (OSError, Dropped):
                return False
            connection.close()
            return all(answer.status < 300 for answer in answers)

        deadline = time.monotonic() + WITHIN
        while not await well():
            if time.monotonic() > deadline:
                self.ledger.failed(server.url, f"service is not back: {server.log[-2000:]}")
                return
            await asyncio.sleep(0.05)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WITHIN
        while not condition() and not self.ledger.violations:
            if time.monotonic() > deadline:
                self.ledger.failed("the storm", f"within {WITHIN:.0f} s it did not come to pass that {what}")
            await asyncio.sleep(0.01)


def storm(
    fleet: Fleet, harm: Callable[[FaultStorm], Awaitable[None]], rounds: int, protocol: str = "http"
) -> FaultStorm:
    """A storm with a printed seed, in which every promise was kept. AssertionError with what was not."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    made = FaultStorm(fleet, harm, rounds, seed, protocol)
    report = asyncio.run(made.run())
    told = ", ".join(f"{number} {code}" for code, number in sorted(fleet.excused.items())) or "none"
    print(
        f"{report.kills} rounds, {report.seconds:.0f} s, {report.stored} stored, {report.received} received,"
        f" {report.acknowledged} acknowledged; 503: {told}"
    )
    assert not report.violations, "\n".join(map(str, report.violations))
    assert report.kills == rounds
    assert report.stored > 50 * rounds
    assert report.acknowledged > 0
    return made
