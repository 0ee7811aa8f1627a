"""Whatever befalls Redis, or a server of several: what was answered is there, in order, and comes once.

Clients meet 2xx, or 503 with Retry-After as long as it lasts, and service returns by itself: see fleet.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fault_proxy import FaultProxy
from tests.harness import ServerProcess, until
from tests.redis_cluster import RedisCluster
from tests.redis_sentinel import RedisWithSentinel
from tests.redis_server import RedisServer, ValkeyServer
from tests.storm.disk import Disk
from tests.storm.faces import Face, over_both
from tests.storm.fleet import FaultStorm, Fleet, storm
from tests.storm.talk import client

pytestmark = [pytest.mark.storm, pytest.mark.timeout(600)]

PAUSE = 8.0
"""Seconds: longer than a server waits for Redis."""
PLAIN: Mapping[str, str] = {}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis.port) as proxy:
        yield proxy


def fleet(folder: Path, url: str, *arguments: str, number: int = 2) -> Fleet:
    return Fleet(folder, "--store", url, *arguments, environments=[PLAIN] * number)


def over(*, http: int, sqs: int) -> pytest.MarkDecorator:
    """The storm over both protocols, so many rounds over each."""
    return pytest.mark.parametrize(("protocol", "rounds"), [("http", http), ("sqs", sqs)])


# --- one Redis --------------------------------------------------------------------------------------


@over(http=12, sqs=5)
def test_redis_killed_and_started_again(
    tmp_path: Path, redis: RedisServer, protocol: str, rounds: int
) -> None:
    """Planted: `appendonly no`."""

    async def harm(storm: FaultStorm) -> None:
        await asyncio.to_thread(redis.stop)
        await storm.felt(storm.rng.randint(1, 20))
        await asyncio.to_thread(redis.start)

    storm(fleet(tmp_path, redis.url), harm, rounds, protocol)


@over(http=2, sqs=1)
def test_redis_paused(tmp_path: Path, redis: RedisServer, protocol: str, rounds: int) -> None:
    """CLIENT PAUSE, for longer than a server waits. Planted: commands sent again after a time-out."""

    async def harm(storm: FaultStorm) -> None:
        await asyncio.to_thread(redis.pause, PAUSE)
        await storm.felt()

    assert storm(fleet(tmp_path, redis.url), harm, rounds, protocol).told("outcome_unknown") > 0


@over(http=3, sqs=2)
def test_redis_stopped_by_a_signal(tmp_path: Path, redis: RedisServer, protocol: str, rounds: int) -> None:
    """SIGSTOP, for longer than a server waits. Planted: commands sent again after a time-out."""

    async def harm(storm: FaultStorm) -> None:
        redis.hang()
        await storm.felt(storm.rng.randint(1, 8))
        redis.resume()

    assert storm(fleet(tmp_path, redis.url), harm, rounds, protocol).told("outcome_unknown") > 0


@over(http=8, sqs=3)
def test_redis_full(tmp_path: Path, redis: RedisServer, protocol: str, rounds: int) -> None:
    """What takes room is refused meanwhile. Planted: sends that may go over the limit."""

    async def harm(storm: FaultStorm) -> None:
        await asyncio.to_thread(redis.limit_memory, 1)
        await storm.felt(storm.rng.randint(1, 50))
        await asyncio.to_thread(redis.limit_memory, 0)

    assert storm(fleet(tmp_path, redis.url), harm, rounds, protocol).told("store_full") > 0


@over_both
def test_what_is_full_is_emptied_and_goes_on(tmp_path: Path, redis: RedisServer, over: type[Face]) -> None:
    """With the limit still there. Planted: receive and acknowledge that want memory, too."""
    with ServerProcess(tmp_path / "data", "--store", redis.url) as server, client(server) as http:
        queue = over(http)
        queue.create()
        redis.limit_memory(int(redis.do("INFO", "memory")["used_memory"]) + 2_000_000)
        sent: list[str] = []
        while (answer := queue.send(f"{len(sent)} {'x' * 10_000}")).status_code == queue.good:
            sent.append(f"{len(sent)} {'x' * 10_000}")
        queue.assert_refused(answer, "store_full")
        first = queue.receive_all(enough=100)
        until(lambda: queue.send("later").status_code == queue.good, what="a send where there is room again")
        assert first + queue.receive_all() == [*sent, "later"]


@over(http=8, sqs=3)
def test_scripts_and_functions_flushed(
    tmp_path: Path, redis: RedisServer, protocol: str, rounds: int
) -> None:
    """No client notices. Planted: functions that are loaded at the start only."""

    async def harm(storm: FaultStorm) -> None:
        for _ in range(5):
            await asyncio.to_thread(redis.forget_scripts)
            await storm.more(20)

    assert not storm(fleet(tmp_path, redis.url), harm, rounds, protocol).fleet.excused


# --- the wire ---------------------------------------------------------------------------------------


@over(http=25, sqs=10)
def test_replies_cut_off(tmp_path: Path, proxy: FaultProxy, protocol: str, rounds: int) -> None:
    """In the middle, or before their first byte. Planted: what has no reply is sent again."""

    async def harm(storm: FaultStorm) -> None:
        at = 0 if storm.rng.random() < 0.3 else None
        proxy.cut_in_reply(storm.rng.randint(1, 60), at)
        await asyncio.to_thread(proxy.happened.wait, 60)

    assert storm(fleet(tmp_path, proxy.url), harm, rounds, protocol).told("outcome_unknown") > 0


@over(http=3, sqs=2)
def test_a_wire_that_stalls(tmp_path: Path, proxy: FaultProxy, protocol: str, rounds: int) -> None:
    """Commands are stuck on their way. Planted: what timed out is sent again."""

    async def harm(storm: FaultStorm) -> None:
        proxy.stall()
        await storm.felt(storm.rng.randint(1, 8))
        proxy.heal()

    assert storm(fleet(tmp_path, proxy.url), harm, rounds, protocol).told("outcome_unknown") > 0


@over(http=4, sqs=2)
def test_a_slow_wire(tmp_path: Path, proxy: FaultProxy, protocol: str, rounds: int) -> None:
    """Slow is no fault: no client notices. Planted: a time-out of 0.2 s."""

    async def harm(storm: FaultStorm) -> None:
        proxy.slow(storm.rng.uniform(0.05, 0.3))
        await storm.more(30)
        proxy.heal()

    assert not storm(fleet(tmp_path, proxy.url), harm, rounds, protocol).fleet.excused


@over(http=10, sqs=4)
def test_a_wire_that_refuses(tmp_path: Path, proxy: FaultProxy, protocol: str, rounds: int) -> None:
    """Planted: a batcher that ends with its connection."""

    async def harm(storm: FaultStorm) -> None:
        proxy.refuse()
        await storm.felt(storm.rng.randint(1, 50))
        proxy.heal()

    storm(fleet(tmp_path, proxy.url), harm, rounds, protocol)


@over_both
@pytest.mark.parametrize("lost", ["notifications", "the connection"])
def test_a_long_poll_whose_notification_is_lost(
    tmp_path: Path, redis: RedisServer, lost: str, over: type[Face]
) -> None:
    """It comes on another server, and is found all the same. Planted: no pulse."""
    with (
        FaultProxy(redis.port) as proxy,
        ServerProcess(tmp_path / "one", "--store", proxy.url) as one,
        ServerProcess(tmp_path / "other", "--store", redis.url) as other,
        client(one, 90) as here,
        client(other) as there,
        ThreadPoolExecutor(1) as pool,
    ):
        over(here).create()
        took = []
        for each in range(5):
            if each == 1:  # from now on it listens
                proxy.lose_notifications() if lost == "notifications" else proxy.stall(subscribers=True)
            waiting = pool.submit(over(here).take, wait=20)
            until(lambda: b"windlass:{1}:n" in redis.do("PUBSUB SHARDCHANNELS"), what="a server that listens")
            assert here.get("/queues/q").status_code == 200  # and the request before it waits
            began = time.monotonic()
            over(there).send_all([f"{each}"])
            assert [message.content for message in waiting.result()] == [f"{each}"]
            took.append(time.monotonic() - began)
        print(", ".join(f"{each:.2f} s" for each in took))


# --- another master -----------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [RedisServer, ValkeyServer])
@over(http=4, sqs=2)
def test_a_replica_promoted_by_hand(
    tmp_path: Path, made: type[RedisServer], protocol: str, rounds: int
) -> None:
    """It heard nothing for a while, and `replicated` answered nothing then. Planted: `fsync`."""
    with made() as redis, redis.replica() as other, FaultProxy(redis.port) as proxy:
        roles = [redis, other]

        async def harm(storm: FaultStorm) -> None:
            master, replica = roles
            await asyncio.to_thread(replica.lose_master)
            await storm.felt_or_more(100)
            await asyncio.to_thread(master.stop)
            await asyncio.to_thread(replica.promote)
            proxy.redirect(replica.port)
            await asyncio.to_thread(master.follow, replica)
            roles.reverse()

        storm(fleet(tmp_path, proxy.url, "--durability", "replicated"), harm, rounds, protocol)


@over(http=3, sqs=2)
def test_a_replica_promoted_by_a_sentinel(tmp_path: Path, protocol: str, rounds: int) -> None:
    """With `replicated` nothing is lost. Planted: Sentinels that are asked at the start only."""
    with RedisWithSentinel() as servers:

        async def harm(_: FaultStorm) -> None:
            old = servers.master
            await asyncio.to_thread(old.stop)
            await asyncio.to_thread(servers.wait_for_failover, old)
            await asyncio.to_thread(old.start)
            await asyncio.to_thread(until, old.in_step, 60, "the old master as a replica")

        storm(fleet(tmp_path, servers.url, "--durability", "replicated"), harm, rounds, protocol)


@over(http=4, sqs=2)
def test_a_clusters_master_killed_and_started_again(tmp_path: Path, protocol: str, rounds: int) -> None:
    """Three masters without replicas. Planted: a batcher that ends with its connection."""
    with RedisCluster() as cluster:

        async def harm(storm: FaultStorm) -> None:
            node = storm.rng.choice(cluster.nodes)
            await asyncio.to_thread(node.stop)
            await storm.felt()
            await asyncio.to_thread(node.start)
            await asyncio.to_thread(cluster.wait_until_well)

        storm(fleet(tmp_path, cluster.url), harm, rounds, protocol)


@over(http=3, sqs=2)
def test_a_clusters_replica_promoted(tmp_path: Path, protocol: str, rounds: int) -> None:
    """With `replicated` nothing is lost. Planted: slots that are learned at the start only."""
    with RedisCluster(replicas=1) as cluster:

        async def harm(storm: FaultStorm) -> None:
            masters = [node for node in cluster.nodes if node.role == "master"]
            killed = storm.rng.choice(masters)
            await asyncio.to_thread(killed.stop)
            await asyncio.to_thread(cluster.wait_for_failover, killed)
            await asyncio.to_thread(killed.start)
            await asyncio.to_thread(until, killed.in_step, 60, "the old master as a replica")
            await asyncio.to_thread(cluster.wait_until_well)

        storm(fleet(tmp_path, cluster.url, "--durability", "replicated"), harm, rounds, protocol)


# --- the servers --------------------------------------------------------------------------------------


@over(http=5, sqs=3)
def test_servers_killed_in_the_middle_of_a_pipeline(
    tmp_path: Path, redis: RedisServer, protocol: str, rounds: int
) -> None:
    """One of three, while the others go on. Planted: Idempotency-Keys that the store does not keep."""

    async def harm(storm: FaultStorm) -> None:
        killed = storm.rng.choice(storm.fleet.servers)
        await storm.fleet.kill_one(killed)
        await storm.more(10)
        await storm.fleet.start()

    storm(fleet(tmp_path, redis.url, number=3), harm, rounds, protocol)


@over(http=3, sqs=2)
def test_clocks_an_hour_apart(tmp_path: Path, redis: RedisServer, protocol: str, rounds: int) -> None:
    """Leases follow the clock of Redis. Planted: those of the server that was asked."""
    hour = 3_600 * 10**9
    environments: list[Mapping[str, str]] = []
    for number, shift in enumerate((hour, 0, -hour)):
        disk = Disk(tmp_path / f"disk-{number}")  # for its clock
        disk.control.clock_shift = shift
        environments.append(disk.environment())

    async def harm(storm: FaultStorm) -> None:
        await storm.more(200)

    made = Fleet(tmp_path, "--store", redis.url, environments=environments)
    assert not storm(made, harm, rounds, protocol).fleet.excused
