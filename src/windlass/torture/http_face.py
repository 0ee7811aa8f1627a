"""The storm over Windlass's own HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from windlass.torture.content import token_of
from windlass.torture.face import Face, Queues
from windlass.torture.records import Received
from windlass.torture.wire import Answer, Asked

_STATUSES = {409: "stale", 410: "gone"}


class HttpFace(Face):
    """Plain receives, keys, receipts that say what they did."""

    queues = Queues("torture-leased", "torture-grouped", "torture-ordered", "torture-plain")
    plain = True
    whole_groups = False
    batch = 20
    limits = (None, None, 1, 10, 50)
    waits = (0, 0.5)

    def create(self, queue: str, lease: float) -> Asked:
        return Asked("POST", "/queues", {"name": queue, "lease_seconds": lease, "max_deliveries": 1_000})

    def created(self, answer: Answer) -> bool:
        return answer.status == 201

    def count(self, queue: str) -> Asked:
        return Asked("GET", f"/queues/{queue}")

    def counted(self, answer: Answer) -> Mapping[str, int] | None:
        if answer.status != 200:
            return None
        counts: Any = answer.json()
        return {state: counts[state] for state in ("ready", "delayed", "leased", "dead")}

    def ways(self, _: str) -> Sequence[str]:
        return ("key", "dedup_id", "none")

    def send(self, queue: str, messages: Mapping[str, str], group: str, way: str, *, batch: bool) -> Asked:
        made = []
        for token, content in messages.items():
            message = {"content": content}
            if way == "dedup_id":
                message["dedup_id"] = token
            if group:
                message["group"] = group
            made.append(message)
        headers = {"Idempotency-Key": next(iter(messages))} if way == "key" else {}
        return Asked("POST", f"/queues/{queue}/messages", {"messages": made} if batch else made[0], headers)

    def sent(self, answer: Answer) -> Sequence[str] | None:
        if answer.status not in (200, 201):
            return None
        stored: Any = answer.json()
        return [each["id"] for each in stored.get("messages", [stored])]

    def receive(
        self, queue: str, limit: int | None, lease: float | None, wait: float, *, otherwise: bool
    ) -> Asked:
        wanted = {"lease": lease, "wait": wait or None, "max": limit}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if otherwise:
            return Asked("POST", f"/queues/{queue}/receive", wanted)
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        return Asked("GET", f"/queues/{queue}/messages?{query}")

    def received(self, answer: Answer) -> Sequence[Received] | None:
        if answer.status == 204:
            return []
        if answer.status != 200:
            return None
        body: Any = answer.json()
        return [
            Received(
                token_of(each["content"]), each["id"], each.get("deliveries", 1), each.get("receipt", "")
            )
            for each in body.get("messages", [body])
        ]

    def acknowledge(self, queue: str, receipt: str) -> Asked:
        return Asked("DELETE", f"/queues/{queue}/receipts/{receipt}")

    def acknowledged(self, answer: Answer) -> str | None:
        return "acknowledged" if answer.status == 204 else _STATUSES.get(answer.status)

    def acknowledge_all(self, queue: str, receipts: Sequence[str]) -> Asked:
        return Asked("POST", f"/queues/{queue}/acks", {"acks": [{"receipt": each} for each in receipts]})

    def all_acknowledged(self, answer: Answer) -> Sequence[str] | None:
        if answer.status != 200:
            return None
        body: Any = answer.json()
        return [each["status"] for each in body["results"]]

    def extend(self, queue: str, receipt: str, lease: float) -> Asked:
        return Asked("PATCH", f"/queues/{queue}/receipts/{receipt}", {"lease": lease})

    def extended(self, answer: Answer) -> str | None:
        return "extended" if answer.status in (200, 204) else _STATUSES.get(answer.status)

    def fault(self, answer: Answer) -> str:
        said: Any = answer.json()
        return str(said["code"])
