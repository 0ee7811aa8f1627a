"""What is not there costs no database a statement: ids that prove themselves, indexes in memory, the guard.

Counted on the databases' side: SQLite tells of each statement that it is given, whoever gives it.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from tests.contract.http.served import Served
from tests.judging import meta_json, zipped
from windlass.ids import Ids
from windlass.server import control

SECRET = "let me in"
ODD = ["a%00b", "%ff%fe", "%F0%9F%98%80", "a%20b", "%2e%2e", "a%2Fb", "%25", "%C3%A9", "x" * 10_240]
STRANGER = Ids(b"not the installation's own secret")
"""Makes ids of the right shape."""


class Statements:
    """All statements that the queue store and the databases were given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def of_store(self, db: apsw.Connection) -> None:
        db.trace_v2(apsw.SQLITE_TRACE_STMT, lambda told: self.seen.append(f"store: {told['sql']}"))

    def of_database(self, db: sqlite3.Connection, _: object) -> None:
        db.set_trace_callback(lambda sql: self.seen.append(f"database: {sql}"))

    def of(self, ask: Callable[[], Any]) -> tuple[Any, list[str]]:
        """What came of it, and the statements that it took."""
        before = len(self.seen)
        return ask(), self.seen[before:]


class Town:
    """A server with one of everything, all under an API key, and nobody at work behind it."""

    def __init__(self, api: Served, statements: Statements) -> None:
        self.api = api
        self.statements = statements
        api.queue("q")
        self.message = api.send("x")
        api.send("y")
        received = api.receive(lease=43_200)
        assert received["id"] == self.message
        form = {"meta": (None, json.dumps(meta_json())), "testdata": ("data.zip", zipped())}
        assert api("PUT", "/problems/1", files=form).status_code == 201
        assert api("POST", "/products", {"product_id": "p", "name": "x", "price": 1}).status_code == 201
        submitted = api("POST", "/submissions", {"problem_id": 1, "language": 2, "source": "print(1)"})
        runner = api("POST", "/runners/register", {"registration_token": SECRET, "name": "r"}).json()["data"]
        key = api.run(control.act(api.app, {"do": "create_key", "name": "k", "scopes": ["all"]}))["key"]
        self.key = {"authorization": f"Bearer {key}"}
        self.token = {"authorization": f"Bearer {runner['token']}"}
        self.real = {
            "name": "q",
            "message_id": self.message,
            "receipt": str(received["receipt"]),
            "problem_id": "1",
            "submission_id": str(submitted.json()["submission_id"]),
            "job_id": str(submitted.json()["job_id"]),
            "runner_id": str(runner["runner_id"]),
            "product_id": "p",
        }
        api.run(self._rest())

    async def _rest(self) -> None:
        app = self.api.app
        await app.dispatch.stop()
        await app.queues.reaper.stop()
        await app.judge.sweeper.stop()
        await asyncio.to_thread(app.catalogue.keeper.close)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[Any, list[str]]:
        """An answer, and what it cost. The clock has moved on: any commit would note the time."""
        self.api.clock.advance(2)
        more.setdefault("headers", self.token if path.startswith("/runners/") else self.key)
        return self.statements.of(lambda: self.api(method, path, body, **more))


@pytest.fixture(params=["asgi", "protocol"], scope="module")
def road(request: pytest.FixtureRequest) -> str:
    """Roads to a store whose statements are seen."""
    return str(request.param)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, road: str) -> Iterator[Town]:
    statements = Statements()
    apsw.connection_hooks.append(statements.of_store)
    event.listen(Pool, "connect", statements.of_database)
    try:
        folder = tmp_path_factory.mktemp("town") / "data"
        with Served(folder, road=road, judged=True, registration_token=SECRET) as api:
            yield Town(api, statements)
    finally:
        event.remove(Pool, "connect", statements.of_database)
        apsw.connection_hooks.remove(statements.of_store)


# --- names in paths -------------------------------------------------------------------------------------

