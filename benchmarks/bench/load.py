"""Python clients in a process of their own.

    python -m bench.load CLIENT OPERATION PORT CONNECTIONS SECONDS COUNT

Each connection has one operation under way. OPERATION is `send`, `receive` (one message and its
acknowledgement) or `check` (declares the queue and compares one message that goes through it). SECONDS 0
goes on until COUNT are done. Prints "completed=N microseconds=T". Everything runs on uvloop.

The clients of Windlass and beanstalkd are a few lines over asyncio's streams, which is also what nats-py
and redis-py's asyncio client are built on; RabbitMQ, NATS and Redis are driven by their own libraries.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import uvloop

from bench.api import content

TEXT = content("bench")
BODY = TEXT.encode()


class Client(Protocol):
    """One connection."""

    async def connect(self, port: int, index: int) -> None: ...

    async def declare(self) -> None:
        """Make the durable queue, where the broker wants that said."""

    async def subscribe(self) -> None:
        """Called once before the first `receive`."""

    async def send(self) -> None:
        """One message; returns once the server has confirmed it."""

    async def receive(self) -> bytes:
        """One message, acknowledged; its content."""
        ...

    async def close(self) -> None: ...


class _Streams:
    """A connection of asyncio's streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def connect(self, port: int, index: int) -> None:  # noqa: ARG002
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def declare(self) -> None:
        return

    async def subscribe(self) -> None:
        return

    async def close(self) -> None:
        self.writer.close()


class WindlassClient(_Streams):
    """HTTP/1.1 with keep-alive: a send is one request, a lease and its acknowledgement are two."""

    _SEND = (
        b"POST /queues/bench/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: %d\r\n\r\n{"content":"%s"}' % (len(BODY) + 14, BODY)
    )
    _LEASE = b"GET /queues/bench/messages?lease=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    _ACKNOWLEDGE = b"DELETE /queues/bench/receipts/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    async def send(self) -> None:
        await self._request(self._SEND, 201)

    async def receive(self) -> bytes:
        message = await self._request(self._LEASE, 200)
        await self._request(self._ACKNOWLEDGE % _text_after(message, b'"receipt":"'), 204)
        return _text_after(message, b'"content":"')

    async def _request(self, request: bytes, expected: int) -> bytes:
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        status, at = int(head[9:12]), head.find(b"\r\ncontent-length:")
        if status != expected:
            raise RuntimeError(f"{status} instead of {expected}: {head!r}")
        if at < 0:
            if status == 204:
                return b""
            raise RuntimeError(f"no content-length: {head!r}")
        return await self.reader.readexactly(int(head[at + 17 : head.index(b"\r\n", at + 2)]))


def _text_after(message: bytes, key: bytes) -> bytes:
    at = message.index(key) + len(key)
    return message[at : message.index(b'"', at)]


class BeanstalkClient(_Streams):
    _PUT = b"put 0 0 60 %d\r\n%s\r\n" % (len(BODY), BODY)

    async def send(self) -> None:
        self.writer.write(self._PUT)
        answer = await self.reader.readuntil(b"\r\n")
        if not answer.startswith(b"INSERTED"):
            raise RuntimeError(f"put: {answer!r}")

    async def receive(self) -> bytes:
        self.writer.write(b"reserve-with-timeout 0\r\n")
        word, number, size = (await self.reader.readuntil(b"\r\n")).split()
        if word != b"RESERVED":
            raise RuntimeError(f"reserve: {word!r}")
        message = await self.reader.readexactly(int(size) + 2)
        self.writer.write(b"delete %s\r\n" % number)
        if (answer := await self.reader.readuntil(b"\r\n")) != b"DELETED\r\n":
            raise RuntimeError(f"delete: {answer!r}")
        return message[:-2]


class RabbitClient:
    """aio-pika: persistent messages with publisher confirms; consumers with a prefetch of one.

    AMQP acknowledgements are not answered: the broker may lose one, Windlass and beanstalkd may not.
    """

    async def connect(self, port: int, index: int) -> None:  # noqa: ARG002
        import aio_pika

        self._connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
        self._channel = await self._connection.channel(publisher_confirms=True)
        self._exchange = self._channel.default_exchange
        self._message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)

    async def declare(self) -> None:
        await self._channel.declare_queue("bench", durable=True)

    async def subscribe(self) -> None:
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        await self._channel.set_qos(prefetch_count=1)
        queue = await self._channel.declare_queue("bench", durable=True)
        await queue.consume(self._arrived.put)

    async def send(self) -> None:
        await self._exchange.publish(self._message, routing_key="bench")

    async def receive(self) -> bytes:
        message = await self._arrived.get()
        await message.ack()
        return bytes(message.body)

    async def close(self) -> None:
        await self._connection.close()


