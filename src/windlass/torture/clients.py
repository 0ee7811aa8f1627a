"""The senders and consumers of the storm: each writes every request and every answer into the ledger."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from windlass.torture.ledger import Delivery, Ledger, Received, Send, Take
from windlass.torture.wire import Answer, Connection, Dropped

if TYPE_CHECKING:
    from windlass.torture.process import Server

HASTY = 0.02  # share of the repeatable requests on which the client hangs up before the answer
WAITING = 1_000  # messages in a queue; senders pause above it, so that the drain is short
GROUPS = 16  # in a queue with groups
PATIENCE = 20.0  # seconds for an answer, beyond what the request itself waits
IDLE = 2.0  # seconds after which a connection is not used again: the server may be closing it


class Tally(Protocol):
    """The counts that clients keep (storm.Report)."""

    stored: int
    unanswered_sends: int
    retried_sends: int
    received: int
    acknowledged: int
    unanswered_receives: int


def content(token: str, size: int) -> str:
    """The message for a token: it says how long it is, so that damage shows."""
    return f"{token}/{size}/" + "x" * size


def token_of(received: object) -> str:
    """The token of a message; a text that matches no token if it is not as it was sent."""
    match = re.fullmatch(r"([\w-]+)/(\d+)/(x*)", received) if isinstance(received, str) else None
    if match is None or len(match[3]) != int(match[2]):
        return f"damaged: {str(received)[:60]!r}"
    return match[1]


class Field:
    """What all clients share: the server, the ledger, the clock, and whether the storm has calmed down."""

    def __init__(self, server: Server, ledger: Ledger, tally: Tally, lease: float) -> None:
        self.server = server
        self.ledger = ledger
        self.tally = tally
        self.lease = lease
        self.calmed: float = 0.0  # when the last kill was over; 0.0: not yet
        self._began = time.monotonic()
        self._busy: dict[str, float] = {}

    def now(self) -> float:
        return time.monotonic() - self._began

    def calm(self) -> None:
        """No more kills: senders finish, consumers drain."""
        self.calmed = self.now()

    def busy(self, queue: str) -> None:
        """A message was there: what is leased from now on may come back."""
        self._busy[queue] = self.now()

    def quiet(self, queue: str) -> bool:
        """Whether nothing can come any more: empty for longer than any lease since the last kill."""
        since = max(self.calmed, self._busy.get(queue, 0.0))
        return bool(self.calmed) and self.now() > since + self.lease * 1.5 + 1.0

    async def create(self, queues: Sequence[str]) -> None:
        client = Client(self, random.Random(0), "")
        for queue in queues:
            settings = {"name": queue, "lease_seconds": self.lease, "max_deliveries": 1_000}
            client.expect(await client.ask("POST", "/queues", settings), 201)
        client.hang_up()

    async def count(self, queues: Sequence[str]) -> None:
        """After the drain the server's own counts must say that nothing is there."""
        client = Client(self, random.Random(0), "")
        for queue in queues:
            answer = await client.ask("GET", f"/queues/{queue}")
            if not client.expect(answer, 200):
                continue
            counts: Any = answer.json()
            left = {state: counts[state] for state in ("ready", "delayed", "leased", "dead")}
            if any(left.values()):
                self.ledger.failed(queue, f"drained, and the server still counts {left}")
        client.hang_up()


