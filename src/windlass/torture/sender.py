"""The senders of the storm: each writes every request and every answer into the ledger."""

from __future__ import annotations

import asyncio
import random

from windlass.torture.client import Client, Field
from windlass.torture.content import content
from windlass.torture.records import Send
from windlass.torture.wire import Answer, Dropped

GROUPS = 16  # in a queue with groups
WAITING = 1_000  # messages in a queue; senders pause above it, so that the drain is short


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

    async def _send(self) -> None:
        batch = self.rng.random() < 0.3
        tokens = [self._token() for _ in range(self.rng.randint(2, self.face.batch) if batch else 1)]
        messages = {each: content(each, self._size()) for each in tokens}
        way = self.rng.choice(self.face.ways(self.queue))
        group = f"g{self.rng.randrange(GROUPS)}" if self.grouped else ""
        asked = self.face.send(self.queue, messages, group, way, batch=batch)
        send: Send | None = None
        while True:
            await self.connect()
            send = send or self.ledger.send(self.queue, tokens, self.field.now(), group)
            try:
                answer = await self.ask(asked, repeatable=way != "none")
            except Dropped:
                self.field.tally.unanswered_sends += 1
                if way == "none":
                    self.ledger.given_up(send, self.field.now())
                    return
                self.field.tally.retried_sends += 1
            else:
                await self._answered(send, answer)
                return

    async def _answered(self, send: Send, answer: Answer) -> None:
        now = self.field.now()
        if 400 <= answer.status < 500:
            self.ledger.refused(send, now)
        ids = self.face.sent(answer)
        if ids is not None:
            self.ledger.stored(send, ids, now)
            self.field.tally.stored += len(ids)
        else:
            self.unearned(answer)
            await asyncio.sleep(0.05)  # the server is in trouble, and a flood is no better evidence

    def _token(self) -> str:
        self._sent += 1
        return f"{self._name}-{self._sent}"

    def _size(self) -> int:
        return 20_000 if self.rng.random() < 0.01 else self.rng.randint(1, 200)
