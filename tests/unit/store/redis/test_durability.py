"""What real servers say of how they keep messages, and what is made of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.harness import until
from tests.redis_cluster import RedisCluster
from tests.redis_sentinel import RedisWithSentinel
from tests.redis_server import RedisServer, ValkeyServer
from windlass.errors import OutcomeUnknown, StartError, StoreUnavailable
from windlass.store.redis.address import parse
from windlass.store.redis.durability import Asked, Confirmation, Durability, Reader, check
from windlass.store.redis.topology import Topology


class Opened:
    """A reader of the servers behind a URL."""

    def __init__(self, url: str, asked: Asked = "fsync", replicas: int = 1) -> None:
        self.topology = Topology(parse(url), patience=60)
        self.reader = Reader(self.topology, asked, replicas)

    def read(self) -> Durability:
        return self.reader.read()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.topology.close()


def judged(url: str, asked: Asked = "fsync", replicas: int = 1) -> Durability:
    with Opened(url, asked, replicas) as opened:
        return opened.read()


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def server(shared: RedisServer) -> Iterator[RedisServer]:
    """One whose settings a test may change: they are as they were afterwards."""
    names = "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "maxmemory-policy", "maxmemory"
    with shared.client() as client:
        before = {name: client.config_get(name)[name] for name in names}
        yield shared
        client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        for name, value in before.items():
            client.config_set(name, value)
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="the file whole")


def configured(server: RedisServer, **settings: str) -> None:
    with server.client() as client:
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)


def whole(server: RedisServer) -> None:
    """Wait until the append-only file is whole after it was turned on."""
    with server.client() as client:
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="the file whole")


SETTINGS: list[tuple[dict[str, str], list[str], str]] = [
    ({}, ["fsync", "everysec", "memory"], "nothing is lost: it is on disk"),
    ({"appendfsync": "everysec"}, ["everysec", "memory"], "the last 2 s"),
    ({"appendfsync": "no"}, ["memory"], "some 30 s"),
    ({"no_appendfsync_on_rewrite": "yes"}, ["memory"], "some 30 s"),
    ({"appendonly": "no"}, ["memory"], "all messages are lost"),
    ({"appendonly": "no", "save": "3600 1"}, ["memory"], "after the last snapshot"),
]


@pytest.mark.parametrize(("settings", "good_for", "power_cut"), SETTINGS)
def test_less_than_was_asked_is_refused(
    server: RedisServer, settings: dict[str, str], good_for: list[str], power_cut: str
) -> None:
    """Planted: no-appendfsync-on-rewrite passed by; everysec for enough; appendfsync without appendonly."""
    configured(server, **settings)
    every: list[Asked] = ["fsync", "everysec", "memory"]
    found = {asked: judged(server.url, asked) for asked in every}
    assert [asked for asked in every if not found[asked].lacks] == good_for
    assert power_cut in found["memory"].survives.power_cut
    for asked, durability in found.items():
        if asked in good_for:
            check(durability)
        else:
            with pytest.raises(StartError, match=f"127.0.0.1:{server.port}"):
                check(durability)


@pytest.mark.parametrize("asked", ["fsync", "everysec"])
@pytest.mark.parametrize("settings", [settings for settings, _, _ in SETTINGS[1:]])
def test_the_lines_that_are_told_mend_it(server: RedisServer, settings: dict[str, str], asked: Asked) -> None:
    """Planted: a line with another value, or one that is left out."""
    configured(server, **settings, maxmemory_policy="allkeys-lru")
    with pytest.raises(StartError) as refused:
        check(judged(server.url, asked))
    lines = re.findall(r"^ +CONFIG SET (\S+) (\S+)$", str(refused.value), re.MULTILINE)
    assert ("maxmemory-policy", "noeviction") in lines
    with server.client() as client:
        for name, value in lines:
            client.config_set(name, value)
    whole(server)
    check(judged(server.url, asked))


@pytest.mark.parametrize("asked", ["fsync", "everysec", "memory"])
def test_a_server_that_throws_messages_away_is_refused(server: RedisServer, asked: Asked) -> None:
    """Planted: `memory` that is content with anything; a weaker durability told as if that helped."""
    configured(server, maxmemory_policy="volatile-lru")
    with pytest.raises(StartError, match="volatile-lru") as refused:
        check(judged(server.url, asked))
    assert "ask for less" not in str(refused.value)


def test_settings_that_may_not_be_read_are_not_assumed(server: RedisServer) -> None:
    """Planted: a default that stands for what was not told."""
    with server.client() as client:
        client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-config"], keys=["*"])
        client.connection_pool.disconnect()
    for asked in ("fsync", "everysec"):
        with pytest.raises(StartError, match=r"\+config\|get.*--durability memory"):
            check(judged(server.url, asked))
    durability = judged(server.url, "memory")
    check(durability)
    assert "nobody knows" in durability.survives.power_cut
    assert durability.survives.process_kill.startswith("nothing is lost")


def test_a_file_that_is_not_whole_yet_does_not_count() -> None:
    """Planted: `appendonly yes` believed while the first file is written: a crash loses what was before."""
    server = RedisServer("--appendonly", "no")
    with server.client() as client:
        client.set("a", "b")
        client.config_set("rdb-key-save-delay", 60_000_000)  # microseconds
        client.config_set("appendonly", "yes")
        lacks = judged(server.url).lacks
        assert len(lacks) == 1
        assert "not whole yet" in lacks[0].why
        client.config_set("rdb-key-save-delay", 0)
        client.config_set("appendonly", "no")  # ends it
        client.config_set("appendonly", "yes")
    whole(server)
    assert judged(server.url).lacks == []
    server.close()


def test_what_changes_is_told(server: RedisServer) -> None:
    """Planted: two readings that are compared by what was asked."""
    with Opened(server.url) as opened:
        before = opened.read()
        assert opened.read().since(before) == []
        configured(server, appendfsync="everysec", maxmemory="100mb")
        now = opened.read()
        assert now.since(before) == [
            f"127.0.0.1:{server.port}: appendfsync is everysec, was always, maxmemory is 104857600, was 0"
        ]
        assert [lack.settings for lack in now.lacks] == [("appendfsync always",)]
        assert before.advice
        assert now.advice == []  # it asked for a maxmemory


def test_status_shows_it(server: RedisServer) -> None:
    shown = judged(server.url).shown()
    assert shown["asked"] == "fsync"
    assert shown["keeps"] == "always"
    assert set(shown["survives"]) == {"process_kill", "power_cut", "machine_loss", "partition"}
    assert "503" in shown["survives"]["partition"]
    assert "no replica" in shown["survives"]["machine_loss"]


def test_a_master_that_is_away_is_told_as_such(shared: RedisServer) -> None:
    with Opened(shared.url) as opened:
        shared.stop()
        with pytest.raises(StoreUnavailable):
            opened.read()
        shared.start()
        assert opened.read().lacks == []


# --- replicas -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[RedisServer, ValkeyServer])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[RedisServer, RedisServer]]:
    master = request.param()
    replica = master.replica()
    yield master, replica
    replica.close()
    master.close()


def test_replicas_are_read(pair: tuple[RedisServer, RedisServer]) -> None:
    """Planted: a replica's settings passed by, which are the master's after a failover."""
    master, replica = pair
    assert judged(master.url).lacks == []
    configured(replica, appendfsync="everysec")
    with pytest.raises(StartError, match=f"the replica 127.0.0.1:{replica.port}"):
        check(judged(master.url))
    configured(replica, replica_priority="0")
    check(judged(master.url))  # it never becomes master
    configured(replica, replica_priority="100", appendfsync="always")
    assert "comes back" in judged(master.url).survives.machine_loss


def test_as_many_replicas_as_were_asked(pair: tuple[RedisServer, RedisServer]) -> None:
    """Planted: replicas counted that are not connected, or not counted."""
    master, _ = pair
    durability = judged(master.url, "replicated", 1)
    check(durability)
    assert durability.survives.machine_loss.startswith("nothing is lost")
    assert any("min-replicas-to-write 1" in each for each in durability.advice)
    with pytest.raises(StartError, match=r"1 replicas .* of 2"):
        check(judged(master.url, "replicated", 2))


def test_writes_wait_for_replicas(pair: tuple[RedisServer, RedisServer]) -> None:
    """Planted: an answer that counts too few replicas; a time-out that is taken for done."""
    master, replica = pair
    with Opened(master.url, "replicated", 1) as opened:
        client = opened.topology.node(b"a").client
        confirmation = opened.read().confirmation(30)
        assert confirmation is not None
        if isinstance(master, ValkeyServer):
            assert confirmation.commands == (("WAIT", 1, 10_000), ("WAITAOF", 1, 1, 20_000))
        else:
            assert confirmation.commands == (("WAIT", 1, 30_000),)  # Redis 7.0 has no WAITAOF
        confirmation.judge(sent(client, confirmation))
        replica.hang()
        hasty = opened.read().confirmation(0.05)
        assert hasty is not None
        with pytest.raises(OutcomeUnknown, match="0 of 1"):
            hasty.judge(sent(client, hasty))
        replica.resume()
        confirmation.judge(sent(client, confirmation))
    assert judged(master.url, "fsync").confirmation(1) is None


def sent(client: redis.Redis, confirmation: Confirmation) -> Any:
    pipeline = client.pipeline(transaction=False)
    pipeline.set("a", "b")
    for command in confirmation.commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    done, *replies = pipeline.execute(raise_on_error=False)
    assert done is True
    return replies[-1]


def test_disks_of_replicas_are_not_waited_for_until_they_report_by_themselves() -> None:
    """Planted: WAITAOF alone, for which a replica that syncs everything at once takes a second each time."""
    master = ValkeyServer()
    replica = master.replica()
    try:
        with Opened(master.url, "replicated", 1) as opened:
            client = opened.topology.node(b"a").client
            confirmation = opened.read().confirmation(30)
            assert confirmation is not None
            assert confirmation.commands[-1][0] == "WAITAOF"
            began = time.monotonic()
            for _ in range(20):
                confirmation.judge(sent(client, confirmation))
            assert time.monotonic() - began < 10
    finally:
        replica.close()
        master.close()


@pytest.mark.parametrize(
    ("command", "reply", "good"),
    [
        (("WAIT", 2, 9), 2, True),
        (("WAIT", 2, 9), 3, True),
        (("WAIT", 2, 9), 1, False),
        (("WAITAOF", 1, 2, 9), [1, 2], True),
        (("WAITAOF", 1, 2, 9), [1, 1], False),
        (("WAITAOF", 1, 2, 9), [0, 2], False),
        (("WAIT", 2, 9), redis.ResponseError("UNBLOCKED instance state changed"), False),
    ],
)
def test_an_answer_of_replicas_is_judged(command: tuple[str | int, ...], reply: Any, good: bool) -> None:
    """Planted: the first number of WAITAOF, which is the master's own disk, taken for the replicas'."""
    if good:
        Confirmation((command,), 2).judge(reply)
    else:
        with pytest.raises(OutcomeUnknown) as unknown:
            Confirmation((command,), 2).judge(reply)
        assert (unknown.value.code, unknown.value.retry_after) == ("outcome_unknown", 1)


def test_a_replica_that_hangs_holds_up_nobody_twice(pair: tuple[RedisServer, RedisServer]) -> None:
    """Planted: one that is asked again each time, a second each."""
    master, replica = pair
    with Opened(master.url) as opened:
        assert opened.read().unread == ()
        replica.hang()
        assert opened.read().unread == (f"127.0.0.1:{replica.port}",)
        replica.resume()
        passed_over = [opened.read().unread for _ in range(10)]
        assert all(passed_over)
        assert opened.read().unread == ()


def test_each_master_of_a_cluster_is_read() -> None:
    """Planted: only the first one is read."""
    with RedisCluster() as cluster:
        last = max(cluster.nodes, key=lambda server: server.port)
        check(judged(cluster.url))
        configured(last, appendonly="no")
        with pytest.raises(StartError) as refused:
            check(judged(cluster.url))
        named = re.findall(r"127\.0\.0\.1:(\d+)", str(refused.value))
        assert named == [str(last.port)]


def test_a_failover_is_told() -> None:
    """Planted: a new master's settings believed to be the old one's."""
    with RedisWithSentinel() as watched, Opened(watched.url) as opened:
        master, replica = watched.servers
        before = opened.read()
        configured(replica, appendfsync="everysec")
        master.stop()

        def followed() -> Durability | None:
            try:
                opened.topology.refresh()
                found = opened.read()
            except StoreUnavailable:
                return None
            return found if found.masters[0].name != before.masters[0].name else None

        now = until(followed, what="the failover")
        assert now is not None
        changes = "; ".join(now.since(before))
        assert f"127.0.0.1:{replica.port}: master is yes, was no" in changes
        assert "appendfsync is everysec, was always" in changes
        assert f"127.0.0.1:{master.port}: was a master, and is gone" in changes
        assert [lack.settings for lack in now.lacks] == [("appendfsync always",)]
