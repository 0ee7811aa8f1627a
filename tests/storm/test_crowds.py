"""Ten thousand idle connections, bodies that trickle, and messages at and over the limit."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.harness import ServerProcess, until
from tests.storm.talk import assert_problem, client, create, receive_all, send, send_all

pytestmark = pytest.mark.storm

CROWD = 10_000
MEBIBYTE = 1_048_576
POST = b"POST /queues/q/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POSTS = {
    "http": POST,
    "sqs": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-amz-json-1.0\r\n"
    b"X-Amz-Target: AmazonSQS.SendMessage\r\n",
    "query": b"POST /000000000000/q HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n",
}
"""How a send begins, over each protocol."""
EVERY_POST = pytest.mark.parametrize("post", POSTS.values(), ids=POSTS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """One that lets its clients take their time."""
    with ServerProcess(tmp_path / "data", environment={"WINDLASS_BODY_TIMEOUT": "3600"}) as server:
        yield server


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with client(server) as http:
        create(http)
        yield http


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_ten_thousand_idle_connections_hold_nobody_up(server: ServerProcess, http: httpx.Client) -> None:
    """Planted: a thread a connection; a limit of 1,024 open files that the server does not raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > CROWD + 100, f"this test needs {CROWD + 100} open files, and the limit is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = open_files(server.pid)
    with ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
        until(lambda: open_files(server.pid) >= before + CROWD, 60, "every connection accepted")
        send_all(http, [f"{number}" for number in range(100)])
        assert receive_all(http) == [f"{number}" for number in range(100)]
    until(lambda: open_files(server.pid) < before + 100, 60, "the connections to be gone")
    send_all(http, ["after"])
    assert receive_all(http) == ["after"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def trickle(crowd: ExitStack, server: ServerProcess, post: bytes) -> list[socket.socket]:
    """Fifty connections on which a body has begun."""
    slow = []
    for _ in range(50):
        each = crowd.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
        each.sendall(post + b"Content-Length: 9999\r\n\r\n{")
        slow.append(each)
    return slow


@EVERY_POST
def test_a_body_that_trickles_holds_nobody_up(server: ServerProcess, http: httpx.Client, post: bytes) -> None:
    """Planted: one request read at a time."""
    with ExitStack() as crowd:
        trickle(crowd, server, post)
        send_all(http, [f"{number}" for number in range(50)])
        assert receive_all(http) == [f"{number}" for number in range(50)]


@EVERY_POST
def test_a_body_that_trickles_ends(tmp_path: Path, post: bytes) -> None:
    """Planted: a time-out that every byte begins anew."""
    hurried = ServerProcess(tmp_path / "data", environment={"WINDLASS_BODY_TIMEOUT": "3"})
    with hurried as server, client(server) as http, ExitStack() as crowd:
        create(http)
        slow = trickle(crowd, server, post)
        for each in slow:
            each.setblocking(False)

        def all_ended() -> bool:
            """Each sends one byte more, unless it was answered or closed."""
            for each in list(slow):
                try:
                    each.send(b" ")
                    answer = each.recv(4096)
                except BlockingIOError:
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    answer = b""
                assert answer == b"" or b" 408 " in answer.splitlines()[0], answer
                slow.remove(each)
            return not slow

        until(all_ended, what="the end of those that trickle")
        assert receive_all(http) == []


def test_a_message_at_the_limit_is_kept_and_one_over_it_is_refused(http: httpx.Client) -> None:
    """Counted in bytes of UTF-8 of the JSON text. Planted: `>=` for `>`; characters for bytes."""
    create(http, "small", max_message_bytes=1_000)
    whole, over = "x" * 998, "x" * 999  # and two quotes
    assert send(http, whole, "small").status_code == 201
    assert_problem(send(http, over, "small"), 413, "too_large")
    wide = "\u00e9" * 499  # two bytes each
    body = f'{{"content": "{wide}"}}'.encode()
    assert http.post("/queues/small/messages", content=body).status_code == 201
    body = f'{{"content": "{wide}x"}}'.encode()
    assert_problem(http.post("/queues/small/messages", content=body), 413, "too_large")
    batch = {"messages": [{"content": "fits"}, {"content": over}]}
    assert_problem(http.post("/queues/small/messages", json=batch), 413, "too_large")
    assert receive_all(http, "small") == [whole, wide]


def test_a_message_of_a_mebibyte_is_kept_and_a_batch_over_sixteen_is_refused(http: httpx.Client) -> None:
    """Planted: a body limit below what a batch may hold; half of a batch that is too large."""
    whole = "x" * (MEBIBYTE - 2)
    assert send(http, whole).status_code == 201
    assert_problem(send(http, whole + "x"), 413, "too_large")
    batch = {"messages": [{"content": whole[:-1_000]}] * 15}
    assert http.post("/queues/q/messages", json=batch).status_code == 201
    batch = {"messages": [{"content": whole}] * 17}
    assert_problem(http.post("/queues/q/messages", json=batch), 413, "too_large")
    assert [len(content) for content in receive_all(http)] == [len(whole)] + [len(whole) - 1_000] * 15


@EVERY_POST
def test_a_body_without_end_is_refused_early(server: ServerProcess, http: httpx.Client, post: bytes) -> None:
    """Planted: a body that is collected whole before its size is looked at."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as endless:
        endless.sendall(post + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        sent = 0
        try:
            while sent < 200 * MEBIBYTE:
                endless.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            status = b" 413 " if post is POST else b" 400 "  # SQS has no other
            assert status in endless.recv(4096)
    peak = int(Path(f"/proc/{server.pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert peak < 400 * 1024, f"the server grew to {peak} KiB"
    send_all(http, ["after"])
    assert receive_all(http) == ["after"]


@pytest.mark.parametrize(
    ("protocol", "bodies"),
    [
        ("http", (b'{"content": "half', b'{"content": "whole"}')),
        ("sqs", (b'{"QueueUrl": "q", "MessageBody": "half', b'{"QueueUrl": "q", "MessageBody": "whole"}')),
        ("query", (b"Action=SendMess", b"Action=SendMessage&MessageBody=whole")),
    ],
)
def test_a_body_cut_off_half_way_stores_nothing(
    server: ServerProcess, http: httpx.Client, protocol: str, bodies: tuple[bytes, ...]
) -> None:
    """Planted: a send of what had come so far."""
    for body in bodies:
        with socket.create_connection(("127.0.0.1", server.port), 60) as cut:
            cut.sendall(POSTS[protocol] + f"Content-Length: {len(body) + 10}\r\n\r\n".encode() + body)
    send_all(http, ["after"])
    assert receive_all(http) == ["after"]
