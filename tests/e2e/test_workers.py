"""`windlass serve --workers N`: several processes on one address, and the one that watches over them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_serve import fails
from tests.harness import WINDLASS, ServerProcess, run_cli, until
from tests.postgresql import PostgreSQL
from tests.redis_server import RedisServer, shared_redis
from windlass.server.workers import PAUSES

pytestmark = pytest.mark.storm

Start = Callable[..., ServerProcess]

_prefixes = count()
_MANY = 40
"""So many connections reach both of two workers, but for one time in 2^39."""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def start(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[Start]:
    """Starts two workers on a Redis prefix and a database of their own."""
    store = f"{shared_redis().url}?prefix=workers{next(_prefixes)}"
    database = postgresql.database()
    with contextlib.ExitStack() as stack:

        def start_one(*arguments: str, ready: bool = True, **settings: str) -> ServerProcess:
            environment = {
                "WINDLASS_STORE": store,
                "WINDLASS_DATABASE": database,
                "WINDLASS_REDIS": shared_redis().url,
                "WINDLASS_BLOOM_STATE_NAMESPACE": store.rpartition("=")[2],
                "WINDLASS_WORKERS": "2",
                "WINDLASS_DRAIN_DELAY": "0",
                **{f"WINDLASS_{name.upper()}": value for name, value in settings.items()},
            }
            server = ServerProcess(tmp_path / "data", *arguments, environment=environment)
            if ready:
                return stack.enter_context(server)
            server.launch()
            stack.callback(server.kill)
            return server

        yield start_one


def ask(server: ServerProcess, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """One request on a connection of its own, which may be any worker's: its status and its JSON."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=90)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """One that a test may stop."""
    server = RedisServer()
    yield server
    server.close()


def statuses(server: ServerProcess, path: str) -> set[int]:
    """What connections answer that reach all workers."""
    return {ask(server, "GET", path)[0] for _ in range(_MANY)}


