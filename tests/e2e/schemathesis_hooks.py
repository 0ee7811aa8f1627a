"""What schemathesis is told: not to wait long, and, where its data is right, to use ids that exist."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache
from typing import Any

import httpx
import schemathesis

REGISTRATION_TOKEN = "for strangers"

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
    if case.operation.path.endswith("/events") and case.operation.method.upper() == "GET":
        case.query = {"wait": _WAIT} | (case.query or {})
    url = case.operation.base_url.rstrip("/")
    if case.operation.path.startswith("/runners/{runner_id}"):
        case.headers["Authorization"] = court(url)["authorization"]
    meta = case.meta
    if case.path_parameters and meta is not None and meta.generation.mode.is_positive:
        known = prepare(url)
        case.path_parameters = {name: known[name] for name in case.path_parameters}


@schemathesis.serializer("application/zip", "application/x-ndjson", "text/csv")
def _as_it_is(_context: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


def _waits(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 0 < float(value) <= 3600
    except (TypeError, ValueError):
        return False


def prepare(url: str) -> dict[str, str]:
    """A queue `orders` with one message that is ready and one that is leased, and a product; their ids."""
    with httpx.Client(base_url=url) as client:
        client.post("/queues", json={"name": "orders"})
        client.patch("/queues/orders", json=_PLAIN)
        client.post("/queues/orders/resume")
        client.post("/queues/orders/purge")
        client.post("/queues/orders/messages", json={"messages": [{"content": 1}, {"content": 2}]})
        leased = client.get("/queues/orders/messages?lease=60").json()
        ready = client.get("/queues/orders/peek").json()["messages"][0]
        product = {"product_id": "rope-30", "name": "Rope, 30 m", "price": 19.9}
        client.delete("/products/rope-30")
        client.post("/products", json=product).raise_for_status()
    known = {
        "name": "orders",
        "receipt": leased["receipt"],
        "message_id": ready["id"],
        "product_id": product["product_id"],
    }
    return known | court(url)


@cache
def court(url: str) -> dict[str, str]:
    """A problem, a submission with its job, and a runner that holds it: their ids, and the runner's token."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("0101.in", "0101.out", "0102.in", "0102.out"):
            archive.writestr(name, "1\n")
    task = {"score": 1, "case_count": 2, "time_limit": 1000, "memory_limit": 65536}
    form: Any = {
        "meta": (None, json.dumps({"title": "one", "tasks": [task]}), "application/json"),
        "testdata": ("testdata.zip", data.getvalue()),
    }
    with httpx.Client(base_url=url) as client:
        client.put("/problems/1", files=form).raise_for_status()
        program = {"problem_id": 1, "language": 2, "source": "print(1)"}
        submission = client.post("/submissions", json=program).raise_for_status().json()
        registration = {"registration_token": REGISTRATION_TOKEN, "name": "stranger"}
        runner = client.post("/runners/register", json=registration).raise_for_status().json()["data"]
        headers = {"Authorization": f"Bearer {runner['token']}"}
        client.get(f"/runners/{runner['runner_id']}/next-job", headers=headers).raise_for_status()
    return {
        "problem_id": "1",
        "submission_id": submission["submission_id"],
        "job_id": submission["job_id"],
        "runner_id": runner["runner_id"],
        "authorization": headers["Authorization"],
    }
