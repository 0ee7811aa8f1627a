"""PostgreSQL goes away under submissions: 503 and nothing lost, and service returns by itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.harness import ServerProcess, until
from tests.installation import PYTHON, Judge
from tests.postgresql import PostgreSQL
from tests.storm.talk import client

pytestmark = pytest.mark.storm

WRITERS = 4


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    """One of this test's own, to be harmed."""
    server = PostgreSQL()
    yield server
    server.close()


class Writers:
    """Each submits under one key after the other, and repeats until it is taken in."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.accepted: dict[str, tuple[str, str]] = {}
        """Key -> submission and job that were answered for."""
        self.refused = 0
        self.wrong: list[str] = []
        self._server = server
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number, random.Random(f"{seed} {number}")))
            for number in range(WRITERS)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def more(self, number: int = 20) -> None:
        """Wait until so many more are taken in."""
        wanted = len(self.accepted) + number
        until(lambda: len(self.accepted) >= wanted or self.wrong, 120, f"{number} more")
        assert not self.wrong, self.wrong[:5]

    def be_refused(self) -> None:
        """Wait until somebody is refused."""
        before = self.refused
        until(lambda: self.refused > before, 120, "a refusal")

    def _write(self, number: int, fate: random.Random) -> None:
        with client(self._server, timeout=90) as http:
            count = 0
            while not self._over.is_set():
                # Some are of one piece, and some of several.
                source = f"# {number} {count}\n" + fate.randbytes(fate.choice((10, 300_000))).hex()
                self._submit(http, f"{number}-{count}", source)
                count += 1

    def _submit(self, http: httpx.Client, key: str, source: str) -> None:
        body = {"problem_id": 1, "language": PYTHON, "source": source}
        while True:
            answer = http.post("/submissions", json=body, headers={"idempotency-key": key})
            if answer.status_code == 202:
                found = answer.json()
                self.accepted[key] = found["submission_id"], found["job_id"]
                return
            self.refused += 1
            if answer.status_code != 503 or "retry-after" not in answer.headers:
                self.wrong.append(f"{answer.status_code} {answer.text}")
                return
            self._over.wait(0.05)  # between two tries of a client


@contextlib.contextmanager
def killed(postgresql: PostgreSQL) -> Iterator[None]:
    postgresql.kill()
    try:
        yield
    finally:
        postgresql.start()


@contextlib.contextmanager
def stopped(postgresql: PostgreSQL) -> Iterator[None]:
    pids = postgresql.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("harm", [killed, stopped])
def test_postgresql_goes_away_under_submissions(
    postgresql: PostgreSQL, tmp_path: Path, harm: Callable[[PostgreSQL], Any]
) -> None:
    """Planted defects: a connection that broke is a 500; one that does not answer is waited for; a submission
    is answered for before it is written."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    url = postgresql.database()
    with ServerProcess(tmp_path / "data", environment={"WINDLASS_DATABASE": url}, ready_within=60) as server:
        judge = Judge(server)
        judge.put_problem(1, [("1 2", "3")])
        with Writers(server, seed) as writers:
            for _ in range(2):
                writers.more()
                with harm(postgresql):
                    writers.be_refused()
                    with client(server) as http:
                        assert http.get("/queues").status_code == 200  # what is not in it goes on
                writers.more()
        assert not writers.wrong, writers.wrong[:5]
        listed = {each["submission_id"]: each["job_id"] for each in judge.submissions(1)}
        lost = {key: told for key, told in writers.accepted.items() if listed.get(told[0]) != told[1]}
        assert not lost
        begun = len(writers.accepted)
        assert begun <= len(listed) <= begun + WRITERS, "a key has more than one submission"
        until(lambda: unsent(url) == 0, 60, "an empty outbox")
        for each in judge.submissions(1):
            assert judge.get(f"/jobs/{each['job_id']}")["state"] == "queued"
        judge.close()


def unsent(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM windlass_judge.outbox").fetchone()
    assert row is not None
    return int(row[0])
