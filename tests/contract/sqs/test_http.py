"""What SQS keeps of a queue, and the HTTP API of the same queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.http.served import Served


@pytest.fixture(params=["asgi", pytest.param("redis", marks=pytest.mark.storm)])
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "data", road=request.param) as served:
        yield served


def test_it_is_neither_shown_nor_taken_and_stays(api: Served) -> None:
    """Fails when a change over HTTP takes attributes and tags away, or the HTTP API has a field more."""
    api.queue("q")
    kept = {"DelaySeconds": "5", "tags": '{"a":"1"}'}
    api.run(api.app.store.update_queue("q", {"sqs": kept}))
    assert "sqs" not in api("GET", "/queues/q").json()
    assert "sqs" not in api("GET", "/queues").json()["queues"][0]
    assert api("PATCH", "/queues/q", {"sqs": {}}).status_code == 422
    assert api("POST", "/queues", {"name": "q", "sqs": {}}).status_code == 422
    assert api("PATCH", "/queues/q", {"lease_seconds": 7, "history_seconds": 9}).status_code == 200
    assert api("POST", "/queues/q/pause").status_code == 200
    settings = api.run(api.app.store.queue("q")).settings
    assert (settings.sqs, settings.lease_seconds) == (kept, 7)
