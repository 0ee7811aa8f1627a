"""What a crash tore, at the end of the append-only file of real servers: nothing is written behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import BusyLoadingError

from tests.harness import until
from tests.redis_server import RedisServer, ValkeyServer
from windlass.errors import StoreUnavailable
from windlass.store.redis import persistence, torn_file
from windlass.store.redis.address import parse
from windlass.store.redis.durability import Durability, Reader
from windlass.store.redis.faults import TornFile, unavailable
from windlass.store.redis.topology import Node, Topology


@pytest.fixture(params=[RedisServer, ValkeyServer])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = request.param()
    yield server
    server.close()


@contextlib.contextmanager
def opened(server: RedisServer) -> Iterator[redis.Redis]:
    """A client as the store has one, over a new connection."""
    with contextlib.closing(Topology(parse(server.url), patience=60)) as topology:
        yield topology.nodes()[0].client


def judged(url: str) -> Durability:
    with (
        contextlib.closing(Topology(parse(url), patience=60)) as topology,
        contextlib.closing(Reader(topology, "fsync", 1)) as reader,
    ):
        return reader.read()


def packed(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def tear(server: RedisServer) -> None:
    """Lose the power in the middle of a function that takes `kept` away and has nobody's answer."""
    server.stop()
    folder = server.folder / "appendonlydir"
    (manifest,) = folder.glob("*.manifest")
    last = manifest.read_text().splitlines()[-1].split()[1]
    with (folder / last).open("ab") as file:
        file.write(packed(b"SELECT", b"0") + packed(b"MULTI") + packed(b"DEL", b"kept"))
        file.write(packed(b"SET", b"taken", b"1")[:-5])
    server.start()


def rewrites(server: RedisServer) -> int:
    told: int = server.do("INFO")["aof_rewrites"]
    return told


def whole(server: RedisServer) -> bool:
    told = server.do("INFO")
    return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]


def test_half_of_a_write_is_never_done(server: RedisServer) -> None:
    """Planted: connections that begin with nothing. Redis then does the half at the start after next."""
    server.do("SET", "kept", 1)
    tear(server)
    with opened(server) as client:
        client.set("answered", 1)
        with client.pipeline(transaction=True) as pipeline:
            pipeline.set("also", 1)
            pipeline.set("this", 1)
            pipeline.execute()
    until(lambda: whole(server), what="the new file")
    server.stop()
    server.start()
    assert set(server.do("KEYS", "*")) == {b"kept", b"answered", b"also", b"this"}


def test_a_new_file_is_begun_once(server: RedisServer) -> None:
    """Planted: at each connection; none after the next start."""
    for _ in range(2):
        server.do("SET", "a", 1)
        server.stop()
        server.start()
        for _ in range(3):
            with opened(server) as client:
                client.ping()
        assert rewrites(server) == 1
        until(lambda: whole(server), what="the new file")


@pytest.mark.parametrize("options", [("--aof-load-truncated", "no"), ("--appendonly", "no")])
def test_where_nothing_can_be_torn_no_file_is_begun(options: tuple[str, ...]) -> None:
    with RedisServer(*options) as server:
        server.do("SET", "a", 1)
        with opened(server) as client:
            client.set("a", 1)
        assert rewrites(server) == 0
        assert not judged(server.url).masters[0].file_may_be_torn


def test_a_server_without_anything_in_its_file_begins_none(server: RedisServer) -> None:
    """Its new file would look unfinished, and the start would be refused."""
    for _ in range(2):
        with opened(server) as client:
            client.ping()
        assert rewrites(server) == 0
        server.stop()
        server.start()


def test_a_replica_begins_none_for_us() -> None:
    """It is sent all that its master has, and writes that anew."""
    with RedisServer() as master, master.replica() as replica:
        before = rewrites(replica)
        with contextlib.closing(Topology(parse(master.url), patience=60)) as topology:
            assert topology.beside(("127.0.0.1", replica.port), 60).ping()
        assert rewrites(replica) == before


def test_who_may_not_begin_one_is_advised(server: RedisServer) -> None:
    """Planted: a user without the right is refused; nobody is told."""
    server.do("SET", "a", 1)
    server.do("ACL SETUSER", "clerk", "on", ">secret", "~*", "&*", "+@all", "-bgrewriteaof")
    url = f"redis://clerk:secret@{server.address}/0"
    durability = judged(url)
    assert durability.masters[0].file_may_be_torn
    assert not durability.lacks
    assert any("+bgrewriteaof" in advice for advice in durability.advice)
    assert not any("+bgrewriteaof" in advice for advice in judged(server.url).advice)
    assert not judged(url).masters[0].file_may_be_torn


def test_while_a_snapshot_is_written_nothing_is(server: RedisServer) -> None:
    """The new file has to wait for it. Planted: a connection that takes "scheduled" for begun."""
    server.do("SET", "a", 1)
    server.do("CONFIG SET", "rdb-key-save-delay", 2**31 - 1)  # µs
    server.do("BGSAVE")
    with pytest.raises(StoreUnavailable, match="BGREWRITEAOF") as refused, opened(server):
        pass
    assert "rewriting scheduled" in str(refused.value)
    server.do("CONFIG SET", "save", "")
    server.do("CONFIG SET", "rdb-key-save-delay", 0)
    server.stop()
    server.start()
    with opened(server) as client:
        client.set("b", 1)


def test_a_connection_of_the_time_of_loading_is_not_kept(server: RedisServer) -> None:
    """While it reads its file a server tells nothing of it. Planted: no look at `loading`: what was asked
    then, the settings say, leaves a connection behind that begins no file, and writes later."""
    with contextlib.closing(Topology(parse(server.url), patience=60)) as topology:
        (node,) = topology.nodes()
        with server.client() as patient, patient.pipeline(transaction=False) as pipeline:
            for n in range(20_000):
                pipeline.set(n, n)
            pipeline.execute()
        server.stop()
        server.arguments = ("--key-load-delay", "100")
        server.launch()
        until(lambda: answered(node), what="a server that is loading")
        server.wait_until_ready()
        node.client.set("written", 1)
    assert rewrites(server) == 1


def answered(node: Node) -> bool:
    """Whether a server that was asked for its settings told them, or that it is loading."""
    try:
        persistence.read(node.name, node.client)
    except StoreUnavailable as error:
        return isinstance(error.__cause__, BusyLoadingError)
    return True


def test_a_failure_to_begin_one_is_plain() -> None:
    told = unavailable(TornFile("ERR no room"))
    assert type(told) is StoreUnavailable
    assert "begin a new append-only file" in told.detail
    assert "Nothing was done" in told.detail


WRITTEN: dict[str, str | int] = {
    "role": "master",
    "aof_enabled": 1,
    "aof_rewrites": 0,
    "aof_current_size": 90,
    "aof_base_size": 89,
}


@pytest.mark.parametrize(
    ("info", "setting", "torn"),
    [
        ({}, None, True),
        ({}, "yes", True),
        ({}, "no", False),
        ({"role": "slave"}, "yes", False),
        ({"aof_enabled": 0}, "yes", False),
        ({"aof_rewrites": 1}, "yes", False),
        ({"aof_current_size": 89}, "yes", False),
    ],
)
def test_what_may_be_torn(info: dict[str, str | int], setting: str | None, torn: bool) -> None:
    assert torn_file.may_be_torn(WRITTEN | info, setting) is torn
    assert not torn_file.may_be_torn({}, setting)
