"""`windlass serve`: settings, plain errors, logs, a graceful end; and `windlass.asgi:app` under uvicorn."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import WINDLASS, ServerProcess, clean_environment, free_port, run_cli, until


def fails(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """The one line that a refused start says."""
    ran = run_cli("serve", *arguments, environment=environment, timeout=120)
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("windlass: ")
    return last.removeprefix("windlass: ")


# --- plain errors ---------------------------------------------------------------------------------


def test_a_taken_port_is_a_plain_word(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = fails("--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert said.startswith(f"Port {port} on 127.0.0.1 cannot be used: Address already in use")
    assert "--port" in said


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "999.1.1.1", "x" * 300, ""])
def test_a_wrong_host_is_a_plain_word(tmp_path: Path, host: str) -> None:
    assert fails("--host", host, "--port", "0", "--data-dir", str(tmp_path / "data"))


def test_a_second_server_on_the_same_directory_is_a_plain_word(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        said = fails("--port", "0", "--data-dir", str(server.data_dir))
        assert str(server.data_dir) in said
        assert httpx.get(server.url + "/status").status_code == 200


def test_a_data_directory_that_is_a_file_is_a_plain_word(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert fails("--port", "0", "--data-dir", str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("option", "value", "culprit"),
    [("--port", "70000", "port"), ("--log-format", "xml", "log_format"), ("--port", "-1", "port")],
)
def test_a_wrong_option_is_named(tmp_path: Path, option: str, value: str, culprit: str) -> None:
    assert fails(option, value, "--data-dir", str(tmp_path / "data")).startswith(
        f"The setting {culprit} is wrong"
    )


# --- how it starts --------------------------------------------------------------------------------

NOT_AT_A_START = {
    "alembic", "fakeredis", "httpx", "matplotlib", "plotext", "prometheus_client", "psycopg", "redis",
    "rich.progress", "sqlalchemy.dialects.postgresql", "windlass.attack", "windlass.cli.queue",
    "windlass.client", "windlass.guard.views", "windlass.runner", "windlass.torture",
}  # fmt: skip
"""Each takes up to a tenth of a second, and a server on SQLite alone needs none to answer."""


def test_a_start_imports_nothing_that_it_has_no_use_for(tmp_path: Path) -> None:
    """Planted defect: `import psycopg` at the top of writers.py; or the program imports all its commands."""
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        product = {"product_id": "rope", "name": "Rope", "price": 1}
        assert httpx.post(server.url + "/products", json=product).status_code == 201
        assert httpx.get(server.url + "/products/rope").status_code == 200
        assert httpx.get(server.url + "/health").status_code == 200
        imported = set(re.findall(r"^import time: .*\| +(\S+)$", server.log, re.MULTILINE))
    assert "windlass.catalogue.service" in imported
    assert imported & NOT_AT_A_START == set()


# --- settings -------------------------------------------------------------------------------------


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    file = tmp_path / "w.toml"
    file.write_text(f'port = {ports[0]}\nlog_format = "json"\ndata_dir = "{tmp_path / "data"}"\n')

    def starts_on(arguments: list[str], environment: dict[str, str]) -> str:
        ready = tmp_path / "ready"
        ready.unlink(missing_ok=True)
        process = subprocess.Popen(
            [str(WINDLASS), "serve", "--ready-file", str(ready), *arguments],
            env=clean_environment({"WINDLASS_CONFIG": str(file), **environment}),
            stderr=subprocess.PIPE,
        )
        try:
            until(ready.exists, 60, "the ready file")
            return ready.read_text()
        finally:
            process.terminate()
            said = process.communicate(timeout=60)[1]
            assert all(json.loads(line) for line in said.splitlines()), "log_format comes from the file"

    assert starts_on([], {}) == f"http://127.0.0.1:{ports[0]}"
    assert starts_on([], {"WINDLASS_PORT": str(ports[1])}) == f"http://127.0.0.1:{ports[1]}"
    options = ["--port", str(ports[2])]
    assert starts_on(options, {"WINDLASS_PORT": str(ports[1])}) == f"http://127.0.0.1:{ports[2]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 8000", "'prot', which is no setting"),
        ("port = 'x'", "The setting port is wrong"),
        ("port = ", "is not TOML"),
        ("[server]\nport = 8000", "'server', which is no setting"),
    ],
)
def test_a_wrong_file_is_a_plain_word(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "w.toml"
    file.write_text(text)
    assert said in fails("--config", str(file), "--data-dir", str(tmp_path / "data"))


def test_a_file_that_is_not_there_is_a_plain_word(tmp_path: Path) -> None:
    assert "cannot be read" in fails("--config", str(tmp_path / "nothing.toml"))
    assert "The setting port is wrong" in fails(environment={"WINDLASS_PORT": "many"})


# --- logs and a graceful end ----------------------------------------------------------------------


def test_every_line_of_a_json_log_is_json_and_tells_what_was_found(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--log-format", "json") as server:
        httpx.post(server.url + "/queues", json={"name": "q"})
        httpx.post(server.url + "/queues/q/messages", json={"messages": [{"content": n} for n in range(3)]})
        httpx.get(server.url + "/queues/q/messages?lease=600")
        with socket.create_connection(("127.0.0.1", server.port), 60) as rude:
            rude.sendall(b"\x00\xff nonsense\r\n\r\n")
            rude.recv(1000)
        server.kill()
        server.start()
        server.terminate()
        events = [json.loads(line) for line in server.log.splitlines()]
    found = [event for event in events if event["event"] == "store_open"]
    assert [(event["queues"], event["ready"], event["leased"]) for event in found] == [(0, 0, 0), (1, 2, 1)]
    ready = [event for event in events if event["event"] == "ready"]
    assert [event["url"] for event in ready] == [server.url] * 2
    assert [event["event"] for event in events][-3:] == ["stopping", "store_closed", "stopped"]
    assert {"timestamp", "level"} <= events[0].keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_commits_what_is_under_way_lets_waiters_go_and_ends_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Planted defects: ending by the signal itself; cutting long polls off; answering what is not on disk."""
    with ServerProcess(tmp_path / "data") as server:
        httpx.post(server.url + "/queues", json={"name": "q"})
        httpx.post(server.url + "/queues", json={"name": "idle"})
        acknowledged: list[int] = []
        polled: list[int] = []

        def send(start: int) -> None:
            with httpx.Client(base_url=server.url) as client, contextlib.suppress(httpx.TransportError):
                for n in range(start, start + 100_000):
                    if client.post("/queues/q/messages", json={"content": n}).status_code != 201:
                        return
                    acknowledged.append(n)

        def poll() -> None:
            polled.append(httpx.get(server.url + "/queues/idle/messages?wait=60", timeout=90).status_code)

        threads = [threading.Thread(target=send, args=(n * 1_000_000,)) for n in range(3)]
        threads += [threading.Thread(target=poll) for _ in range(5)]
        for thread in threads:
            thread.start()
        until(lambda: httpx.get(server.url + "/status").json()["waiting"] == 5, 60, "five long polls")
        until(lambda: len(acknowledged) > 100, 60, "a hundred sends")
        server.signal(number)
        assert server.wait(60) == 0
        for thread in threads:
            thread.join(60)
        assert polled == [204] * 5
        server.start()
        kept = set()
        while (answer := httpx.get(server.url + "/queues/q/messages?max=1000")).status_code == 200:
            kept |= {message["content"] for message in answer.json()["messages"]}
        assert set(acknowledged) <= kept
        assert len(kept) - len(acknowledged) <= 3, "at most what each sender had under way"
        assert "Traceback" not in server.log


