"""SIGTERM under load: what is under way is finished, long polls are answered, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.harness import ServerProcess, until
from tests.storm.faces import Face, Taken, over_both
from tests.storm.talk import client, create
from windlass.torture import Plan, Report, Server, ServerEnded, Storm

pytestmark = pytest.mark.storm


@over_both
def test_long_polls_are_answered_and_sends_are_kept(tmp_path: Path, over: type[Face]) -> None:
    """Planted: a stop that cancels long polls, or closes the store before its last commit is answered."""
    stored: list[list[str]] = [[] for _ in range(8)]

    with ServerProcess(tmp_path / "data") as server, client(server) as http:
        over(http).create()
        over(http, "empty").create()

        def poll() -> list[Taken]:
            with client(server, timeout=120) as each:
                return over(each, "empty").take(wait=20)

        def keep_sending(number: int) -> None:
            with client(server) as each:
                queue = over(each)
                for count in range(1_000_000):
                    try:
                        answer = queue.send(f"{number}-{count}")
                    except httpx.TransportError:
                        return
                    if answer.status_code != queue.good:
                        assert answer.status_code == 503, answer.text
                        return
                    stored[number].append(f"{number}-{count}")

        with ThreadPoolExecutor(28) as pool:
            polls = [pool.submit(poll) for _ in range(20)]
            senders = [pool.submit(keep_sending, number) for number in range(8)]
            until(lambda: http.get("/status").json()["waiting"] == len(polls), what="all long polls")
            until(lambda: all(len(each) > 20 for each in stored), 60, "some sends of each")
            assert server.terminate() == 0
            assert [each.result() for each in polls] == [[]] * 20
            for each in senders:
                each.result()

        server.start()
        received = over(http).receive_all()
    for number, contents in enumerate(stored):
        own = [content for content in received if content.startswith(f"{number}-")]
        # One more may be there: committed, and its answer lost with the connection.
        assert own[: len(contents)] == contents
        assert len(own) <= len(contents) + 1


def test_a_request_that_outlasts_the_stop_is_told_so(tmp_path: Path) -> None:
    """Planted: uvicorn's own answer to a request that it ends, a 500 in plain text."""
    head = b"POST /queues/q/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
    hurried = ServerProcess(tmp_path / "data", environment={"WINDLASS_DRAIN_TIMEOUT": "1"})
    with hurried as server, client(server) as http:
        create(http, "q")
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as trickling:
            trickling.sendall(head + b"Expect: 100-continue\r\n\r\n")
            assert trickling.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"  # it has seen the request
            trickling.sendall(b'{"content":')
            assert server.terminate() == 0
            answer = b"".join(iter(lambda: trickling.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"store_closed"' in answer


class Terminated(Server):
    """A server of the storm that is asked to end instead of being killed."""

    async def die(self, rng: random.Random) -> None:
        process = self.process
        assert process is not None
        await asyncio.sleep(rng.uniform(0.2, 1.0))
        self.dying = True
        self.up.clear()
        process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.wait(), 60)
        if status != 0:
            raise ServerEnded(f"SIGTERM ended it with {status}: {self.last_words()}")


@pytest.mark.parametrize(("protocol", "ends"), [("http", 8), ("sqs", 4)])
def test_a_storm_of_graceful_ends_loses_nothing(tmp_path: Path, protocol: str, ends: int) -> None:
    """Planted: a stop that drops what the writer has in hand after it was answered."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    async def run() -> Report:
        server = Terminated(tmp_path / "data", tmp_path)
        plan = Plan(seed=seed, kills=ends, starting=0, lease_seconds=1.0, protocol=protocol)
        return await Storm(plan, server).run()

    report = asyncio.run(run())
    assert report.violations == []
    assert report.kills == ends
    assert report.stored > 100
