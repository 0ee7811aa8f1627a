"""The short road of hot routes: whole requests, in pieces, one behind the other, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.contract.http.served import Served, Wire, settled
from windlass.server.protocol import MAX_HEAD, MAX_SHORT, Cycle, Protocol
from windlass.store.operation import Receive


@pytest.fixture
def q(tmp_path: Path) -> Any:
    with Served(tmp_path / "data") as served:
        served.queue("q")
        yield served


class Line:
    """One connection."""

    def __init__(self, served: Served) -> None:
        config = uvicorn.Config(served.app, lifespan="off", log_config=None)
        config.load()
        self.wire = Wire()
        self.protocol = self.wire.protocol = Protocol(config, ServerState(), {})
        self.protocol.connection_made(self.wire)
        self.heard = b""

    def say(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.data_received(part)

    async def hear(self, enough: Callable[[bytes], bool]) -> bytes:
        """What was answered, once it is enough."""
        async with asyncio.timeout(60):
            while not enough(self.heard):
                self.heard += await self.wire.written.get()
        return self.heard


def request(method: str, path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def send(content: str, *headers: str, version: str = "1.1") -> bytes:
    return request(
        "POST", "/queues/q/messages", json.dumps({"content": content}).encode(), *headers, version=version
    )


def answers(count: int) -> Callable[[bytes], bool]:
    return lambda heard: heard.count(b"HTTP/1.1 ") == count and heard.endswith(b"}")


def test_a_request_means_the_same_wherever_it_is_cut(q: Served) -> None:
    """Planted defects: a body that takes the long road without its first part; a head that counts twice."""

    async def scenario() -> None:
        line, whole = Line(q), send("x")
        for cut in range(1, len(whole)):
            line.heard = b""
            line.say(whole[:cut], whole[cut:])
            assert (await line.hear(answers(1))).startswith(b"HTTP/1.1 201 Created")

    q.run(scenario())
    assert q.contents() == ["x"] * (len(send("x")) - 1)


def test_requests_one_behind_the_other_are_answered_in_order(q: Served) -> None:
    """Planted defect: the second hot request starts while the first is under way."""

    async def scenario() -> bytes:
        line = Line(q)
        take = request("GET", "/queues/q/messages?wait=5")
        line.say(b"".join([take, send("first"), request("GET", "/queues"), send("second")]))
        await settled(lambda: len(q.app.queues.lines))
        assert line.wire.written.empty()  # nothing overtakes the long poll
        await q.ask("POST", "/queues/q/messages", {"content": "wake up"})
        return await line.hear(answers(4))

    heard = q.run(scenario())
    statuses = [part[:3] for part in heard.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"201", b"200", b"201"]
    assert b'"wake up"' in heard.split(b"HTTP/1.1 ")[1]
    assert q.contents() == ["first", "second"]


@pytest.mark.parametrize("size", [MAX_SHORT - 100, MAX_SHORT + 100, 4 * MAX_SHORT])
def test_a_large_body_arrives_whole_on_either_road(q: Served, size: int) -> None:
    """Planted defect: what came before the change of roads is lost."""
    text = "x" * size

    async def scenario() -> None:
        line = Line(q)
        whole = send(text)
        line.say(*(whole[start : start + 65_536] for start in range(0, len(whole), 65_536)))
        await line.hear(answers(1))
        line.heard = b""
        line.say(whole)
        await line.hear(answers(1))

    q.queue("large", max_message_bytes=2_000_000)
    q("PATCH", "/queues/q", {"max_message_bytes": 2_000_000})
    q.run(scenario())
    assert q.contents() == [text, text]


@pytest.mark.parametrize("asked", [send("x", "Connection: close"), send("x", version="1.0")])
def test_a_connection_ends_after_its_last_request(q: Served, asked: bytes) -> None:
    async def scenario() -> Line:
        line = Line(q)
        line.say(asked)
        await line.hear(answers(1))
        await settled(line.wire.is_closing)
        return line

    line = q.run(scenario())
    assert b"\r\nconnection: close\r\n" in line.heard.lower()
    assert q.contents() == ["x"]


def test_who_left_before_the_commit_takes_nothing(q: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: the store is not told whose receive it is."""
    asks: Any = vars(Receive)["abandoned"].fget
    left = threading.Event()

    def asks_later(op: Receive) -> bool:
        """The store's thread may be at its commit before the loop knows."""
        assert left.wait(60)
        return bool(asks(op))

    monkeypatch.setattr(Receive, "abandoned", property(asks_later))

    async def scenario() -> None:
        line = Line(q)
        line.say(request("GET", "/queues/q/messages"))
        line.wire.close()
        await asyncio.sleep(0)
        left.set()
        assert (await q.ask("GET", "/status")).status_code == 200  # a commit later
        assert line.wire.written.get_nowait() == b""

    q.send("x")
    q.run(scenario())
    assert q.contents() == ["x"]


