"""Who serves a key, and what happens to connections: on real servers."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import MovedError, ReadOnlyError

from tests.harness import free_port, until
from tests.redis_cluster import ClusterNode, RedisCluster
from tests.redis_sentinel import RedisWithSentinel
from tests.redis_server import RedisServer
from tests.unit.store.redis.breaking_off import BreakingOff
from windlass.errors import StartError, StoreUnavailable
from windlass.store.redis.address import parse
from windlass.store.redis.faults import Unreached, unavailable
from windlass.store.redis.store import RedisStore
from windlass.store.redis.topology import Node, Topology

pytestmark = pytest.mark.storm


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


def opened(url: str, patience: float = 60.0) -> Topology:
    return Topology(parse(url), patience=patience)


# --- alone --------------------------------------------------------------------------------------------


def test_one_server_serves_every_key(server: RedisServer) -> None:
    topology = opened(server.url)
    node = topology.node(b"a")
    assert (topology.cluster, topology.nodes(), node.name) == (False, [node], f"127.0.0.1:{server.port}")
    assert topology.node(b"{b}c") is node
    pipeline = node.client.pipeline(transaction=False)
    pipeline.set("a", "\xff")
    pipeline.get("a")
    assert pipeline.execute() == [True, "\xff".encode()]
    topology.refresh()
    assert topology.nodes() == [node]
    topology.close()


def test_a_server_that_comes_back_is_found(server: RedisServer) -> None:
    """Planted: a client that is never used again after an error; one error too many after the restart."""
    topology = opened(server.url)
    client = topology.node(b"a").client
    client.set("kept", "1")
    server.stop()
    with pytest.raises(Unreached):
        client.get("kept")
    with pytest.raises(StoreUnavailable, match="Nothing was done"):
        opened(server.url)
    server.start()
    assert client.get("kept") == b"1"
    topology.close()


def test_a_connection_that_idled_through_a_restart_is_replaced(server: RedisServer) -> None:
    """Planted: one connection that is kept, as single_connection_client: what is sent on it may be lost."""
    topology = opened(server.url)
    client = topology.node(b"a").client
    client.set("kept", "1")
    server.stop()
    server.start()
    assert client.get("kept") == b"1"
    topology.close()


def test_one_that_hangs_is_not_waited_for_without_end(server: RedisServer) -> None:
    """Planted: no time limit, or one that is told as if nothing had been sent."""
    topology = opened(server.url, patience=0.2)
    client = topology.node(b"a").client
    server.hang()
    with pytest.raises(redis.TimeoutError) as late:
        client.incr("counted")
    server.resume()
    assert not isinstance(late.value, Unreached)
    assert unavailable(late.value).code == "outcome_unknown"
    topology.close()


def test_nothing_is_sent_twice() -> None:
    """Planted: redis-py's own retries: a message that was sent is sent again, and is there twice."""

    def answer(asked: bytes) -> bytes:
        if b"INFO\r\n" in asked and b"SETINFO" not in asked:
            return b"$10\r\nrole:x\r\n\r\n\r\n"
        return b"+PONG\r\n" if b"PING" in asked else b"+OK\r\n"

    breaking = BreakingOff(b"INCR", answer)
    topology = opened(f"redis://127.0.0.1:{breaking.port}")
    with pytest.raises(redis.ConnectionError) as lost:
        topology.node(b"a").client.incr("a")
    pipeline = topology.node(b"a").client.pipeline(transaction=False)
    pipeline.incr("a")
    pipeline.incr("a")
    with pytest.raises(redis.ConnectionError):
        pipeline.execute(raise_on_error=False)
    assert breaking.heard == 2
    assert unavailable(lost.value).code == "outcome_unknown"
    topology.close()
    breaking.close()


def test_connections_notice_a_dead_peer(server: RedisServer) -> None:
    """Planted: no keepalive: a connection through a firewall that forgot it hangs for ever."""
    topology = opened(server.url)
    pool = topology.node(b"a").client.connection_pool
    connection: Any = pool.get_connection()
    assert connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert connection._sock.gettimeout() == 60
    pool.release(connection)
    topology.close()