def events(server: ServerProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


# --- what is refused ------------------------------------------------------------------------------

REDIS = {"WINDLASS_STORE": "redis://127.0.0.1:1/0"}
DATABASE = {"WINDLASS_DATABASE": "postgresql://127.0.0.1:1/none"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "--workers 2 needs the queues on Redis: name one with --store. On SQLite one process owns"),
        (REDIS, "--workers 2 needs PostgreSQL for the judge and the products: name one with --database."),
        (REDIS | {"WINDLASS_DATABASE": "sqlite:////tmp/shop.db"}, "--workers 2 needs PostgreSQL"),
        (REDIS | DATABASE, "--workers 2 needs --redis as well"),
    ],
)
def test_what_one_process_owns_is_not_shared(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    """Planted defect: two processes on one SQLite, which deny what the other has written."""
    arguments = ("--workers", "2", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert fails(*arguments, environment=settings).startswith(said)
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_a_plain_word_also_where_the_taker_would_share_it(
    tmp_path: Path, start: Start
) -> None:
    """Planted defect: the port is shared before it is taken, so two servers are one to their clients."""
    server = start()
    arguments = ("--port", str(server.port), "--data-dir", str(tmp_path / "other"))
    said = fails(*arguments, environment=server.environment)
    assert said.startswith(f"Port {server.port} on 127.0.0.1 cannot be used: Address already in use")


def test_a_start_that_fails_says_so_once_and_ends(tmp_path: Path, start: Start) -> None:
    """Planted defect: workers that cannot start are started for ever, or each says why."""
    server = start(ready=False, store="redis://127.0.0.1:1/0")
    assert server.wait() == 1
    last = server.log.splitlines()[-1]
    assert last.startswith("windlass: Worker 1 of 2 did not start. ")
    assert server.log.count("127.0.0.1:1") >= 1
    assert "Worker 2" not in server.log
    assert not (tmp_path / "data" / "windlass.sock").exists()


def test_a_second_server_on_the_same_directory_is_a_plain_word(start: Start) -> None:
    server = start()
    said = fails("--port", "0", "--data-dir", str(server.data_dir), environment=server.environment)
    assert said.startswith(f"Another Windlass (process {server.pid}) uses the data directory")


# --- how they serve -------------------------------------------------------------------------------


def test_two_workers_are_one_server(start: Start) -> None:
    """Planted defects: a banner for each worker; a port that one of them has; logs that do not say whose."""
    server = start("--log-format", "json")
    assert len(children(server.pid)) == 2
    assert server.ready_file.read_text() == server.url
    assert ask(server, "POST", "/queues", {"name": "q"})[0] == 201
    until(lambda: statuses(server, "/queues/q") == {200}, what="the queue on both")
    with ThreadPoolExecutor(_MANY) as pool:
        sent = pool.map(lambda n: ask(server, "POST", "/queues/q/messages", {"content": n})[0], range(200))
        assert set(sent) == {201}
        got = pool.map(lambda _: ask(server, "GET", "/queues/q/messages")[1]["content"], range(200))
        assert sorted(got) == list(range(200))
    assert server.terminate() == 0
    said = events(server)
    assert [(each["url"], each["workers"]) for each in said if each["event"] == "ready"] == [(server.url, 2)]
    assert {each.get("worker") for each in said if each["event"] == "store_open"} == {1, 2}
    assert {each.get("worker") for each in said if each["event"] == "stopped"} == {1, 2, None}
    assert sum(each["event"] == "registration_open" for each in said) == 1
    assert said[-1]["event"] == "stopped"
    assert (server.data_dir / "windlass.lock").read_text() == ""
    assert not (server.data_dir / "windlass.sock").exists()


def test_one_token_and_one_key_count_on_all_workers(start: Start) -> None:
    """Planted defects: a registration token for each worker; a key that is known to its maker alone."""
    server = start()
    [token] = re.findall(r"--token ([\w-]{20,})", server.log)
    for number in range(_MANY):
        body = {"registration_token": token, "name": f"r{number}"}
        assert ask(server, "POST", "/runners/register", body)[0] == 201
    data = ("--data-dir", str(server.data_dir))
    made = json.loads(run_cli("key", "create", "--scope", "all", "--json", *data).stdout)
    until(lambda: statuses(server, "/queues") == {401}, what="the key on both")
    for _ in range(4):  # whichever worker is asked, it knows what another has done
        assert made["id"] in run_cli("key", "list", *data).stdout
    assert run_cli("key", "revoke", made["id"], *data).returncode == 0
    until(lambda: statuses(server, "/queues") == {200}, what="its end on both")


# --- deaths ---------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_started_again_and_the_others_serve_meanwhile(
    start: Start, redis_server: RedisServer
) -> None:
    """Planted defects: it is not started again; its port takes connections that nobody answers."""
    server = start("--log-format", "json", store=redis_server.url, redis=redis_server.url)
    ask(server, "POST", "/queues", {"name": "q"})
    victim, other = children(server.pid)
    redis_server.hang()  # so that the next does not come to serve
    os.kill(victim, signal.SIGKILL)
    until(lambda: any(each["event"] == "worker_ended" for each in events(server)), what="its end")
    assert statuses(server, "/openapi.json") == {200}
    redis_server.resume()

    def both() -> bool:
        return sum(each["event"] == "store_open" for each in events(server)) == 3

    until(both, 60, "another worker")
    assert other in children(server.pid)
    until(lambda: statuses(server, "/queues/q") == {200}, what="the queue on both")
    assert server.terminate() == 0


def test_workers_that_die_at_once_again_and_again_are_given_up(start: Start) -> None:
    """Planted defect: a supervisor that starts them for ever, as fast as it can."""
    server = start()

    def killed() -> bool:
        for pid in children(server.pid) if server.running else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not server.running

    until(killed, sum(PAUSES) + 120, "the end")
    assert server.wait() == 1
    [last] = [line for line in server.log.splitlines() if line.startswith("windlass: ")]
    assert re.match(
        rf"windlass: Worker \d ended {len(PAUSES) + 1} times in a row right after its start, and is not"
        r" started again; the others are stopped\. The last time: It was ended by SIGKILL\.",
        last,
    )


def test_workers_end_with_their_supervisor(start: Start) -> None:
    """Planted defect: orphans go on to serve, on a port and a directory that the next start wants."""
    server = start()
    workers = children(server.pid)
    server.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 60, "the workers' end")
    assert "The process that watched over this one is gone" in server.log
    server.start()


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_stop_answers_long_polls_of_all_workers_and_ends_with_0(
    start: Start, number: signal.Signals, whole_group: bool
) -> None:
    """Planted defects: workers killed by the signal; one that takes the group's signal and the supervisor's
    for two, and ends at once."""
    server = start()
    ask(server, "POST", "/queues", {"name": "idle"})
    until(lambda: statuses(server, "/queues/idle") == {200}, what="the queue on both")

    def poll(_: int) -> int:
        return ask(server, "GET", "/queues/idle/messages?wait=60")[0]

    with ThreadPoolExecutor(_MANY) as pool:
        polls = [pool.submit(poll, n) for n in range(_MANY)]
        until(lambda: connected(server) >= _MANY, what="all long polls")
        if whole_group:
            os.killpg(server.pid, number)
        else:
            server.signal(number)
        assert server.wait() == 0
        assert [each.result() for each in polls] == [204] * _MANY
    assert "Traceback" not in server.log


def connected(server: ServerProcess) -> int:
    """Connections that the workers have taken, by the kernel."""
    inodes = set()
    for pid in children(server.pid):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(file.readlink()))
    here = f":{server.port:04X}"
    established = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        row[1].endswith(here) and row[3] == "01" and f"socket:[{row[9]}]" in inodes for row in established
    )


def test_a_second_signal_ends_at_once(start: Start) -> None:
    """Planted defect: a supervisor that goes on to wait for a client who never comes to an end."""
    server = start(drain_timeout="600", body_timeout="600")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as trickling:
        head = b"POST /queues/q/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        trickling.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert trickling.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        server.signal(signal.SIGTERM)
        until(lambda: len(children(server.pid)) == 1, what="the end of the worker that nobody holds up")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_as_the_first_process_of_a_container(start: Start) -> None:
    """Planted defects: signals that the first process ignores by default; zombies of others that stay."""
    server = start(ready=False)
    server.kill()
    server.program = [
        "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child",
        "sh", "-c", f'(sleep 1000 & ); exec {WINDLASS} "$@"', "first",
    ]  # fmt: skip
    server.start()
    [first] = children(server.pid)
    [orphan] = [pid for pid in children(first) if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(children(first)) == 3
    os.kill(orphan, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{orphan}").exists(), what="the orphan's burial")
    assert ask(server, "GET", "/health")[0] == 200
    subprocess.run(["kill", "-TERM", str(first)], check=True)
    assert server.wait() == 0
