"""A stop in two steps: /health says so first, and the port closes when nobody is sent here any more."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ServerProcess, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """One whose first step lasts longer than any test."""
    with ServerProcess(tmp_path / "data", environment={"WINDLASS_DRAIN_DELAY": "3000"}) as running:
        yield running


def connect(server: ServerProcess) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", server.port, timeout=90)


def ask(connection: HTTPConnection, method: str, path: str, body: Any = None) -> tuple[HTTPResponse, Any]:
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    return answer, json.loads(text) if text else None


def ask_anew(server: ServerProcess, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of one request on a connection of its own."""
    with contextlib.closing(connect(server)) as connection:
        answer, found = ask(connection, method, path, body)
        return answer.status, found


def test_it_says_so_serves_on_and_lets_nobody_come_back(server: ServerProcess) -> None:
    """Planted defects: the port closes at once; a connection is kept, for the next request to be lost on;
    long polls are let go, to be asked again and again."""
    with contextlib.closing(connect(server)) as old, contextlib.closing(connect(server)) as older:
        drain(server, old, older)
    server.signal(signal.SIGTERM)  # another ends it at once
    assert server.wait() == 0


def drain(server: ServerProcess, old: HTTPConnection, older: HTTPConnection) -> None:
    assert ask(old, "POST", "/queues", {"name": "q"})[0].status == 201
    assert ask(older, "GET", "/queues/q")[0].getheader("connection") is None
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(ask_anew, server, "GET", "/queues/q/messages?wait=60")
        until(lambda: ask_anew(server, "GET", "/status")[1]["waiting"] == 1, what="the long poll")
        server.signal(signal.SIGTERM)
        until(lambda: ask_anew(server, "GET", "/health")[0] == 503, what="its health to say so")

        _, health = ask_anew(server, "GET", "/health")
        assert (health["status"], health["live"], health["ready"]) == ("stopping", True, False)
        assert health["store"] == "ok"
        with contextlib.closing(connect(server)) as short:  # on the road of whole requests
            answer, _ = ask(short, "GET", "/queues/q/messages")
            assert (answer.status, answer.getheader("connection")) == (204, "close")
        answer, status = ask(older, "GET", "/status")
        assert answer.getheader("connection") == "close"
        assert (answer.status, status["waiting"]) == (200, 1)
        answer, _ = ask(old, "POST", "/queues/q/messages", {"content": "late"})
        assert answer.getheader("connection") == "close"
        assert answer.status == 201
        found, message = poll.result()
        assert (found, message["content"]) == (200, "late")


def test_long_polls_are_answered_when_the_first_step_is_over(tmp_path: Path) -> None:
    """Planted defect: they are cut, or awaited to their own end."""
    patient = {"WINDLASS_DRAIN_DELAY": "1", "WINDLASS_DRAIN_TIMEOUT": "600"}
    with ServerProcess(tmp_path / "data", environment=patient) as server:
        assert ask_anew(server, "POST", "/queues", {"name": "q"})[0] == 201
        with ThreadPoolExecutor(20) as pool:
            polls = [pool.submit(ask_anew, server, "GET", "/queues/q/messages?wait=60") for _ in range(20)]
            until(lambda: ask_anew(server, "GET", "/status")[1]["waiting"] == 20, what="the long polls")
            server.signal(signal.SIGTERM)
            assert server.wait(50) == 0
            assert [each.result()[0] for each in polls] == [204] * 20
        for event in ("draining", "stopping", "stopped"):
            assert event in server.log
