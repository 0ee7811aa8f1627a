"""The consumers of the storm: each writes every delivery and what became of it into the ledger."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from windlass.torture.client import Client, Field
from windlass.torture.records import Delivery, Take
from windlass.torture.wire import Answer, Dropped


class Consumer(Client):
    """Receives with leases, and then acknowledges, gives back, extends, comes late or forgets."""

    lease: bool = True

    async def run(self) -> None:
        while not self.field.quiet(self.queue):
            deliveries = await self.receive()
            if deliveries:
                self.field.busy(self.queue)
                await self.settle(deliveries)
                self.field.busy(self.queue)  # what took longer than its lease comes back
            else:
                await asyncio.sleep(0.01)

    async def receive(self) -> list[Delivery]:
        limit = self.rng.choice(self.face.limits)
        wait = self.rng.choice(self.face.waits)
        lease = self.field.lease if self.lease else None
        asked = self.face.receive(self.queue, limit, lease, wait, otherwise=self.rng.random() < 0.5)
        await self.connect()
        take = self.ledger.take(self.queue, limit or 1, lease, self.field.now())
        try:
            answer = await self.ask(asked, wait=wait, repeatable=self.lease)
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
        asked = self.face.acknowledge(self.queue, delivery.receipt)
        while True:
            self.ledger.acknowledging(delivery)
            try:
                answer = await self.ask(asked, repeatable=True)
            except Dropped:
                continue
            self._acknowledged(delivery, self.face.acknowledged(answer) or str(answer))
            return

    async def _acknowledge_all(self, deliveries: Sequence[Delivery]) -> None:
        asked = self.face.acknowledge_all(self.queue, [delivery.receipt for delivery in deliveries])
        while True:
            for delivery in deliveries:
                self.ledger.acknowledging(delivery)
            try:
                answer = await self.ask(asked, repeatable=True)
            except Dropped:
                continue
            break
        statuses = self.face.all_acknowledged(answer)
        if statuses is None:
            self.unearned(answer)
            return
        for delivery, status in zip(deliveries, statuses, strict=True):
            self._acknowledged(delivery, status)

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
            case "deleted":
                self.ledger.deleted(delivery, now)
                self.field.tally.acknowledged += 1
            case _:
                self.ledger.failed(self.queue, f"{delivery.token}: acknowledged, and answered {status}")

    async def _give_back(self, delivery: Delivery) -> None:
        self.ledger.giving_back(delivery, self.field.now())
        answer = await self.insist(self.face.extend(self.queue, delivery.receipt, 0))
        self._extended(delivery, answer)

    async def _extend(self, delivery: Delivery) -> None:
        await self.connect()
        began = self.field.now()
        try:
            answer = await self.ask(self.face.extend(self.queue, delivery.receipt, self.field.lease))
        except Dropped:
            return
        if self._extended(delivery, answer):
            self.ledger.extended(delivery, began, self.field.lease)

    def _extended(self, delivery: Delivery, answer: Answer) -> bool:
        """Whether a change of a lease was made; the ledger is told if not."""
        match self.face.extended(answer):
            case "extended":
                return True
            case "stale":
                self.ledger.not_held(delivery, self.field.now())
            case "gone":
                self.ledger.not_there(delivery)
            case _:
                self.unearned(answer)
        return False

    def _unanswered(self, take: Take) -> None:
        self.ledger.unanswered(take, self.field.now())
        if take.lease is None:
            self.field.tally.unanswered_receives += 1

    def _answered(self, take: Take, answer: Answer) -> list[Delivery]:
        now = self.field.now()
        received = self.face.received(answer)
        if received is None:
            self.unearned(answer)
            received = []
        self.field.tally.received += len(received)
        return self.ledger.answered(take, received, now)


class PlainConsumer(Consumer):
    """Receives without leases: what it is given is gone from the queue.

    Where there is no such thing, it acknowledges whatever it gets at once.
    """

    def __init__(self, field: Field, rng: random.Random, queue: str) -> None:
        super().__init__(field, rng, queue)
        self.lease = not self.face.plain

    async def settle(self, deliveries: list[Delivery]) -> None:
        if self.lease:
            await self._acknowledge_all(deliveries)
