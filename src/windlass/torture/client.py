"""What every client of the storm has: a connection opened again after each kill, and a share in the field."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from windlass.torture.face import Face
from windlass.torture.http_face import HttpFace
from windlass.torture.ledger import Ledger
from windlass.torture.wire import Answer, Asked, Connection, Dropped

if TYPE_CHECKING:
    from windlass.torture.process import Server

HASTY = 0.02  # share of the repeatable requests on which the client hangs up early, until it is calm
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


class Field:
    """What all clients share: the server and its face, the ledger, the clock, whether the storm is over."""

    def __init__(
        self, server: Server, ledger: Ledger, tally: Tally, lease: float, face: Face | None = None
    ) -> None:
        self.server = server
        self.ledger = ledger
        self.tally = tally
        self.lease = lease
        self.face = face or HttpFace()
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
            answer = await client.ask(self.face.create(queue, self.lease))
            if not self.face.created(answer):
                client.unearned(answer)
        client.hang_up()

    async def count(self, queues: Sequence[str]) -> None:
        """After the drain the server's own counts must say that nothing is there."""
        client = Client(self, random.Random(0), "")
        for queue in queues:
            answer = await client.ask(self.face.count(queue))
            left = self.face.counted(answer)
            if left is None:
                client.unearned(answer)
            elif any(left.values()):
                self.ledger.failed(queue, f"drained, and the server still counts {left}")
        client.hang_up()


class Client:
    """One connection, opened again after every kill. Whoever made the client hangs up for it in the end."""

    def __init__(self, field: Field, rng: random.Random, queue: str) -> None:
        self.field = field
        self.face = field.face
        self.ledger = field.ledger
        self.rng = rng
        self.queue = queue
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

    async def ask(self, asked: Asked, *, wait: float = 0, repeatable: bool = False) -> Answer:
        """One request on the connection from `connect()`.

        Dropped if the server was killed under it, or if this client hung up itself, as it sometimes does
        when the request may be repeated.
        """
        connection = await self.connect()
        hasty = repeatable and not self.field.calmed and self.rng.random() < HASTY
        patience = self.rng.uniform(0, 0.005) if hasty else PATIENCE + wait
        try:
            async with asyncio.timeout(patience):
                answer = await connection.request(asked)
        except Dropped as dropped:
            self._excuse(str(dropped))
            raise
        except TimeoutError:
            if not hasty:
                self.ledger.failed(self.queue, f"{asked}: no answer within {patience:.0f} s")
            raise Dropped(str(asked)) from None
        self._used = self.field.now()
        return answer

    async def insist(self, asked: Asked) -> Answer:
        """The same request until it is answered; only for what may safely be repeated."""
        while True:
            try:
                return await self.ask(asked, repeatable=True)
            except Dropped:
                continue

    def unearned(self, answer: Answer) -> None:
        """An answer that none of the storm's requests should get."""
        self.ledger.failed(self.queue, f"answered {answer}")

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