class Client:
    """One connection, opened again after every kill."""

    def __init__(self, field: Field, rng: random.Random, queue: str) -> None:
        self.field = field
        self.ledger = field.ledger
        self.rng = rng
        self.queue = queue
        self.path = f"/queues/{queue}"
        self._connection: Connection | None = None
        self._generation = 0
        self._used = 0.0

    async def connect(self) -> Connection:
        """A connection to the server that is up, waiting for it if it is down."""
        server = self.field.server
        connection = self._connection
        fresh = self._generation == server.generation and self.field.now() < self._used + IDLE
        if connection is not None and connection.usable and fresh:
            return connection
        self.hang_up()
        while True:
            await server.up.wait()
            self._generation = server.generation
            try:
                self._connection = await Connection.open(server.host, server.port)
            except OSError as error:
                self._excuse(str(error))
                await asyncio.sleep(0.01)
            else:
                return self._connection

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str = "",
        wait: float = 0,
        repeatable: bool = False,
    ) -> Answer:
        """One request on the connection from `connect()`.

        Dropped if the server was killed under it, or if this client hung up itself, as it sometimes does
        when the request may be repeated.
        """
        connection = await self.connect()
        hasty = repeatable and self.rng.random() < HASTY
        patience = self.rng.uniform(0, 0.005) if hasty else PATIENCE + wait
        try:
            async with asyncio.timeout(patience):
                answer = await connection.request(method, path, body, key=key)
        except Dropped as dropped:
            self._excuse(str(dropped))
            raise
        except TimeoutError:
            if not hasty:
                self.ledger.failed(self.queue, f"{method} {path}: no answer within {patience:.0f} s")
            raise Dropped(path) from None
        self._used = self.field.now()
        return answer

    async def insist(self, method: str, path: str, body: object = None, *, key: str = "") -> Answer:
        """The same request until it is answered; only for what may safely be repeated."""
        while True:
            try:
                return await self.ask(method, path, body, key=key, repeatable=True)
            except Dropped:
                continue

    def expect(self, answer: Answer, *statuses: int) -> bool:
        if answer.status in statuses:
            return True
        self.ledger.failed(self.queue, f"answered {answer}")
        return False

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _excuse(self, what: str) -> None:
        """Connections may break at a kill and at no other time."""
        server = self.field.server
        if server.dying or server.generation != self._generation:
            return
        self.ledger.failed(self.queue, f"a living server dropped a connection: {what}")
        server.check()


class Sender(Client):
    """Sends one after the other: alone and in batches, with and without a key to try again under."""

    def __init__(self, field: Field, rng: random.Random, queue: str, name: str, grouped: bool) -> None:
        super().__init__(field, rng, queue)
        self.grouped = grouped
        self._name = name
        self._sent = 0

    async def run(self) -> None:
        while not self.field.calmed:
            if self.ledger.waiting(self.queue) > WAITING:
                await asyncio.sleep(0.01)
                continue
            await self._send()
        self.hang_up()

    async def _send(self) -> None:
        batch = self.rng.random() < 0.3
        tokens = [self._token() for _ in range(self.rng.randint(2, 20) if batch else 1)]
        messages: list[dict[str, Any]] = [{"content": content(each, self._size())} for each in tokens]
        repeat = self.rng.choice(("key", "dedup_id", "none"))
        if repeat == "dedup_id":
            for token, message in zip(tokens, messages, strict=True):
                message["dedup_id"] = token
        body = {"messages": messages} if batch else messages[0]
        key = tokens[0] if repeat == "key" else ""
        group = f"g{self.rng.randrange(GROUPS)}" if self.grouped else ""
        if group:
            for message in messages:
                message["group"] = group
        send: Send | None = None
        while True:
            await self.connect()
            send = send or self.ledger.send(self.queue, tokens, self.field.now(), group)
            try:
                answer = await self.ask(
                    "POST", f"{self.path}/messages", body, key=key, repeatable=repeat != "none"
                )
            except Dropped:
                self.field.tally.unanswered_sends += 1
                if repeat == "none":
                    self.ledger.given_up(send, self.field.now())
                    return
                self.field.tally.retried_sends += 1
            else:
                self._answered(send, answer)
                return

    def _answered(self, send: Send, answer: Answer) -> None:
        now = self.field.now()
        if 400 <= answer.status < 500:
            self.ledger.refused(send, now)
        if self.expect(answer, 200, 201):
            stored: Any = answer.json()
            ids = [each["id"] for each in stored.get("messages", [stored])]
            self.ledger.stored(send, ids, now)
            self.field.tally.stored += len(ids)

    def _token(self) -> str:
        self._sent += 1
        return f"{self._name}-{self._sent}"

    def _size(self) -> int:
        return 20_000 if self.rng.random() < 0.01 else self.rng.randint(1, 200)


