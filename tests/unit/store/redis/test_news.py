"""What another server changes is heard, in a Cluster too, where each queue has a slot of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.harness import until
from tests.redis_cluster import RedisCluster
from windlass.store.redis.address import parse
from windlass.store.redis.store import RedisStore

QUEUES = [f"q{n}" for n in range(8)]


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    made = RedisCluster(masters=2)
    yield made
    made.close()


def test_several_queues_of_one_master_are_heard_of(cluster: RedisCluster) -> None:
    """Planted defect: channels of several slots in one SSUBSCRIBE, which a Cluster refuses for ever."""
    one, other = (RedisStore(parse(cluster.url)) for _ in range(2))
    heard: set[str] = set()
    one.listen(lambda changes: heard.update(changes.ready))

    async def scenario() -> None:
        for name in QUEUES:
            await one.create_queue(name, {})
        await other.refresh()
        for name in QUEUES:
            one.attend(name)
            await other.send(name, [b"1"])
        await asyncio.to_thread(until, lambda: heard == set(QUEUES), what="news of all queues")

    try:
        asyncio.run(scenario())
    finally:
        one.close()
        other.close()