def test_a_password_is_asked_for_and_not_shown() -> None:
    """Planted: redis-py's words, where somebody puts the URL into them."""
    server = RedisServer()
    with server.client() as client:
        client.config_set("requirepass", "sesame")
    for wrong in (server.url, server.url.replace("//", "//:simsim@")):
        with pytest.raises(StartError, match="password") as refused:
            opened(wrong)
        assert "simsim" not in str(refused.value)
    topology = opened(server.url.replace("//", "//:sesame@"))
    assert topology.node(b"a").client.ping()
    topology.close()
    server.close()


def test_the_user_of_the_documents_may_do_what_is_needed(server: RedisServer) -> None:
    """Planted: a right that their ACL line leaves out, +config|get say; keys under another prefix."""
    told = (Path(__file__).parents[4] / "docs/how-to/scale-out.md").read_text()
    line = re.search(r"^ACL SETUSER .*$", told, re.MULTILINE)
    assert line is not None
    server.do(*line[0].split())

    async def used() -> bytes:
        store = RedisStore(parse(server.url.replace("//", "//windlass:secret@")))
        try:
            await store.create_queue("orders", {})
            await store.send("orders", [b'"x"'])
            (message,) = await store.receive("orders")
            return message.content
        finally:
            store.close()

    assert asyncio.run(used()) == b'"x"'


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    server = RedisServer("--unixsocket", str(path))
    topology = opened(f"unix://{path}?db=2")
    node = topology.node(b"a")
    node.client.set("a", "b")
    assert node.name == str(path)
    assert server.do("INFO", "keyspace")["db2"]["keys"] == 1
    topology.close()
    server.close()


