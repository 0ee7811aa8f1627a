"""Two servers of one store, each with a database for the judge in its own data directory: one of them has the
judge, and the other does its work without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.http.served import Served, refused, settled
from tests.contract.http.test_problems import put
from tests.contract.servers import Several
from tests.judging import result
from windlass.server import app as application
from windlass.store import Store

SECRET = "let me in"
BODY = {"problem_id": 1, "language": 2, "source": "print(1)"}
COMMAND = {"command": {"argv": ["true"]}}


class Pair:
    """`a` comes first and has the judge, with problem 1."""

    def __init__(self, several: Several) -> None:
        self.several = several
        self.a = self.open("a", None)
        assert put(self.a).status_code == 201
        self.b = self.open("b", self.a)

    def open(self, name: str, beside: Served | None) -> Served:
        server = Served(
            self.several.home.parent / name,
            judged=True,
            beside=beside,
            clock=self.several.clock,
            registration_token=SECRET,
        )
        assert server("GET", "/health").status_code == 200
        return server

    def close(self) -> None:
        self.b.close()
        self.a.close()


@pytest.fixture
def pair(several: Several, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    def opened(*_: object, **__: object) -> Store:
        return several.open()

    monkeypatch.setattr(application, "open_store", opened)
    made = Pair(several)
    yield made
    made.close()


def submitted(server: Served) -> str:
    answer = server("POST", "/submissions", BODY)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["submission_id"])


class Runner:
    """A runner that asks any server."""

    def __init__(self, server: Served) -> None:
        answer = server("POST", "/runners/register", {"registration_token": SECRET, "name": "r"})
        self._path = f"/runners/{answer.json()['data']['runner_id']}"
        self._headers = {"authorization": f"Bearer {answer.json()['data']['token']}"}

    def ask(self, server: Served, method: str, path: str, body: Any = None) -> Any:
        return server(method, self._path + path, body, headers=self._headers)

    def take(self, server: Served) -> dict[str, Any] | None:
        answer = self.ask(server, "GET", "/next-job")
        assert answer.status_code in (200, 204), answer.text
        return answer.json()["data"] if answer.status_code == 200 else None


def test_one_has_the_judge_and_the_other_says_where_it_is(pair: Pair) -> None:
    """Planted defect: both have one, whose submissions have the same ids and the same jobs."""
    submission = submitted(pair.a)
    for method, path in (
        ("POST", "/submissions"),
        ("GET", "/submissions"),
        ("GET", f"/submissions/{submission}?wait=1"),
        ("GET", f"/submissions/{submission}/events"),
        ("POST", f"/submissions/{submission}/rejudge"),
        ("POST", "/problems"),
        ("PUT", "/problems/1"),
        ("GET", "/problems/1/checksum"),
        ("DELETE", "/problems/1"),
    ):
        answer = pair.b(method, path, BODY if method in ("POST", "PUT") else None)
        refused(answer, 503, "judge_elsewhere")
        assert "--database" in answer.json()["detail"]
    refused(put(pair.b), 503, "judge_elsewhere")
    assert pair.a("GET", "/status").json()["judge"] == "here"
    assert "Another server" in pair.b("GET", "/status").json()["judge"]


def test_it_is_the_same_one_after_a_restart_in_another_order(pair: Pair) -> None:
    """Planted defect: whoever is there first has it, each time, with none of the problems."""
    pair.b.run(pair.b.app.close())
    pair.a.run(pair.a.app.close())
    refused(pair.b("GET", "/problems/1"), 503, "judge_elsewhere")
    assert pair.a("GET", "/problems/1").status_code == 200


def test_the_other_serves_queues_and_jobs_and_products(pair: Pair) -> None:
    """Planted defect: without a judge, a server is of no use."""
    pair.b.queue("q")
    pair.b.send(1)
    assert pair.a.contents() == [1]
    assert pair.b("PUT", "/products/p", {"name": "a", "price": 1}).status_code == 201
    runner = Runner(pair.b)
    job_id = pair.b("POST", "/jobs", COMMAND).json()["job_id"]
    taken = runner.take(pair.b)
    assert taken is not None
    assert taken["job_id"] == job_id


def test_submissions_are_given_to_runners_where_the_judge_is(pair: Pair) -> None:
    """Planted defect: a server gives runners submissions whose sources and test data it has not."""
    submitted(pair.a)
    pair.b("POST", "/jobs", COMMAND)
    runner = Runner(pair.b)
    assert runner.take(pair.b) is None
    submission = runner.take(pair.a)
    assert submission is not None
    assert submission["submission_id"]
    command = runner.take(pair.b)
    assert command is not None
    assert command["job_id"] != submission["job_id"]
    known = pair.b.run(pair.b.app.dispatch.runners.by_id(runner._path.split("/")[2]))
    assert known is not None
    link = pair.b.app.dispatch.links.to(known, submission["job_id"])
    refused(pair.b("GET", link), 503, "judge_elsewhere")
    assert pair.a("GET", link).status_code == 200


def test_what_a_runner_brings_to_the_other_is_told_where_the_judge_is(pair: Pair) -> None:
    """Planted defects: the server that takes a result confirms it, as of nobody; or leaves it without a word,
    so that it is known half a minute later."""
    submission = submitted(pair.a)
    runner = Runner(pair.b)
    job = runner.take(pair.a)
    assert job is not None
    answer = runner.ask(pair.b, "PUT", f"/jobs/{job['job_id']}/complete", result(["AC", "AC"]))
    assert answer.status_code == 204, answer.text
    done = pair.a("GET", f"/submissions/{submission}?wait=10").json()
    assert (done["status"], done["verdict"]) == ("done", "AC")


def test_what_was_left_without_a_word_is_found_where_the_judge_is(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: the server that takes a result confirms it though nobody heard; or takes the turn to
    look for what was left, and tells nothing of it."""
    monkeypatch.setattr("windlass.dispatch.outcomes.LOOK", 0.2)
    pair.several.silent = True
    monkeypatch.setattr(pair.b.app.store, "tell", lambda *_: None)
    submission = submitted(pair.a)
    runner = Runner(pair.b)
    job = runner.take(pair.a)
    assert job is not None
    answer = runner.ask(pair.b, "PUT", f"/jobs/{job['job_id']}/complete", result(["AC", "AC"]))
    assert answer.status_code == 204, answer.text
    outcomes = pair.b.app.dispatch.outcomes
    pair.b.run(settled(lambda: not outcomes._ours))
    assert "turn" not in pair.b.app.store.calls
    assert len(pair.a.run(pair.a.app.store.untold())) == 1
    pair.several.clock.advance(60)

    async def look() -> Any:
        pair.a.app.dispatch.outcomes._next_look = 0
        pair.a.app.dispatch.outcomes.wake()
        return await pair.a.ask("GET", f"/submissions/{submission}?wait=10")

    done = pair.a.run(look()).json()
    assert (done["status"], done["verdict"]) == ("done", "AC")
