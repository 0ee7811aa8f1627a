"""The short road of hot routes: whole requests, in pieces, one behind the other, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.contract.http.served import Served, Wire, settled
from windlass.server.protocol import MAX_SHORT, Protocol


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
        async with asyncio.timeout(5):
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


def test_who_left_before_the_commit_takes_nothing(q: Served) -> None:
    """Planted defect: the store is not told whose receive it is."""

    async def scenario() -> None:
        line = Line(q)
        line.say(request("GET", "/queues/q/messages"))
        line.wire.close()
        await asyncio.sleep(0)
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
