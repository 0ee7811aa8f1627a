"""A few words of HTTP for the tests of harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.harness import ServerProcess
from tests.storm.disk import Disk


def client(server: ServerProcess, timeout: float = 30.0) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=timeout, trust_env=False)


def on_disk(disk: Disk, **environment: str) -> ServerProcess:
    """A server, not yet started, whose data directory, and nothing else, is on a disk that can be harmed."""
    server = ServerProcess(disk.root / "data", environment=disk.environment() | environment)
    server.log_path = disk.root.with_name("server.log")
    server.ready_file = disk.root.with_name("ready")
    return server


def create(http: httpx.Client, queue: str = "q", **settings: Any) -> None:
    answer = http.post("/queues", json={"name": queue, **settings})
    assert answer.status_code in (200, 201), answer.text


def send(http: httpx.Client, content: Any, queue: str = "q", **options: Any) -> httpx.Response:
    return http.post(f"/queues/{queue}/messages", json={"content": content, **options})


def send_all(http: httpx.Client, contents: list[Any], queue: str = "q") -> None:
    for content in contents:
        assert send(http, content, queue).status_code == 201


def receive_all(http: httpx.Client, queue: str = "q") -> list[Any]:
    """The contents of all messages that are ready, removed."""
    contents: list[Any] = []
    while True:
        answer = http.post(f"/queues/{queue}/receive", json={"max": 1000})
        if answer.status_code == 204:
            return contents
        assert answer.status_code == 200, answer.text
        contents += [message["content"] for message in answer.json()["messages"]]


def peek_all(http: httpx.Client, queue: str = "q") -> list[Any]:
    answer = http.get(f"/queues/{queue}/peek", params={"max": 1000})
    assert answer.status_code == 200, answer.text
    return [message["content"] for message in answer.json()["messages"]]


def sqs(http: httpx.Client, action: str, **parameters: Any) -> httpx.Response:
    """Ask for an action of SQS, in its JSON."""
    return http.post("/", json=parameters, headers=sqs_headers(action))


def sqs_headers(action: str) -> dict[str, str]:
    return {"x-amz-target": f"AmazonSQS.{action}", "content-type": "application/x-amz-json-1.0"}


def assert_unavailable(answer: httpx.Response) -> None:
    """503 as a client of SQS knows it, with the time after which to come again."""
    assert answer.status_code == 503, answer.text
    assert answer.json()["__type"].endswith("#ServiceUnavailable")
    assert answer.headers["x-amzn-query-error"] == "ServiceUnavailable;Receiver"
    assert int(answer.headers["retry-after"]) >= 1


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.json()["status"] == status


def assert_refuses(server: ServerProcess, *named: str) -> None:
    """The server does not start, and says in one line what is wrong and where; never with a traceback."""
    before = len(server.log)
    server.launch()
    try:
        assert server.wait(60) != 0
    finally:
        server.kill()
    said = server.log[before:]
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if "rror" in line or any(word in line for word in named)]
    assert len(lines) == 1, said
    for word in named:
        assert word in lines[0], said


def database(data_dir: Path) -> Path:
    """The store's database in a data directory."""
    (found,) = data_dir.glob("windlass.db")
    return found
