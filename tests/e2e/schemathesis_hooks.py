"""What schemathesis is told: not to wait long, and, where its data is right, to use ids that exist."""

from __future__ import annotations

from typing import Any

import httpx
import schemathesis

_WAIT = 0.01
_PLAIN = {
    "lease_seconds": 30,
    "max_deliveries": None,
    "dead_letter": None,
    "max_length": None,
    "max_message_bytes": 1024,
    "retention_seconds": None,
}


@schemathesis.hook
def before_call(_context: Any, case: Any, **_: Any) -> None:
    for place in (case.query, case.body):
        if isinstance(place, dict) and _waits(place.get("wait")):
            place["wait"] = _WAIT
    meta = case.meta
    if case.path_parameters and meta is not None and meta.generation.mode.is_positive:
        known = prepare(case.operation.base_url.rstrip("/"))
        case.path_parameters = {name: known[name] for name in case.path_parameters}


def _waits(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 0 < float(value) <= 60
    except (TypeError, ValueError):
        return False


def prepare(url: str) -> dict[str, str]:
    """A queue `orders` with one message that is ready and one that is leased; their id and receipt."""
    with httpx.Client(base_url=url) as client:
        client.post("/queues", json={"name": "orders"})
        client.patch("/queues/orders", json=_PLAIN)
        client.post("/queues/orders/resume")
        client.post("/queues/orders/purge")
        client.post("/queues/orders/messages", json={"messages": [{"content": 1}, {"content": 2}]})
        leased = client.get("/queues/orders/messages?lease=60").json()
        ready = client.get("/queues/orders/peek").json()["messages"][0]
    return {"name": "orders", "receipt": leased["receipt"], "message_id": ready["id"]}