class NatsClient:
    """nats-py on JetStream: a pull consumer asked for one message, its acknowledgement confirmed."""

    async def connect(self, port: int, index: int) -> None:  # noqa: ARG002
        import nats

        self._connection = await nats.connect(f"nats://127.0.0.1:{port}")
        self._stream = self._connection.jetstream()

    async def declare(self) -> None:
        from nats.js.api import RetentionPolicy, StorageType

        await self._stream.add_stream(
            name="bench", subjects=["bench"], storage=StorageType.FILE, retention=RetentionPolicy.WORK_QUEUE
        )

    async def subscribe(self) -> None:
        self._consumer = await self._stream.pull_subscribe("bench", durable="bench", stream="bench")

    async def send(self) -> None:
        await self._stream.publish("bench", BODY)

    async def receive(self) -> bytes:
        message = (await self._consumer.fetch(1, timeout=10))[0]
        await message.ack_sync(timeout=10)
        return bytes(message.data)

    async def close(self) -> None:
        await self._connection.close()


class RedisClient:
    """redis-py's asyncio client on a stream: XADD; XREADGROUP, then XACK and XDEL in one round trip."""

    async def connect(self, port: int, index: int) -> None:
        from redis.asyncio import Redis

        self._redis: Any = Redis(port=port, single_connection_client=True)
        await self._redis.initialize()
        self._name = f"c{index}"

    async def declare(self) -> None:
        await self._redis.xgroup_create("bench", "bench", id="$", mkstream=True)

    async def subscribe(self) -> None:
        return

    async def send(self) -> None:
        await self._redis.xadd("bench", {b"m": BODY})

    async def receive(self) -> bytes:
        found = await self._redis.xreadgroup("bench", self._name, {"bench": ">"}, count=1)
        if not found:
            raise RuntimeError("XREADGROUP: the stream ran dry")
        entries = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
        entry, fields = entries[0]
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xack("bench", "bench", entry)
        pipeline.xdel("bench", entry)
        if await pipeline.execute() != [1, 1]:
            raise RuntimeError("XACK and XDEL did not find the entry")
        return bytes(fields[b"m"])

    async def close(self) -> None:
        await self._redis.aclose()


CLIENTS: dict[str, Callable[[], Client]] = {
    "windlass": WindlassClient,
    "beanstalkd": BeanstalkClient,
    "rabbitmq": RabbitClient,
    "nats": NatsClient,
    "redis": RedisClient,
}


async def run(
    make: Callable[[], Client], operation: str, port: int, connections: int, seconds: float, count: int
) -> tuple[int, float]:
    """Operations completed and the seconds they took."""
    clients = [make() for _ in range(connections)]
    await asyncio.gather(*(client.connect(port, index) for index, client in enumerate(clients)))
    if operation == "check":
        await clients[0].declare()
    if operation != "send":
        await asyncio.gather(*(client.subscribe() for client in clients))
    started = time.perf_counter()
    deadline = started + (seconds or float("inf"))
    wanted = float("inf") if seconds else count
    completed = 0

    async def work(once: Callable[[], Awaitable[object]]) -> None:
        nonlocal completed
        while time.perf_counter() < deadline and completed < wanted:
            await once()
            completed += 1

    if operation == "check":
        await clients[0].send()
        if (found := await clients[0].receive()) != BODY:
            raise RuntimeError(f"sent {BODY!r} and received {found!r}")
        completed = 1
    else:
        await asyncio.gather(*(work(getattr(client, operation)) for client in clients))
    elapsed = time.perf_counter() - started
    await asyncio.gather(*(client.close() for client in clients))
    return completed, elapsed


def main() -> None:
    name, operation, port, connections, seconds, count = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        completed, elapsed = runner.run(
            run(CLIENTS[name], operation, int(port), int(connections), float(seconds), int(count))
        )
    print(f"completed={completed} microseconds={elapsed * 1e6:.0f}")


if __name__ == "__main__":
    main()
