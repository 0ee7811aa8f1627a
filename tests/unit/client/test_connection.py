"""The short road to the server: every form that an answer may take, and what is none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from windlass.client.connection import Connections, suits
from windlass.client.errors import AnswerLost, BadAnswer, Unreachable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A port that answers each request with the next of its texts; after the last it closes."""

    def __init__(self, *answers: bytes, last: bool = True) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.talks: list[asyncio.Task[None] | None] = []
        self._last = last

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.talks.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int([*head.lower().split(b"content-length:"), b"0"][1].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                self.asked.set()
                writer.write(self.answers.pop(0))
                if not self._last and not self.answers:
                    await reader.read()
        writer.close()
        self.gone.set()
        with suppress(ConnectionError):
            await writer.wait_closed()


def ask(peer_of: Callable[[], Peer], scenario: Callable[[Connections, Peer], Awaitable[None]]) -> None:
    async def main() -> None:
        peer = peer_of()
        server = await asyncio.start_server(peer.talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connections = Connections(f"http://127.0.0.1:{port}/base/", 1000)
        try:
            await scenario(connections, peer)
        finally:
            connections.close()
            server.close()
            await asyncio.gather(*filter(None, peer.talks), return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, b"{}"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: x\r\n\r\n{}", 200, b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 401, b""),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 301, b""),
    ],
)
def test_what_is_an_answer(answer: bytes, status: int, body: bytes) -> None:
    async def scenario(connections: Connections, peer: Peer) -> None:
        got = await connections.request("PUT", "/x?y=1", {"authorization": "Bearer t"}, b"body")
        assert got == (status, body)
        [request] = peer.requests
        lines = request.split(b"\r\n")
        assert lines[0] == b"PUT /base/x?y=1 HTTP/1.1"
        assert {b"authorization: Bearer t", b"content-length: 4"} < set(lines)
        assert lines[-1] == b"body"

    ask(lambda: Peer(answer), scenario)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", AnswerLost),
        (b"HTTP/1.1 200 OK\r\nContent-Le", AnswerLost),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", AnswerLost),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}", AnswerLost),
        (b"SSH-2.0-OpenSSH\r\n", BadAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", BadAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, BadAnswer),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 5000, BadAnswer),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", BadAnswer),
    ],
)
def test_what_is_none(answer: bytes, kind: type[Exception]) -> None:
    """Planted defect: half an answer taken for a whole one, or a wait for ever."""

    async def scenario(connections: Connections, _peer: Peer) -> None:
        with pytest.raises(kind):
            async with asyncio.timeout(60):
                await connections.request("GET", "/x", {}, None)

    ask(lambda: Peer(answer), scenario)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


def test_a_connection_is_used_again_and_one_that_was_closed_is_not() -> None:
    """Planted defect: a request is written to a connection that the server has closed meanwhile."""

    async def scenario(connections: Connections, peer: Peer) -> None:
        for number in (b"1", b"2"):
            assert (await connections.request("GET", "/x", {}, None))[1] == number
        assert peer.connections == 1
        await peer.gone.wait()
        async with asyncio.timeout(60):
            while connections._idle[0].usable:  # noqa: ASYNC110 - nobody is told when the end has arrived
                await asyncio.sleep(0.001)
        peer.answers.append(OK + b"3")
        assert (await connections.request("GET", "/x", {}, None))[1] == b"3"
        assert peer.connections == 2

    ask(lambda: Peer(OK + b"1", OK + b"2"), scenario)


def test_a_request_that_was_given_up_leaves_its_answer_to_nobody() -> None:
    """Planted defect: the answer to a cancelled request is taken for the next one's."""

    async def scenario(connections: Connections, peer: Peer) -> None:
        asking = asyncio.create_task(connections.request("GET", "/1", {}, None))
        await peer.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        peer.answers += [OK + b"2"]
        assert (await connections.request("GET", "/2", {}, None))[1] == b"2"
        assert peer.connections == 2

    ask(lambda: Peer(b"", last=False), scenario)


def test_an_answer_to_nothing_ends_the_connection() -> None:
    async def scenario(connections: Connections, peer: Peer) -> None:
        assert (await connections.request("GET", "/x", {}, None))[1] == b"1"
        peer.answers.append(OK + b"2")
        assert (await connections.request("GET", "/x", {}, None))[1] == b"2"

    ask(lambda: Peer(OK + b"1" + OK + b"9"), scenario)


def test_many_at_once_have_a_connection_each() -> None:
    async def scenario(connections: Connections, peer: Peer) -> None:
        peer.answers += [OK + b"1"] * 40
        got = await asyncio.gather(*(connections.request("GET", "/x", {}, None) for _ in range(40)))
        assert got == [(200, b"1")] * 40

    ask(lambda: Peer(), scenario)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.test", "https://127.0.0.1:1"])
def test_nobody_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match="cannot reach"):
        asyncio.run(Connections(url, 1000).request("GET", "/x", {}, None))


def test_what_goes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert suits("http://127.0.0.1:8000")
    assert not suits("http://user:pass@127.0.0.1:8000")
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    assert not suits("http://10.0.0.1")
    monkeypatch.setenv("no_proxy", "10.0.0.1")
    assert suits("http://10.0.0.1")
