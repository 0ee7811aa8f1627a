"""What holds for every route: methods, caches, bad bodies, bad parameters, bad paths, never a 5xx."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.contract.http.served import PROBLEM, Served, TestClient, refused

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")


def described(api: Served) -> dict[str, dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = api("GET", "/openapi.json").json()["paths"]
    return paths


def for_anybody(api: Served) -> dict[str, dict[str, Any]]:
    """All routes but those of runners, which want their tokens first: see test_runners.py."""
    return {
        path: operations
        for path, operations in described(api).items()
        if not path.startswith("/runners/") and not path.endswith("/code")
    }


def concrete(template: str) -> str:
    known = {"name": "q", "receipt": "r", "message_id": "m", "problem_id": "1", "submission_id": "sb_x"}
    return template.format(**known, job_id="jb_x", runner_id="rn_x", product_id="p")


def test_a_method_that_a_path_does_not_have_is_405_and_says_which_it_has(q: Served) -> None:
    """Planted defect: 404 for a hot route's path, because the ordinary router does not know it."""
    for template, operations in described(q).items():
        allowed = {method.upper() for method in operations}
        for method in METHODS:
            if method in allowed:
                continue
            answer = q(method, concrete(template))
            assert answer.status_code == 405, f"{method} {template}"
            assert set(answer.headers["allow"].split(", ")) == allowed
            if method != "HEAD":
                refused(answer, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/nothing", "/queues/", "//queues", "/queues/q/", "/queues/q/nothing", "/queues/q/messages/",
        "/queues/q/messages/m/more", "/queues/q/messages/m/", "/Queues", "/status/", "/openapi.json/",
        "/docs/nothing", "/queues/a%2Fb/messages", "/queues/q%2Fmessages/x/y", "/%00", "/%ff",
        "/queues/q/acks/r", "/queues/q/receive/x", "/queues/q/purge/", "/" + "x" * 10_240,
    ],
)  # fmt: skip
def test_a_path_that_is_none_is_404(same: Served, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = same(method, path)
        assert answer.status_code in (404, 405), answer.text
        assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    "name", ["%2e%2e", "%2E", "a%00b", "%ff%fe", "%F0%9F%98%80", "x" * 10_240, "a%20b", "%25"]
)
def test_a_queue_in_the_path_that_has_no_name_is_404(same: Served, name: str) -> None:
    for m, template in [(m, t) for t, operations in described(same).items() for m in operations]:
        if "{name}" not in template:
            continue
        body: dict[str, Any] = {"/messages": {"content": 1}, "{receipt}": {"lease": 1}, "/acks": {"acks": []}}
        wanted: Any = next(
            (value for end, value in body.items() if template.endswith(end) and m != "delete"), {}
        )
        path = template.replace("{name}", name).replace("{receipt}", "r").replace("{message_id}", "m")
        refused(same(m.upper(), path, wanted if m != "get" else None), 404, "queue_not_found")


def test_percent_encoded_names_are_the_same_names(q: Served) -> None:
    assert q("POST", "/queues/%71/messages", {"content": 1}).status_code == 201
    assert q("GET", "/queues/%71").json()["ready"] == 1
    assert q("GET", "/%71ueues/q/messages").json()["content"] == 1


def test_every_get_says_no_store_whatever_the_answer(q: Served) -> None:
    q.send("x")
    answers = [q("GET", concrete(template)) for template, ops in described(q).items() if "get" in ops]
    answers += [
        q("GET", path) for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json")
    ]
    answers += [q("GET", "/queues/q/messages"), q("GET", "/queues/nothing"), q("GET", "/nothing")]
    answers += [q("GET", "/queues/q/messages?max=0"), q("GET", "/queues", headers={"origin": "http://x"})]
    assert {answer.status_code for answer in answers} == {200, 204, 401, 403, 404, 422}
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store", answer.url


def test_a_parameter_that_a_route_does_not_have_is_422(q: Served) -> None:
    """Planted defect: passing a misspelt one over, so that ?limt=5 lists everything."""
    for template, operations in for_anybody(q).items():
        for method in operations:
            answer = q(method.upper(), concrete(template) + "?leese=5", {} if method != "get" else None)
            if answer.status_code == 404 and "{" in template:
                continue  # the thing itself is not there
            refused(answer, 422, "invalid")
    assert q("GET", "/queues/q").json()["paused"] is False