def test_tls(tmp_path: Path) -> None:
    """Planted: a certificate that nobody looks at."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    server = RedisServer(
        *("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"),
    )
    with pytest.raises(StoreUnavailable, match="certificate"):
        opened(f"rediss://localhost:{port}")
    topology = opened(f"rediss://localhost:{port}?ssl_ca_certs={certificate}")
    assert topology.node(b"a").client.set("a", "b")
    topology.close()
    server.close()


def test_what_the_url_calls_otherwise_is_said(server: RedisServer, cluster: RedisCluster) -> None:
    """Planted: a replica that is taken for a master; a node of a Cluster taken for all of it."""
    with pytest.raises(StartError, match=r"no Cluster: write redis://"):
        opened(server.url.replace("redis", "redis+cluster").removesuffix("/0"))
    with pytest.raises(StartError, match=r"write redis\+cluster://"):
        opened(cluster.nodes[0].url)
    replica = server.replica()
    with pytest.raises(StartError, match=f"replica of 127.0.0.1:{server.port}"):
        opened(replica.url)
    replica.close()


# --- a Cluster ----------------------------------------------------------------------------------------


def test_each_key_has_its_master(cluster: RedisCluster) -> None:
    """Planted: the slot of the whole key where it has a hash tag; a border that is off by one."""
    topology = opened(f"redis+cluster://127.0.0.1:{cluster.nodes[1].port}")
    assert topology.cluster
    assert {node.name for node in topology.nodes()} == {f"127.0.0.1:{m.port}" for m in cluster.nodes}
    used = set()
    for number in range(300):
        key = b"{queue-%d}:ready" % number
        node = topology.node(key)
        assert node.client.set(key, b"x")  # a MOVED would be raised
        assert topology.node(b"{queue-%d}:leased" % number) is node
        used.add(node)
    assert used == set(topology.nodes())
    for border in (0, 5460, 5461, 10921, 10922, 16383):
        key = next(key for number in range(999_999) if key_slot(key := b"%d" % number) == border)
        assert topology.node(key).client.set(key, b"x")
    topology.close()


def test_a_slot_that_moved_is_found(cluster: RedisCluster) -> None:
    """Planted: a refresh that asks the nodes in turn, and believes one that has not heard of it yet."""
    # A topology asks the first server of the URL, then that of the lowest port: that one will be behind.
    new, old = cluster.nodes[0], max(cluster.nodes[1:], key=lambda server: server.port)
    topology = opened(cluster.url)
    nodes = {node.name: node for node in topology.nodes()}
    key = next(key for n in range(999) if topology.node(key := b"%d" % n).name.endswith(f":{old.port}"))

    def give(server: ClusterNode) -> None:
        # Nobody counts up an epoch for it, so that the third goes on believing what it believed.
        for each in (new, old):
            each.do("CLUSTER SETSLOT", key_slot(key), "NODE", server.id)

    give(new)
    with pytest.raises(MovedError) as moved:
        topology.node(key).client.get(key)
    topology.refresh(moved.value)
    assert topology.node(key) is nodes[f"127.0.0.1:{new.port}"]
    assert topology.node(key).client.set(key, "x")
    assert {node.name: node for node in topology.nodes()} == nodes
    topology.node(key).client.delete(key)
    give(old)
    topology.close()


def test_any_node_that_lives_tells_of_all() -> None:
    """Planted: only the first of the URL is asked; a failover that a refresh does not see."""
    with RedisCluster(replicas=1) as cluster:
        topology = opened(cluster.url, patience=5)
        dead = cluster.nodes[0]
        node = next(each for each in topology.nodes() if each.name == f"127.0.0.1:{dead.port}")
        others = [each for each in topology.nodes() if each is not node]
        key = next(key for number in range(999) if topology.node(key := b"%d" % number) is node)
        dead.stop()
        with pytest.raises(Unreached):
            node.client.get(key)

        def follows() -> Node | None:
            found = topology.node(key) if _refreshed(topology) else node
            return found if found is not node else None

        found = until(follows, what="the replica as master")
        assert found is not None
        until(lambda: _writes(found, key), what="a master that writes")
        assert set(others) < set(topology.nodes())
        assert node not in topology.nodes()
        topology.close()
        # A new one, whose first address is the dead one's.
        again = opened(cluster.url, patience=5)
        assert {each.name for each in again.nodes()} == {each.name for each in topology.nodes()}
        again.close()


def _writes(node: Node, key: bytes) -> bool:
    try:
        return bool(node.client.set(key, "x"))
    except redis.RedisError:
        return False


def test_nobody_there_changes_nothing() -> None:
    """Planted: a map that is emptied before the new one is known."""
    cluster = RedisCluster(masters=1)
    topology = opened(cluster.url, patience=5)
    nodes = topology.nodes()
    cluster.nodes[0].stop()
    with pytest.raises(StoreUnavailable):
        topology.refresh()
    assert topology.nodes() == nodes
    cluster.nodes[0].start()
    until(lambda: _refreshed(topology), what="the Cluster is back")
    assert topology.nodes() == nodes
    assert nodes[0].client.set("a", "b")
    topology.close()
    cluster.close()


def _refreshed(topology: Topology) -> bool:
    try:
        topology.refresh()
    except StoreUnavailable:
        return False
    return True


def test_many_threads_at_once(cluster: RedisCluster) -> None:
    """Planted: a list of nodes that one thread changes while another reads it."""
    topology = opened(cluster.url)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(100):
                key = b"%d" % number
                topology.node(key).client.set(key, b"x")
                topology.refresh()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    topology.close()


# --- Sentinel -----------------------------------------------------------------------------------------


def test_sentinels_master_is_followed() -> None:
    """Planted: the master of the first hour for ever; a pipeline cut at its first READONLY."""
    with RedisWithSentinel() as watched:
        master, replica = watched.servers
        with pytest.raises(StoreUnavailable, match="'windlassp'"):
            opened(watched.url + "p", patience=5)
        topology = opened(watched.url, patience=5)
        old = topology.node(b"a")
        assert (topology.cluster, old.name) == (False, f"127.0.0.1:{master.port}")
        old.client.set("a", "1")
        master.do("REPLICAOF", "127.0.0.1", replica.port)
        pipeline = old.client.pipeline(transaction=False)
        pipeline.set("a", "2")
        pipeline.ping()
        pipeline.set("a", "3")
        replies = pipeline.execute(raise_on_error=False)
        assert [type(each) for each in replies] == [ReadOnlyError, bool, ReadOnlyError]
        master.promote()
        master.stop()

        def follows() -> bool:
            return _refreshed(topology) and topology.node(b"a") is not old

        until(follows, what="another master")
        new = topology.node(b"a")
        assert new.name == f"127.0.0.1:{replica.port}"
        assert new.client.set("a", "4")
        # A former master that is back is not written to, though nobody has told it yet, nor refreshed.
        master.start()
        assert old.client.get("a") == b"4"
        old.client.close()
        topology.close()