def test_a_body_that_trickles_is_cut_off_with_408(tmp_path: Path) -> None:
    """Planted defect: over SQS the connection is kept, and the rest of the body read as a request."""
    code, name = b'"code":"request_timeout"', b"#RequestTimeout"
    ways = {("/queues/q/messages", ""): code, ("/queues", ""): code}
    ways["/", "X-Amz-Target: AmazonSQS.ListQueues\r\n"] = name
    with (
        ServerProcess(tmp_path / "data", environment={"WINDLASS_BODY_TIMEOUT": "3"}) as server,
        contextlib.ExitStack() as stack,
    ):
        httpx.post(server.url + "/queues", json={"name": "q"})
        trickling = []
        for path, header in ways:
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 100\r\n\r\n"
            slow.sendall(head.encode() + b'{"content":')
            trickling.append(stack.enter_context(slow.makefile("rb")))
        for each, word in zip(trickling, ways.values(), strict=True):
            answer = each.read()  # it ends: the connection is closed
            assert answer.startswith(b"HTTP/1.1 408 "), answer
            assert word in answer
        assert httpx.get(server.url + "/queues/q").json()["ready"] == 0


# --- letting runners in -----------------------------------------------------------------------------

RUNNER_LINE = re.compile(r"windlass runner --server (\S+) --token ([\w-]{20,})")