class Consumer(Client):
    """Receives with leases, and then acknowledges, gives back, extends, comes late or forgets."""

    lease: bool = True

    async def run(self) -> None:
        while not self.field.quiet(self.queue):
            deliveries = await self.receive()
            if deliveries:
                self.field.busy(self.queue)
                await self.settle(deliveries)
            else:
                await asyncio.sleep(0.01)
        self.hang_up()

    async def receive(self) -> list[Delivery]:
        limit = self.rng.choice((None, None, 1, 10, 50))
        wait = self.rng.choice((0, 0.5))
        lease = self.field.lease if self.lease else None
        asked = {"lease": lease, "wait": wait or None, "max": limit}
        asked = {name: value for name, value in asked.items() if value is not None}
        await self.connect()
        take = self.ledger.take(self.queue, limit or 1, lease, self.field.now())
        try:
            if self.rng.random() < 0.5:
                query = "&".join(f"{name}={value}" for name, value in asked.items())
                answer = await self.ask(
                    "GET", f"{self.path}/messages?{query}", wait=wait, repeatable=self.lease
                )
            else:
                answer = await self.ask(
                    "POST", f"{self.path}/receive", asked, wait=wait, repeatable=self.lease
                )
        except Dropped:
            self._unanswered(take)
            return []
        return self._answered(take, answer)

    async def settle(self, deliveries: list[Delivery]) -> None:
        """What becomes of the messages of one answer."""
        chance = 0.0 if self.field.calmed else self.rng.random()
        if chance > 0.97:
            return  # forgotten: the leases run out
        if chance > 0.9:
            await self._hold(0.8, 1.2)  # just in time, or too late
        elif chance > 0.5 and any(delivery.number > 1 for delivery in deliveries):
            await self._hold(0.0, 0.5)  # while whoever had it before may still come, too late
        if chance < 0.7 and len(deliveries) > 1:
            await self._acknowledge_all(deliveries)
            return
        for delivery in deliveries:
            fate = 1.0 if self.field.calmed else self.rng.random()
            if fate < 0.05:
                await self._give_back(delivery)
                continue
            if fate < 0.1:
                await self._extend(delivery)
            await self._acknowledge(delivery)
            if fate > 0.95:
                await self._acknowledge(delivery)  # once more: it stays acknowledged

    async def _hold(self, least: float, most: float) -> None:
        """Do nothing for a share of the lease."""
        await asyncio.sleep(self.rng.uniform(least, most) * self.field.lease)

    async def _acknowledge(self, delivery: Delivery) -> None:
        while True:
            self.ledger.acknowledging(delivery)
            try:
                answer = await self.ask("DELETE", f"{self.path}/receipts/{delivery.receipt}", repeatable=True)
            except Dropped:
                continue
            status = {204: "acknowledged", 409: "stale", 410: "gone"}.get(answer.status, str(answer))
            self._acknowledged(delivery, status)
            return

    async def _acknowledge_all(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.ledger.acknowledging(delivery)
        asked = {"acks": [{"receipt": delivery.receipt} for delivery in deliveries]}
        try:
            answer = await self.ask("POST", f"{self.path}/acks", asked, repeatable=True)
        except Dropped:
            await self._acknowledge_all(deliveries)
            return
        if self.expect(answer, 200):
            results: Any = answer.json()
            for delivery, result in zip(deliveries, results["results"], strict=True):
                self._acknowledged(delivery, result["status"])

    def _acknowledged(self, delivery: Delivery, status: str) -> None:
        now = self.field.now()
        match status:
            case "acknowledged":
                self.ledger.acknowledged(delivery, now)
                self.field.tally.acknowledged += 1
            case "gone":
                self.ledger.gone(delivery, now)
            case "stale":
                self.ledger.stale(delivery, now)
            case _:
                self.ledger.failed(self.queue, f"{delivery.token}: acknowledged, and answered {status}")

    async def _give_back(self, delivery: Delivery) -> None:
        self.ledger.giving_back(delivery, self.field.now())
        answer = await self.insist("PATCH", f"{self.path}/receipts/{delivery.receipt}", {"lease": 0})
        self.expect(answer, 204, 409, 410)

    async def _extend(self, delivery: Delivery) -> None:
        await self.connect()
        began = self.field.now()
        try:
            answer = await self.ask(
                "PATCH", f"{self.path}/receipts/{delivery.receipt}", {"lease": self.field.lease}
            )
        except Dropped:
            return
        if self.expect(answer, 200, 409, 410) and answer.status == 200:
            self.ledger.extended(delivery, began, self.field.lease)

    def _unanswered(self, take: Take) -> None:
        self.ledger.unanswered(take, self.field.now())
        if take.lease is None:
            self.field.tally.unanswered_receives += 1

    def _answered(self, take: Take, answer: Answer) -> list[Delivery]:
        now = self.field.now()
        received: list[Received] = []
        if self.expect(answer, 200, 204) and answer.status == 200:
            body: Any = answer.json()
            received = [
                Received(
                    token_of(each["content"]), each["id"], each.get("deliveries", 1), each.get("receipt", "")
                )
                for each in body.get("messages", [body])
            ]
        self.field.tally.received += len(received)
        return self.ledger.answered(take, received, now)


class PlainConsumer(Consumer):
    """Receives without leases: what it is given is gone from the queue."""

    lease = False

    async def settle(self, deliveries: list[Delivery]) -> None:
        """Nothing is left to do."""
