"""The consumers of the storm: each writes every delivery and what became of it into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from windlass.torture.client import Client
from windlass.torture.content import token_of
from windlass.torture.ledger import Delivery, Received, Take
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
        asked = {"acks": [{"receipt": delivery.receipt} for delivery in deliveries]}
        while True:
            for delivery in deliveries:
                self.ledger.acknowledging(delivery)
            try:
                answer = await self.ask("POST", f"{self.path}/acks", asked, repeatable=True)
            except Dropped:
                continue
            break
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