def registers(url: str, token: str) -> int:
    body = {"registration_token": token, "name": "r"}
    return httpx.post(url + "/runners/register", json=body).status_code


def test_a_local_start_says_how_to_start_a_runner(tmp_path: Path) -> None:
    """Planted defect: a token that is the same at every start, or that the server itself does not know."""
    with ServerProcess(tmp_path / "data") as server:
        [(url, token)] = RUNNER_LINE.findall(server.log)
        assert url == server.url
        assert registers(url, token) == 201
        assert registers(url, token[:-1]) == 401
        server.restart()
        [_, (_, another)] = RUNNER_LINE.findall(server.log)
        assert another != token
        assert registers(url, token) == 401


@pytest.mark.parametrize("token", ["", "let-me-in"])
def test_a_registration_token_that_is_set_is_not_shown(tmp_path: Path, token: str) -> None:
    with ServerProcess(
        tmp_path / "data", environment={"WINDLASS_REGISTRATION_TOKEN": token}, ready_within=20
    ) as server:
        assert "windlass runner" not in server.log
        assert not token or token not in server.log
        assert registers(server.url, token) == (201 if token else 401)


def test_registration_is_off_where_other_machines_reach_the_server(tmp_path: Path) -> None:
    """Planted defect: a token in the log of a server that anybody can reach."""
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [str(WINDLASS), "serve", "--host", "0.0.0.0", "--port", "0", "--insecure",
         "--data-dir", str(tmp_path / "data"), "--ready-file", str(ready)],
        env=clean_environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(ready.exists, 60, "the ready file")
        port = ready.read_text().rpartition(":")[2]
        assert registers(f"http://127.0.0.1:{port}", "") == 401
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert b"windlass runner" not in said


# --- as an application of others --------------------------------------------------------------------


@contextlib.contextmanager
def uvicorn(tmp_path: Path, *arguments: str) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "windlass.asgi:app", "--port", str(port), *arguments],
        env=clean_environment({"WINDLASS_DATA_DIR": str(tmp_path / "data")}),
        stderr=subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url + "/health").is_success
        return False

    try:
        until(answers, 60, "uvicorn")
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_under_uvicorn_with_and_without_lifespan(tmp_path: Path, lifespan: str) -> None:
    for _ in range(2):
        with uvicorn(tmp_path, "--lifespan", lifespan, "--http", "h11") as url:
            httpx.post(url + "/queues", json={"name": "q"})
            assert httpx.post(url + "/queues/q/messages", json={"content": 1}).status_code == 201
            assert httpx.get(url + "/queues/q/messages?lease=0.05").json()["content"] == 1
            assert httpx.get(url + "/queues/q/messages?wait=20", timeout=30).json()["deliveries"] == 2
