"""Queues that clients of SQS change through several servers of one store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.contract.conftest import OnRedis
from tests.contract.servers import Several, Yards
from tests.contract.sqs.face import Face
from tests.redis_server import RedisServer


@pytest.fixture
def faces(several: Several) -> Iterator[tuple[Face, Face]]:
    yards = Yards(several)
    yield Face(yards.a.bench), Face(yards.b.bench)
    yards.close()


def test_what_one_server_made_is_known_to_the_other_at_once(
    faces: tuple[Face, Face], several: Several
) -> None:
    """Fails when a server says that there is no queue, only because nobody told it yet."""
    a, b = faces
    several.silent = True
    a.create("q", DelaySeconds="5")
    assert b("GetQueueUrl", QueueName="q")
    assert b.attributes("q", "DelaySeconds") == {"DelaySeconds": "5"}
    b.set("q", DelaySeconds="6")
    assert a.attributes("q", "DelaySeconds") == {"DelaySeconds": "6"}


def test_neither_server_loses_what_the_other_changes(faces: tuple[Face, Face]) -> None:
    """Planted defect: who writes settings does not ask whether they are still those that it read."""
    a, b = faces
    a.create("q")

    async def all_at_once() -> None:
        changes: list[Any] = []
        for n in range(10):
            changes += [
                face.ask("TagQueue", QueueUrl="q", Tags={f"{which}{n}": ""})
                for which, face in zip("ab", faces, strict=True)
            ]
        await asyncio.gather(*changes)

    a.bench.loop.run_until_complete(all_at_once())
    expected = {f"{which}{n}": "" for which in "ab" for n in range(10)}
    assert a.tags("q") == b.tags("q") == expected


def test_a_queue_is_purged_once_a_minute_by_all_servers(faces: tuple[Face, Face]) -> None:
    """Fails when each server has a minute of its own."""
    a, b = faces
    a.create("q")
    assert a("PurgeQueue", QueueUrl="q") == {}
    assert b.refused("PurgeQueue", QueueUrl="q")[0] == "PurgeQueueInProgress"


def test_a_purge_that_did_not_happen_is_none(redis_server: RedisServer) -> None:
    """The store is lost between the request and the purge.

    Planted defect: that it was purged is noted before it is.
    """
    bench = Bench(OnRedis(redis_server))
    face = Face(bench)
    face.create("q")
    bench.send("q", b"1")
    link = bench.store._link  # type: ignore[attr-defined]
    real = link.submit

    def losing(call: Any) -> Any:
        if call.verb == "purge":
            redis_server.stop()
        return real(call)

    link.submit = losing
    assert face.refused("PurgeQueue", QueueUrl="q")[0] in ("ServiceUnavailable", "InternalFailure")
    redis_server.start()
    link.submit = real
    assert bench.counts("q") == {"ready": 1}
    assert face("PurgeQueue", QueueUrl="q") == {}
    assert bench.counts("q") == {}
    assert face.refused("PurgeQueue", QueueUrl="q")[0] == "PurgeQueueInProgress"
    bench.close()
