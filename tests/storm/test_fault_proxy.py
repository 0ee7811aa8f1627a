"""The wire that breaks is tested first: each fault does what it says, where it says, and heals."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.retry import Retry

from tests.fault_proxy import FaultProxy
from tests.harness import until
from tests.redis_server import RedisServer
from tests.resp import Frames

pytestmark = pytest.mark.storm

FRAMES = (
    b"+OK\r\n", b"-ERR no\r\n", b":12\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$4\r\n\r\n\r\n\r\n",
    b"*0\r\n", b"*-1\r\n", b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n+x\r\n", b"%1\r\n+a\r\n*1\r\n:1\r\n",
    b"~2\r\n:1\r\n:2\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"|1\r\n+ttl\r\n:3\r\n*1\r\n:4\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n", b"=5\r\ntxt:a\r\n", b"!3\r\nERR\r\n",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer("--appendfsync", "no") as server:
        yield server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    server.empty()
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[redis.Redis]:
    """One connection, which breaks without a second attempt."""
    with contextlib.closing(connect(proxy)) as client:
        client.ping()
        yield client


def connect(proxy: FaultProxy, timeout: float = 60) -> redis.Redis:
    return redis.from_url(
        proxy.url, socket_timeout=timeout, socket_connect_timeout=60, retry=Retry(NoBackoff(), 0)
    )


def test_frames_end_where_they_end() -> None:
    """In pieces of any size. Fails when a bulk's length, or a frame's depth, is not kept in mind."""
    rng = random.Random(1)
    for _ in range(200):
        sent = rng.choices(FRAMES, k=6)
        stream, frames, found = b"".join(sent), Frames(), []
        while stream:
            size = rng.randint(1, 20)
            found += frames.feed(stream[:size])
            stream = stream[size:]
        assert found == sent
        assert frames.rest == b""


def test_without_a_fault_it_is_not_there(client: redis.Redis) -> None:
    """Fails when a byte more or less comes through, or a large reply stops for ever."""
    value = random.Random(1).randbytes(3_000_000)
    pipeline = client.pipeline(transaction=False)
    for number in range(20):
        pipeline.set(f"key-{number}", value[number:])
        pipeline.get(f"key-{number}")
    assert pipeline.execute()[1::2] == [value[number:] for number in range(20)]


@pytest.mark.parametrize("number", [1, 3])
def test_a_reply_is_cut_in_its_middle(proxy: FaultProxy, client: redis.Redis, number: int) -> None:
    """All three commands are done. Fails when a whole reply is handed on, or another is cut."""
    proxy.cut_in_reply(number)
    pipeline = client.pipeline(transaction=False)
    for each in range(3):
        pipeline.incr(f"{each}")
    with pytest.raises(redis.ConnectionError):
        pipeline.execute()
    assert proxy.happened.wait(60)
    assert client.mget("0", "1", "2") == [b"1"] * 3  # on another connection


@pytest.mark.parametrize("at", [0, 1, 7, 8])
def test_a_reply_is_cut_at_a_byte(proxy: FaultProxy, at: int) -> None:
    """Fails when a byte more or less is handed on."""
    with socket.create_connection(("127.0.0.1", proxy.port), 60) as connection:
        connection.sendall(b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n")
        assert connection.recv(100) == b"$2\r\nhi\r\n"
        proxy.cut_in_reply(at=at)
        connection.sendall(b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n")
        assert b"".join(iter(lambda: connection.recv(100), b"")) == b"$2\r\nhi\r\n"[:at]


def test_replies_end_after_so_many_bytes(proxy: FaultProxy, client: redis.Redis) -> None:
    """Fails when the bytes of one reply alone are counted."""
    client.set("large", b"x" * 1_000)
    proxy.cut_after(2_500)
    assert client.get("large") == client.get("large") == b"x" * 1_000
    with pytest.raises(redis.ConnectionError):
        client.get("large")
    assert proxy.happened.wait(60)


def test_the_same_seed_cuts_at_the_same_byte(proxy: FaultProxy, server: RedisServer) -> None:
    """Fails when chance has another source."""

    def cuts(proxy: FaultProxy) -> list[int]:
        found = []
        for _ in range(5):
            proxy.cut_in_reply()
            with socket.create_connection(("127.0.0.1", proxy.port), 60) as connection:
                connection.sendall(b"*2\r\n$4\r\nECHO\r\n$400\r\n" + b"x" * 400 + b"\r\n")
                found.append(sum(map(len, iter(lambda: connection.recv(1_000), b""))))
        return found

    with FaultProxy(server.port, seed=7) as one, FaultProxy(server.port, seed=7) as another:
        assert cuts(one) == cuts(another) != cuts(proxy)


def test_a_stall_hands_on_nothing_until_it_heals(proxy: FaultProxy, server: RedisServer) -> None:
    """Fails when the command comes through, or is forgotten."""
    with contextlib.closing(connect(proxy, timeout=0.2)) as client:
        client.ping()
        proxy.stall()
        with pytest.raises(redis.TimeoutError):
            client.incr("count")
        assert server.do("GET", "count") is None
        proxy.heal()
        assert client.incr("other") == 1
        assert server.do("GET", "count") in (None, b"1")  # its connection was closed meanwhile


def test_what_a_stall_holds_comes_through(proxy: FaultProxy) -> None:
    """Fails when what was sent during the stall is lost."""
    with socket.create_connection(("127.0.0.1", proxy.port), 60) as connection:
        proxy.stall()
        connection.sendall(b"*1\r\n$4\r\nPING\r\n")
        proxy.heal()
        assert connection.recv(100) == b"+PONG\r\n"


def test_only_subscribers_stall(proxy: FaultProxy, client: redis.Redis) -> None:
    """Fails when the others stall too, or what was published meanwhile is lost."""
    with subscribing(client) as subscriber:
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=60) is not None
        proxy.stall(subscribers=True)
        assert client.publish("news", "one") == 1
        assert subscriber.get_message(timeout=0.1) is None
        proxy.heal()
        assert heard(subscriber)["data"] == b"one"


@pytest.mark.parametrize("protocol", [2, 3])
def test_notifications_alone_are_lost(proxy: FaultProxy, server: RedisServer, protocol: int) -> None:
    """Fails when one comes through, when its connection breaks, or when replies on it are lost, too."""
    url = f"{proxy.url}?protocol={protocol}"
    with contextlib.closing(redis.from_url(url)) as client, subscribing(client) as subscriber:
        subscriber.subscribe("news")
        subscriber.ssubscribe("sharded")
        assert [heard(subscriber)["type"] for _ in range(2)] == ["subscribe", "ssubscribe"]
        proxy.lose_notifications()
        assert server.do("PUBLISH", "news", "lost") == server.do("SPUBLISH", "sharded", "lost") == 1
        subscriber.ping()
        assert heard(subscriber)["type"] == "pong"
        proxy.heal()
        assert server.do("PUBLISH", "news", "heard") == 1
        assert heard(subscriber)["data"] == b"heard"


def test_a_slow_wire_takes_its_time(proxy: FaultProxy, client: redis.Redis) -> None:
    """Fails when one of both ways is not slowed down."""
    proxy.slow(0.3)
    with contextlib.closing(connect(proxy, timeout=0.5)) as hasty, pytest.raises(redis.TimeoutError):
        hasty.ping()
    assert client.ping()


def test_it_refuses_and_comes_back(proxy: FaultProxy, client: redis.Redis) -> None:
    """Fails when the old connection lives on, or the port is another afterwards."""
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    proxy.heal()
    assert client.ping()


def test_it_leads_to_another(proxy: FaultProxy, client: redis.Redis, server: RedisServer) -> None:
    """Fails when an old connection still leads to the old server."""
    with RedisServer("--appendfsync", "no") as other:
        proxy.redirect(other.port)
        until(lambda: pinged(client))
        client.set("where", "other")
        assert (other.do("GET", "where"), server.do("GET", "where")) == (b"other", None)


def test_a_server_that_ends_is_not_there(proxy: FaultProxy, client: redis.Redis) -> None:
    """Fails when the client is left waiting."""
    with RedisServer("--appendfsync", "no") as other:
        proxy.redirect(other.port)
        until(lambda: pinged(client))
        other.stop()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        other.start()
        assert client.ping()


def subscribing(client: redis.Redis) -> PubSub:
    made: PubSub = client.pubsub()  # type: ignore[no-untyped-call]
    return made


def heard(subscriber: PubSub) -> dict[str, Any]:
    """The next that it is told."""
    told: dict[str, Any] = next(subscriber.listen())  # type: ignore[no-untyped-call]
    return told


def pinged(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False
