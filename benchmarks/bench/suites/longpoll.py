"""Ten thousand waiting long polls: their memory, what the store does meanwhile, and how soon one wakes."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any, cast

import uvloop

from bench.api import complete, content
from bench.processes import BenchmarkError
from bench.results import Options, Result, begin, finish
from bench.servers import Windlass, windlass

LONGEST_WAIT = 60
WAKES = 200
CONNECTIONS_AT_ONCE = 200
VARIANT = "windlass"


class Waiter(asyncio.Protocol):
    """One connection with one GET that waits; keeps when the whole answer was there."""

    __slots__ = ("answer", "answered_at", "arrivals")

    _REQUEST = b"GET /queues/bench/messages?wait=%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % LONGEST_WAIT

    def __init__(self, arrivals: asyncio.Queue[Waiter]) -> None:
        self.arrivals = arrivals
        self.answer = b""
        self.answered_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._REQUEST)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if complete(self.answer):
            self.answered_at = time.perf_counter()
            self.arrivals.put_nowait(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered_at:
            self.answer = f"closed without an answer: {error}".encode()
            self.arrivals.put_nowait(self)

    def message(self) -> dict[str, Any]:
        """The message that came; BenchmarkError for any other answer."""
        head, _, body = self.answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise BenchmarkError(f"a waiter was answered {self.answer[:200]!r}")
        message: dict[str, Any] = json.loads(body)
        return message


def run(options: Options) -> None:
    if options.waiters <= WAKES:
        raise BenchmarkError(f"--waiters must be more than the {WAKES} that are woken one by one")
    result = begin("longpoll", options)
    result.settings |= {"waiters": options.waiters, "wakes": WAKES}
    result.units |= {
        "memory a waiter": "KiB",
        "store calls while idle": "calls",
        "wake after the send began": "ms",
        "wake after the send's answer": "ms",
        "woken by one message": "waiters",
    }
    for round_ in range(1, options.rounds + 1):
        with (
            windlass(options.windlass, options.scratch) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(measure(result, round_, server))
    result.limit("memory a waiter, KiB", ("memory a waiter", VARIANT), at_most=15)
    result.limit("store calls while idle", ("store calls while idle", VARIANT), at_most=0)
    result.limit("wake after the send began, ms", ("wake after the send began", VARIANT), at_most=5)
    result.limit("waiters woken by one message", ("woken by one message", VARIANT), at_most=1)
    finish(result)


async def measure(result: Result, round_: int, server: Windlass) -> None:
    """One round on a fresh server; everything ends before the first wait runs out."""
    options = result.options
    before = server.process.memory()
    arrivals: asyncio.Queue[Waiter] = asyncio.Queue()
    started = time.monotonic()
    transports = await open_waiters(server.port, options.waiters, arrivals)
    await settle(server)
    memory = server.process.memory() - before
    result.add("memory a waiter", VARIANT, round_, memory / options.waiters / 1024)

    asked = store_calls(server)
    again = store_calls(server)
    await asyncio.sleep(options.seconds)
    idle = store_calls(server) - again - (again - asked)
    result.add("store calls while idle", VARIANT, round_, idle)
    if not arrivals.empty():
        raise BenchmarkError(f"a waiter was answered for nothing: {arrivals.get_nowait().answer[:200]!r}")

    after_start, after_answer, sent = await wake(server.port, arrivals)
    await settle(server)
    if time.monotonic() - started > LONGEST_WAIT:
        raise BenchmarkError(
            f"the round took more than the wait of {LONGEST_WAIT} s: fewer --waiters or --seconds"
        )
    if not arrivals.empty():
        raise BenchmarkError(f"{WAKES} messages woke {WAKES + arrivals.qsize()} waiters")
    await wake_the_rest(server, arrivals, options.waiters - WAKES)
    p99 = statistics.quantiles(after_start, n=100)[98]
    result.add("wake after the send began", VARIANT, round_, statistics.median(after_start), p99=p99)
    result.add("wake after the send's answer", VARIANT, round_, statistics.median(after_answer))
    result.add("woken by one message", VARIANT, round_, sent / WAKES)
    for transport in transports:
        transport.abort()


async def open_waiters(
    port: int, waiters: int, arrivals: asyncio.Queue[Waiter]
) -> list[asyncio.WriteTransport]:
    """Open all connections, some at once."""
    loop = asyncio.get_running_loop()
    transports: list[asyncio.WriteTransport] = []
    for first in range(0, waiters, CONNECTIONS_AT_ONCE):
        opened = await asyncio.gather(
            *(
                loop.create_connection(lambda: Waiter(arrivals), "127.0.0.1", port)
                for _ in range(min(CONNECTIONS_AT_ONCE, waiters - first))
            )
        )
        transports.extend(transport for transport, _ in opened)
    return transports


async def settle(server: Windlass) -> None:
    """Wait until the server has used no processor time for half a second."""
    for _ in range(60):
        before = server.process.cpu_seconds()
        await asyncio.sleep(0.5)
        if server.process.cpu_seconds() - before <= 0.02:
            return
    raise BenchmarkError("the server does not come to rest with its waiters")


def store_calls(server: Windlass) -> int:
    """Calls of the store's verbs since the start, as /status counts them."""
    counted = server.api.status().get("store_calls")
    if counted is None:
        raise BenchmarkError("/status does not tell store_calls")
    return sum(int(calls) for calls in counted.values())


async def next_answer(arrivals: asyncio.Queue[Waiter]) -> Waiter:
    try:
        return await asyncio.wait_for(arrivals.get(), 10)
    except TimeoutError as error:
        raise BenchmarkError("no waiter was answered within 10 s of a send") from error


async def wake_the_rest(server: Windlass, arrivals: asyncio.Queue[Waiter], waiters: int) -> None:
    """A message for each of the others shows that all of them were waiting."""
    await asyncio.to_thread(server.api.fill, "bench", waiters)
    received = {(await next_answer(arrivals)).message()["id"] for _ in range(waiters)}
    if len(received) != waiters:
        raise BenchmarkError(f"{waiters} waiters received {len(received)} different messages")


async def wake(port: int, arrivals: asyncio.Queue[Waiter]) -> tuple[list[float], list[float], int]:
    """Send one message at a time, each when the last has woken its waiter.

    Returns the milliseconds from the start and from the answer of each send to the waiter's answer
    (negative when the waiter was first), and the number of waiters woken.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"content": content("bench")}, separators=(",", ":")).encode()
    request = b"POST /queues/bench/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s"
    after_start, after_answer = [], []
    received: set[str] = set()
    for _ in range(WAKES):
        began = time.perf_counter()
        writer.write(request % (len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        answered = time.perf_counter()
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        sent = json.loads(await reader.readexactly(length))
        waiter = await next_answer(arrivals)
        message = waiter.message()
        if message["id"] != sent["id"]:
            raise BenchmarkError(f"sent {sent['id']}, but a waiter received {message['id']}")
        received.add(message["id"])
        after_start.append((waiter.answered_at - began) * 1e3)
        after_answer.append((waiter.answered_at - answered) * 1e3)
    writer.close()
    return after_start, after_answer, len(received)
