"""Clients that talk as no library does, over raw sockets: each gets its answer, and the server lives."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import ServerProcess

HOST = b"Host: localhost\r\n"
CLOSE = HOST + b"Connection: close\r\n"
BODY = b'{"content":1}'
POST = b"POST /queues/q/messages HTTP/1.1\r\n"
SEND = POST + HOST + b"Content-Length: 13\r\n\r\n" + BODY
GET = b"GET /queues/q/messages HTTP/1.1\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("rude") / "data") as running:
        httpx.post(running.url + "/queues", json={"name": "q"})
        yield running
        assert "Traceback" not in running.log


class Talk:
    """One connection, written to piece by piece."""

    def __init__(self, server: ServerProcess) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)

    def say(self, *pieces: bytes) -> Talk:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            try:
                self._socket.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        return self

    def half_close(self) -> Talk:
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def hear_some(self) -> bytes:
        """The next that comes."""
        return self._socket.recv(65_536)

    def hear(self) -> bytes:
        """All that comes until the server hangs up."""
        heard = b""
        with self._socket:
            try:
                while part := self._socket.recv(65_536):
                    heard += part
            except ConnectionResetError:
                pass
        return heard


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


def problem(heard: bytes, status: int, code: bytes) -> None:
    assert statuses(heard) == [status], heard
    assert b"content-type: application/problem+json\r\n" in heard
    assert b'"code":"' + code + b'"' in heard


def ready(server: ServerProcess) -> int:
    count: int = httpx.get(server.url + "/queues/q").json()["ready"]
    return count


@pytest.mark.parametrize(
    "pieces",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",),
        (b"FOO / HTTP/1.1\r\n\r\n",),
        (b"GET /queues/a b HTTP/1.1\r\n" + HOST + b"\r\n",),
        (b"GET /queues/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",),
        (b"GET ? HTTP/1.1\r\n" + HOST + b"\r\n",),
        (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",),
        (POST + HOST + b"Content-Length: -5\r\n\r\n",),
        (POST + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n",),
        (POST + HOST + b"Content-Length: 13\r\nContent-Length: 14\r\n\r\n" + BODY,),
        (POST + HOST + b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
        (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",),
    ],
    ids=lambda pieces: repr(pieces[0][:40]),
)
def test_what_is_no_http_is_400(server: ServerProcess, pieces: tuple[bytes, ...]) -> None:
    """Planted defect: the HTTP library's own answer in plain text."""
    problem(Talk(server).say(*pieces).hear(), 400, b"bad_request")
    assert ready(server) == 0


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n"])
@pytest.mark.parametrize("path", [b"messages", b"receive", b"purge"])
def test_a_body_cut_off_half_way_is_400_and_nothing_is_done(
    server: ServerProcess, head: bytes, path: bytes
) -> None:
    """Planted defect: taking the end of the connection for the end of the body."""
    start = b"POST /queues/q/" + path + b" HTTP/1.1\r\n" + HOST + head
    problem(Talk(server).say(start, b'{"con').half_close().hear(), 400, b"bad_request")
    assert ready(server) == 0


@pytest.mark.parametrize(
    "start",
    [b"GET /" + b"x" * 1_000_000, GET + b"X: " + b"y" * 1_000_000, GET + b"X: y\r\n" * 200_000],
    ids=["url", "header", "headers"],
)
def test_a_head_without_end_is_413(server: ServerProcess, start: bytes) -> None:
    """Planted defect: the parser collects a head of any size."""
    talk = Talk(server)
    speaking = threading.Thread(target=talk.say, args=(start,))
    speaking.start()
    problem(talk.hear(), 413, b"too_large")
    speaking.join(60)


def test_a_head_that_trickles_is_408_and_a_silent_connection_is_closed(tmp_path: Path) -> None:
    """Planted defect: waiting for a head for ever, so that a few clients take all connections."""
    with ServerProcess(tmp_path / "data", environment={"WINDLASS_BODY_TIMEOUT": "4"}) as server:
        silent = Talk(server)
        begun = Talk(server).say(b"GET /hea")
        late = Talk(server).say(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n", b"GET /hea")
        problem(begun.hear(), 408, b"request_timeout")
        assert silent.hear() == b""
        assert statuses(late.hear()) == [200, 408]


def test_a_head_in_pieces_is_a_head(server: ServerProcess) -> None:
    heard = (
        Talk(server)
        .say(b"GET /hea", b"lth HTTP/1.1\r\nHost: loc", b"alhost\r\nConnection: close\r\n\r\n")
        .hear()
    )
    assert statuses(heard) == [200]


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    heard = Talk(server).say(SEND * 3 + (GET + HOST + b"\r\n") * 4 + GET + CLOSE + b"\r\n").hear()
    assert statuses(heard) == [201, 201, 201, 200, 200, 200, 204, 204]


def test_what_comes_behind_a_long_poll_waits_for_it(server: ServerProcess) -> None:
    wait = b"GET /queues/q/messages?wait=0.2 HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(Talk(server).say(wait + GET + CLOSE + b"\r\n").hear()) == [204, 204]


def test_chunked_bodies_and_100_continue(server: ServerProcess) -> None:
    chunked = POST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY[:5] + b"\r\n"
    assert statuses(Talk(server).say(chunked, b"8\r\n" + BODY[5:] + b"\r\n0\r\n\r\n").hear()) == [201]
    expecting = POST + CLOSE + b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n"
    talk = Talk(server).say(expecting)
    assert statuses(talk.hear_some()) == [100]  # a body that comes with its head needs no leave
    assert statuses(talk.say(BODY).hear()) == [201]
    assert httpx.get(server.url + "/queues/q/messages?max=10").json()["messages"][1]["content"] == 1


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_is_answered_and_closed(server: ServerProcess, keep: bytes) -> None:
    heard = Talk(server).say(b"GET /status HTTP/1.0\r\n" + keep + b"\r\n").hear()
    assert statuses(heard) == [200]
    assert heard.endswith(b"}")


def test_a_body_that_a_get_brings_is_passed_over(server: ServerProcess) -> None:
    first = GET + HOST + b"Content-Length: 5\r\n\r\nhello"
    assert statuses(Talk(server).say(first + GET + CLOSE + b"\r\n").hear()) == [204, 204]


def test_an_upgrade_is_not_taken(server: ServerProcess) -> None:
    upgrade = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert statuses(Talk(server).say(upgrade).half_close().hear()) in ([200], [])
    assert httpx.get(server.url + "/health").status_code == 200


def test_a_client_that_hangs_up_in_a_long_poll_takes_nothing(server: ServerProcess) -> None:
    from tests.harness import until

    def waiting() -> Any:
        return httpx.get(server.url + "/status").json()["waiting"]

    talk = Talk(server).say(b"GET /queues/q/messages?wait=60 HTTP/1.1\r\n" + HOST + b"\r\n")
    until(lambda: waiting() == 1, what="the long poll")
    talk._socket.close()
    until(lambda: waiting() == 0, what="its end")
    httpx.post(server.url + "/queues/q/messages", json={"content": "kept"})
    assert httpx.get(server.url + "/queues/q/messages").json()["content"] == "kept"