ABSENT = {
    "name": ["nothing", "Q", "q2", "windlas", *ODD],
    "problem_id": ["2", "1000000007", "2147483647", "0", "-1", "01", "9" * 400, *ODD],
    "message_id": [STRANGER.message(1, 1).decode(), "m" * 32, *ODD],
    "receipt": [STRANGER.receipt(1, 1, 1).decode(), "r" * 36, *ODD],
    "submission_id": [STRANGER.numbered("sb", 1), "sb_" + "A" * 24, "1", *ODD],
    "job_id": [STRANGER.numbered("jb", 1), "jb_" + "A" * 24, "1", *ODD],
    "runner_id": [STRANGER.numbered("rn", 1), "rn_" + "A" * 24, "1", *ODD],
    "product_id": ["q", "P", "p2", "P" * 64, *ODD],
}
"""Names of each kind that are in a path: of the right shape, of any shape, and odd."""
CODES = {
    "name": "queue_not_found",
    "problem_id": "problem_not_found",
    "message_id": "message_not_found",
    "receipt": "receipt_unknown",
    "submission_id": "submission_not_found",
    "job_id": "job_not_found",
    "runner_id": "runner_unknown",
    "product_id": "product_not_found",
}
ELSE = {
    ("PUT", "/problems/{problem_id}"): "invalid",
    ("PUT", "/products/{product_id}"): "invalid",
    ("GET", "/jobs/{job_id}/code"): "code_link_invalid",
}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/queues/{name}/messages"): {"content": 1},
    ("PATCH", "/queues/{name}/receipts/{receipt}"): {"lease": 1},
    ("POST", "/queues/{name}/acks"): {"acks": []},
    ("PUT", "/problems/{problem_id}"): meta_json(),
    ("PUT", "/runners/{runner_id}/jobs/{job_id}/complete"): {"tasks": [[]]},
    ("POST", "/runners/{runner_id}/jobs/{job_id}/events"): {"events": []},
    ("POST", "/runners/{runner_id}/results"): {"results": []},
}


def test_a_name_in_a_path_that_is_not_there_costs_no_statement(town: Town) -> None:
    """Planted defects: a look for a problem before the guard is asked (no `expect` in `Problems.get`,
    `delete` or `rejudge_all`); a queue's name that gets as far as the writer (`_hand_on` does not look)."""
    paths: dict[str, dict[str, Any]] = town.api("GET", "/openapi.json").json()["paths"]
    asked = 0
    for template, operations in paths.items():
        for kind in CODES:
            if f"{{{kind}}}" not in template:
                continue
            for method in map(str.upper, operations):
                body = None if method == "GET" else BODIES.get((method, template), {})
                for name in ABSENT[kind]:
                    answer, statements = town.ask(method, template.format(**{**town.real, kind: name}), body)
                    told = f"{method} {template}, {kind} {name[:40]}: {answer.text}"
                    assert statements == [], told
                    assert 400 <= answer.status_code < 500, told
                    expected = ELSE.get((method, template), CODES[kind])
                    assert answer.json()["code"] in (expected, "not_found", "method_not_allowed"), told
                    asked += 1
    assert asked > 300


def test_every_kind_of_name_in_a_path_is_here(town: Town) -> None:
    """Planted defect: a kind left out of ABSENT."""
    paths = "".join(town.api("GET", "/openapi.json").json()["paths"])
    assert {part.partition("}")[0] for part in paths.split("{")[1:]} == set(ABSENT)


# --- names elsewhere ------------------------------------------------------------------------------------