BROKEN: dict[str, tuple[bytes, int]] = {
    "cut off": (b'{"content": "x', 400),
    "two values": (b'{"content": 1} {"content": 2}', 400),
    "words": (b"content=1", 400),
    "a BOM": (b'\xef\xbb\xbf{"content": 1}', 400),
    "UTF-16": ('{"content": 1}'.encode("utf-16"), 422),
    "not UTF-8": (b'{"content": "\xff"}', 400),
    "overlong UTF-8": (b'{"content": "\xc0\x80"}', 400),
    "raw NUL": (b'{"content": "\0"}', 422),
    "an array": (b"[]", 422),
    "a string": (b'"x"', 422),
    "null": (b"null", 422),
    "a lone surrogate": (b'{"content": 1, "x": "\\ud800"}', 422),
    "nested too deep": (b'{"content": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422),
    "unknown field": (b'{"content": 1, "x": 1}', 422),
    "wrong types": (b'{"content": 1, "name": 5, "acks": 5, "lease": [], "max": [], "outcome": 1}', 422),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_body_is_a_problem_on_every_route_that_takes_one(q: Served, kind: str) -> None:
    body, status = BROKEN[kind]
    q.send("x", delay=100)
    before = q("GET", "/queues").json()
    for template, operations in for_anybody(q).items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            answer = q(method.upper(), concrete(template), body)
            optional = not operation["requestBody"].get("required")
            if optional and kind == "null" and answer.is_success:
                continue
            assert answer.status_code == status, f"{method} {template}: {answer.text}"
            assert answer.headers["content-type"] == PROBLEM
            if status == 422:
                assert answer.json()["field"]
    assert q("GET", "/queues").json() == before


def test_an_empty_body_is_refused_where_one_is_needed(q: Served) -> None:
    for template, operations in for_anybody(q).items():
        for method, operation in operations.items():
            if operation.get("requestBody", {}).get("required"):
                assert q(method.upper(), concrete(template), b"").status_code in (400, 422)
                assert q(method.upper(), concrete(template), b" \n").status_code in (400, 422)


def test_a_fault_of_our_own_is_a_problem_document_too(q: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: letting an exception through to the server, which says so in plain text."""

    def broken(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(q.app.store, "send", broken)
    answer = q("POST", "/queues/q/messages", {"content": 1})
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert "ZeroDivision" not in answer.text


# --- one application, opened in every way ---------------------------------------------------------


def test_without_a_lifespan_the_first_request_opens_it(tmp_path: Path) -> None:
    with Served(tmp_path / "deep" / "er") as api:
        api.queue("q")
        api.send("x")
        assert api.receive(lease=5)
        api.clock.advance(5)
        assert api.contents() == ["x"]


def test_with_a_lifespan_it_opens_and_closes(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        with TestClient(served.app, base_url="http://localhost") as client:
            assert client.post("/queues", json={"name": "q"}).status_code == 201
            assert client.post("/queues/q/messages", json={"content": 1}).status_code == 201
        with TestClient(served.app, base_url="http://localhost") as client:
            assert client.get("/queues/q/messages?wait=1").json()["content"] == 1


def test_a_test_client_that_is_not_entered_brings_a_loop_for_each_request(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        client = TestClient(served.app, base_url="http://localhost")
        assert client.post("/queues", json={"name": "q"}).status_code == 201
        for n in range(3):
            assert client.post("/queues/q/messages", json={"content": n}).status_code == 201
            assert client.get("/queues/q/messages?wait=1").json()["content"] == n
        assert client.get("/queues/q/messages?wait=0.02").status_code == 204
        assert client.get("/status").json()["waiting"] == 0


def test_two_applications_cannot_open_one_directory(tmp_path: Path) -> None:
    with Served(tmp_path) as first, Served(tmp_path) as second:
        assert first("GET", "/health").status_code == 200
        refused(second("GET", "/queues"), 503, "store_locked")


def test_a_websocket_is_turned_away(q: Served) -> None:
    sent: list[Any] = []

    async def scenario() -> None:
        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            sent.append(event)

        await q.app({"type": "websocket", "path": "/"}, receive, send)

    q.run(scenario())
    assert re.match("websocket.close", sent[0]["type"])