def test_a_long_poll_whose_client_leaves_lets_go_of_its_place(q: Served) -> None:
    """Planted defect: the end of the connection is not passed on to the line."""

    async def scenario() -> None:
        line = Line(q)
        line.say(request("GET", "/queues/q/messages?wait=60"))
        await settled(lambda: len(q.app.queues.lines))
        line.wire.close()
        await settled(lambda: not len(q.app.queues.lines))

    q.run(scenario())


def test_a_fault_of_our_own_is_a_500_and_the_connection_lives(
    q: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("planted")

    async def scenario() -> bytes:
        line = Line(q)
        with monkeypatch.context() as patch:
            patch.setattr(q.app.store, "send", broken)
            line.say(send("x"))
            await line.hear(answers(1))
        line.say(send("x"))
        return await line.hear(answers(2))

    heard = q.run(scenario())
    assert heard.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"internal"' in heard
    assert heard.count(b"HTTP/1.1 201 ") == 1


def test_an_idle_connection_is_closed_and_one_that_waits_is_not(q: Served) -> None:
    """Planted defects: a timer that no answer sets; one that does not ask whether a request is under way."""

    async def scenario() -> None:
        idle, waiting = Line(q), Line(q)
        for line in (idle, waiting):
            line.protocol.timeout_keep_alive = 0
            line.say(send("x"))
        waiting.say(request("GET", "/queues/q/messages"))
        await waiting.hear(answers(2))
        waiting.say(request("GET", "/queues/empty/messages?wait=60"))
        await settled(lambda: len(q.app.queues.lines))
        await settled(idle.wire.is_closing)
        assert not waiting.wire.is_closing()
        waiting.wire.close()

    q.queue("empty")
    q.run(scenario())


def test_who_left_with_requests_in_the_pipeline_takes_nothing(q: Served) -> None:
    """Planted defect (uvicorn's own): only the newest request is told that the connection is gone."""

    async def scenario() -> None:
        line = Line(q)
        line.say(request("GET", "/queues/q/messages?wait=60") + request("GET", "/queues"))
        await settled(lambda: len(q.app.queues.lines))
        line.wire.close()
        await settled(lambda: not len(q.app.queues.lines))

    q.run(scenario())
    q.send("x")
    assert q.contents() == ["x"]


@pytest.mark.parametrize("whole", [True, False])
def test_garbage_behind_a_send_is_not_answered_in_its_place(q: Served, whole: bool) -> None:
    """Planted defect: a 400 that stands where the 201 of the send should, so that it is sent again."""

    async def scenario() -> bytes:
        line = Line(q)
        line.say(send("x") + (b"" if whole else send("y")) + b"\0garbage\r\n\r\n")
        await settled(lambda: q.app.store.ready("q"))
        await settled(line.wire.is_closing)
        while not line.wire.written.empty():
            line.heard += line.wire.written.get_nowait()
        return line.heard

    assert b" 400 " not in q.run(scenario())


def test_many_small_heads_are_not_one_large_one(q: Served) -> None:
    """Planted defect: reads that end inside different heads add up."""
    whole = send("x")

    async def scenario() -> bytes:
        line = Line(q)
        count = MAX_HEAD * 2 // len(whole)
        stream = whole * count
        for start in range(0, len(stream), 1000):
            line.say(stream[start : start + 1000])
        return await line.hear(answers(count))

    assert q.run(scenario()).count(b" 201 Created") == MAX_HEAD * 2 // len(whole)


def test_what_follows_the_last_request_of_a_connection_is_not_done(q: Served) -> None:
    """The parser sees to it. Planted defect: one with lenient_keep_alive, and a send that is stored and never
    answered."""

    async def scenario() -> bytes:
        line = Line(q)
        line.say(request("POST", "/queues/q/messages", b"{", "Connection: close") + send("x"))
        return await line.hear(lambda heard: heard.endswith(b"}"))

    assert q.run(scenario()).startswith(b"HTTP/1.1 400 ")
    assert q.contents() == []


@pytest.mark.parametrize("asked", [b"", b"\r\n"])
def test_a_connection_that_asks_for_nothing_is_closed(q: Served, asked: bytes) -> None:
    """Planted defect: an empty line that takes the connection's time limit away."""

    async def scenario() -> None:
        line = Line(q)
        line.say(asked)
        assert line.protocol._late is not None
        line.protocol._head_is_late()
        assert line.wire.is_closing()

    q.run(scenario())


def test_a_long_poll_leaves_nothing_for_the_garbage_collector(q: Served) -> None:
    """Planted defect: a call-back by which the connection holds what it was sent."""

    async def scenario() -> None:
        line = Line(q)
        line.say(request("GET", "/queues/q/messages?wait=60"))
        await settled(lambda: len(q.app.queues.lines))
        gone = line.protocol._running
        assert isinstance(gone, Cycle)
        await q.ask("POST", "/queues/q/messages", {"content": "x"})
        await line.hear(answers(1))
        assert gone.gone()._callbacks in (None, [])

    q.run(scenario())


@pytest.mark.parametrize("step", [1, 50, 10_000])
def test_a_client_that_offers_http_2_is_served_as_it_asked(q: Served, step: int) -> None:
    """As Java's client does by default. Planted defect: its body is skipped, and read as a request."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")

    async def scenario() -> None:
        line = Line(q)
        stream = send("x", *offer) + send("y", *offer) + request("GET", "/queues", b"", *offer)
        line.say(*(stream[start : start + step] for start in range(0, len(stream), step)))
        heard = await line.hear(answers(3))
        assert [part[:3] for part in heard.split(b"HTTP/1.1 ")[1:]] == [b"201", b"201", b"200"]

    q.run(scenario())
    assert q.contents() == ["x", "y"]


# --- the server's stop ----------------------------------------------------------------------------


def test_who_is_in_the_middle_of_asking_when_the_server_stops_is_answered(q: Served) -> None:
    """Planted defect: uvicorn's own way, which hangs up on whoever has not asked in full."""
    whole = send("x")

    async def scenario() -> list[bytes]:
        came, began, came_late = Line(q), Line(q), Line(q)
        began.say(whole[:30])
        q.app.draining = True
        for each in (came, began, came_late):
            each.protocol.shutdown()
            assert not each.wire.is_closing()
        began.say(whole[30:])
        came.say(whole)
        heard = [await each.hear(answers(1)) for each in (came, began)]
        assert came.wire.is_closing()
        assert began.wire.is_closing()
        await settled(came_late.wire.is_closing)  # it asks for nothing: its moment is over
        assert came_late.wire.written.get_nowait() == b""
        return heard

    for heard in q.run(scenario()):
        assert heard.startswith(b"HTTP/1.1 201 ")
        assert b"connection: close\r\n" in heard


def test_who_has_had_an_answer_is_hung_up_on_when_the_server_stops(q: Served) -> None:
    """Planted defect: every idle connection gets a moment, and a stop takes one."""

    async def scenario() -> None:
        line = Line(q)
        line.say(send("x"))
        await line.hear(answers(1))
        line.protocol.shutdown()
        assert line.wire.is_closing()

    q.run(scenario())


def test_whoever_comes_while_the_server_stops_is_not_waited_for(q: Served) -> None:
    """Planted defect: one that was taken at the last moment keeps the server until its time is over."""

    async def scenario() -> None:
        q.app.stopping = True
        line = Line(q)
        assert not line.wire.is_closing()
        await settled(line.wire.is_closing)

    q.run(scenario())