FORGED = [STRANGER.receipt(1, 1, 1).decode(), "r" * 36, "x", "\u00e9"]
SOURCE = {"language": 2, "source": "print(1)"}
KEY = {"idempotency-key": "never seen"}
ELSEWHERE: dict[str, tuple[str, str, Any, dict[str, Any], int]] = {
    "a submission's problem": ("POST", "/submissions", {"problem_id": 2, **SOURCE}, {}, 404),
    "... of a form": (
        "POST", "/submissions", {"problem_id": "2", "language": "2", "source": "x"}, {"form": ""}, 404
    ),
    "a problem's submissions": ("GET", "/submissions?problem_id=2", None, {}, 200),
    "a page's beginning": ("GET", f"/submissions?after={STRANGER.numbered('sb', 1)}", None, {}, 404),
    "a page of queues": ("GET", "/queues?prefix=nothing&after=no", None, {}, 200),
    "a dead letter": ("POST", "/queues", {"name": "new", "dead_letter": "nothing"}, {}, 422),
    "another's dead letter": ("PATCH", "/queues/q", {"dead_letter": "nothing"}, {}, 422),
    "nobody's dead letter": ("PATCH", "/queues/nothing", {"dead_letter": "nothing"}, {}, 404),
    "a key for no queue": ("POST", "/queues/nothing/messages", {"content": 1}, KEY, 404),
    "a dedup id": ("POST", "/queues/nothing/messages", {"content": 1, "dedup_id": "d"}, {}, 404),
    "a batch of them": (
        "POST", "/queues/nothing/messages", {"messages": [{"content": 1, "dedup_id": "d"}] * 5}, {}, 404
    ),
    "a long poll": ("GET", "/queues/nothing/messages?wait=60&lease=5", None, {}, 404),
    "... in a body": ("POST", "/queues/nothing/receive", {"wait": 60, "max": 10}, {}, 404),
    "many receipts": ("POST", "/queues/q/acks", {"acks": [{"receipt": one} for one in FORGED]}, {}, 200),
    "a wait for a message": ("GET", f"/queues/q/messages/{'m' * 32}?wait=60", None, {}, 404),
    "a wait for a submission": ("GET", f"/submissions/{STRANGER.numbered('sb', 1)}?wait=60", None, {}, 404),
    "a wait for a job": ("GET", f"/jobs/{STRANGER.numbered('jb', 1)}?wait=60", None, {}, 404),
    "no label": ("POST", "/jobs", {"command": {"argv": ["true"]}, "labels": ["No label"]}, {}, 422),
    "an API key": ("GET", "/problems/1", None, {"authorization": "Bearer wk_00000000_" + "A" * 43}, 401),
    "... for a queue": ("GET", "/queues/q/messages", None, {"authorization": "Bearer x"}, 401),
    "a runner's token": ("GET", "/problems/1/meta", None, {"authorization": "Bearer rk_" + "A" * 43}, 401),
    "... that asks": ("GET", "/runners/{runner_id}/next-job", None, {"authorization": "Bearer rk_x"}, 401),
    "a registration": ("POST", "/runners/register", {"registration_token": "guess", "name": "r"}, {}, 401),
    "jobs in a heartbeat": (
        "POST", "/runners/{runner_id}/heartbeat",
        {"active_job_ids": [STRANGER.numbered("jb", 1), "jb_", "x"]}, {}, 204,
    ),
    "jobs in results": (
        "POST", "/runners/{runner_id}/results?max=5",
        {"results": [{"job_id": STRANGER.numbered("jb", 1), "result": {"tasks": []}}]}, {}, 200,
    ),
    "a link": (
        "GET", "/jobs/{job_id}/code?runner={runner_id}&expires=9999999999999&signature=" + "0" * 32,
        None, {}, 403,
    ),
}  # fmt: skip
"""method, path, body, headers ("form": as a form), status."""


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_name_elsewhere_that_is_not_there_costs_no_statement(town: Town, kind: str) -> None:
    """Planted defects: `submit` and `list` without a look at the guard; a dead letter that only the writer
    looks for; an acknowledgement of nothing that makes a commit."""
    method, path, body, headers, status = ELSEWHERE[kind]
    more: dict[str, Any] = {}
    if "form" in headers:
        more, body, headers = {"files": {name: (None, text) for name, text in body.items()}}, None, {}
    if headers:
        more["headers"] = {**(town.token if path.startswith("/runners/") else town.key), **headers}
    answer, statements = town.ask(method, path.format(**town.real), body, **more)
    assert (statements, answer.status_code) == ([], status), answer.text


# --- and what is there ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("database", "method", "path", "body"),
    [
        ("database", "GET", "/problems/1", None),
        ("database", "GET", "/submissions?problem_id=1", None),
        ("database", "GET", "/submissions/{submission_id}", None),
        ("database", "GET", "/products/{product_id}", None),
        ("store", "GET", "/queues/q/messages/{message_id}", None),
        ("store", "GET", "/jobs/{job_id}", None),
        ("store", "POST", "/queues/q/messages", {"content": 1}),
    ],
)
def test_what_is_there_is_seen_by_the_count(
    town: Town, database: str, method: str, path: str, body: Any
) -> None:
    """Or the tests above would count nothing. Planted defect: connections that nobody listens to."""
    answer, statements = town.ask(method, path.format(**town.real), body)
    assert answer.is_success, answer.text
    assert statements
    assert {each.partition(":")[0] for each in statements} == {database}
