"""Queues that clients of SQS change through several servers of one store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.servers import Several, Yards
from tests.contract.sqs.face import Face


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
