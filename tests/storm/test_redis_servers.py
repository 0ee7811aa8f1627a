"""The tests' own Redis in all its forms: what it is told it keeps, and what is to take over takes over."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from tests.harness import until
from tests.redis_cluster import RedisCluster
from tests.redis_sentinel import RedisWithSentinel
from tests.redis_server import RedisServer

pytestmark = pytest.mark.storm


def test_it_keeps_what_it_was_told() -> None:
    """Fails when a start begins with nothing, and when `close` leaves a process or a folder."""
    with RedisServer() as server:
        server.do("SET", "key", "value")
        server.stop()
        server.start()
        assert server.do("GET", "key") == b"value"
        server.forget()
        assert server.do("GET", "key") is None
        folder = server.folder
    assert not server.running
    assert not folder.exists()


def test_a_start_that_fails_says_why() -> None:
    """Fails when it is waited for, or when its folder stays."""
    with pytest.raises(AssertionError, match="no-such-option"):
        RedisServer("--no-such-option", "1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_does_not_outlive_its_tests(number: signal.Signals) -> None:
    """Not even when they are killed. Fails without a guardian."""
    program = "from tests.redis_server import RedisServer\n"
    program += "import os\nserver = RedisServer()\nprint(server.port, server.folder, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        port, folder = tests.stdout.readline().split()
        tests.send_signal(number)
        tests.wait(60)
    until(lambda: not listens(int(port)), what="the end of its server")
    until(lambda: not Path(folder).exists(), what="the end of its folder")


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 60):
        return True
    return False


def test_harm_and_its_end() -> None:
    """Fails when a harm does nothing, or outlasts its end."""
    with RedisServer() as server:
        began = time.monotonic()
        server.pause(0.3)
        server.do("GET", "key")
        assert time.monotonic() - began > 0.25
        server.limit_memory(1)
        with pytest.raises(redis.OutOfMemoryError):
            server.do("SET", "key", "value")
        server.limit_memory(0)
        assert server.do("SET", "key", "value")
        digest = server.do("SCRIPT LOAD", "return 1")
        server.do("FUNCTION LOAD", "#!lua name=f\nredis.register_function('f', function() return 1 end)")
        server.forget_scripts()
        assert server.do("SCRIPT EXISTS", digest) == [False]
        assert server.do("FUNCTION LIST") == []


def test_a_replica_takes_over() -> None:
    """Fails when it is a replica again after a start, or had not written down what came at first."""
    with RedisServer() as master, master.replica() as replica:
        master.do("SET", "key", "value")
        master.do("WAIT", 1, 0)
        master.stop()
        replica.promote()
        replica.stop()
        replica.start()
        assert (replica.role, replica.do("GET", "key")) == ("master", b"value")
        master.start()
        master.follow(replica)
        assert (master.role, master.do("GET", "key")) == ("slave", b"value")


def test_a_sentinel_promotes() -> None:
    """Fails when the Sentinel does not know the replica, or does not outlive the master."""
    with RedisWithSentinel() as servers:
        old = servers.master
        old.do("SET", "key", "value")
        old.do("WAIT", 1, 0)
        old.stop()
        new = servers.wait_for_failover(old)
        assert new is servers.master
        assert new.do("GET", "key") == b"value"
        servers.empty()
        assert new.do("DBSIZE") == 0


def test_a_cluster_serves_and_comes_back() -> None:
    """Three masters. Fails when a slot is nobody's, or a node that was killed stays alone."""
    with RedisCluster() as cluster:
        keys = [f"key-{number}" for number in range(50)]
        with cluster.client() as client:
            for key in keys:
                client.set(key, key)
        assert {cluster.owner(key) for key in keys} == set(cluster.nodes)
        killed = cluster.owner(keys[0])
        killed.stop()
        killed.start()
        cluster.wait_until_well()
        with cluster.client() as client:
            assert [client.get(key) for key in keys] == [key.encode() for key in keys]
            cluster.empty()
            assert not any(client.exists(key) for key in keys)


def test_a_clusters_replica_takes_over() -> None:
    """And redis-cli finds nothing wrong. Fails when a replica follows nobody, or is not promoted."""
    with RedisCluster(replicas=1) as cluster:
        check(cluster)
        killed = cluster.owner("key")
        with cluster.client() as client:
            client.set("key", "value")
        killed.do("WAIT", 1, 0)
        killed.stop()
        cluster.wait_for_failover(killed)
        taken = cluster.owner("key")
        assert taken is cluster.nodes[cluster.nodes.index(killed) + 3]
        assert taken.do("GET", "key") == b"value"
        killed.start()
        until(killed.in_step, what="the old master as a replica")
        cluster.wait_until_well()
        check(cluster)


def check(cluster: RedisCluster) -> None:
    done = subprocess.run(
        ["redis-cli", "--cluster", "check", cluster.nodes[0].address],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    assert "All 16384 slots covered" in done.stdout
