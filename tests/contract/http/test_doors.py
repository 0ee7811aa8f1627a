"""Who is let in: browsers, hosts, keys and their scopes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.http.served import Served, refused
from windlass.server import control


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
        {"host": "evil.example"},
        {"host": "evil.example:8000"},
        {"host": "localhost.evil.example"},
        {"host": "192.168.1.7"},
        {"host": "127.0.0.1.nip.io"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ],
    ids=str,
)
def test_a_web_page_from_elsewhere_is_refused_and_takes_nothing(
    same: Served, headers: dict[str, str]
) -> None:
    """Planted defects: looking at Origin only with a body; comparing its beginning; trusting any Host."""
    same.send("x")
    for method, path, body in [
        ("GET", "/queues/q/messages", None),
        ("GET", "/queues/q/messages?lease=5&wait=1", None),
        ("POST", "/queues/q/receive", {}),
        ("POST", "/queues/q/messages", {"content": "y"}),
        ("POST", "/queues/q/purge", None),
        ("DELETE", "/queues/q", None),
        ("POST", "/queues", {"name": "new"}),
        ("GET", "/queues", None),
        ("GET", "/status", None),
    ]:
        refused(same(method, path, body, headers=headers), 403, "foreign_origin")
    assert same.contents() == ["x"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost"},
        {"origin": "HTTP://LOCALHOST", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin"},
        {"host": "localhost:8000"},
        {"host": "LOCALHOST"},
        {"host": "[::1]:8000"},
        {"host": "127.8.9.10"},
        {"host": "windlass.localhost"},
    ],
    ids=str,
)
def test_a_page_of_its_own_and_programs_are_let_in(same: Served, headers: dict[str, str]) -> None:
    assert same("GET", "/queues/q/messages", headers=headers).status_code == 204
    assert same("GET", "/status", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host", ["[", "[::1", "]", "localhost:x:y", "a b", "\x7f", "", "%", "@", "::", "[x]"]
)
def test_a_host_that_is_none_is_never_a_fault(same: Served, host: str) -> None:
    assert same("GET", "/queues", headers={"host": host}).status_code in (200, 400, 403)


def test_insecure_lets_any_host_in_but_no_foreign_page(tmp_path: Path) -> None:
    with Served(tmp_path, insecure=True) as api:
        assert api("GET", "/queues", headers={"host": "queue.example"}).status_code == 200
        refused(api("GET", "/queues", headers={"origin": "http://evil.example"}), 403, "foreign_origin")


# --- keys -----------------------------------------------------------------------------------------


def key(api: Served, *scopes: str, name: str = "") -> tuple[dict[str, str], str]:
    """A key's header, and its id."""
    if not api.app.opened:
        api("GET", "/health")
    made = api.run(control.act(api.app, {"do": "create_key", "name": name, "scopes": list(scopes)}))
    return {"authorization": f"Bearer {made['key']}"}, made["id"]


ROUTES: list[tuple[str, str, Any, str]] = [
    ("POST", "/queues/q/messages", {"content": 1}, "send"),
    ("GET", "/queues/q/messages", None, "receive"),
    ("POST", "/queues/q/receive", {}, "receive"),
    ("DELETE", "/queues/q/receipts/r", None, "receive"),
    ("PATCH", "/queues/q/receipts/r", {"lease": 5}, "receive"),
    ("POST", "/queues/q/acks", {"acks": []}, "receive"),
    ("GET", "/queues/q/peek", None, "receive"),
    ("GET", "/queues/q/messages/m", None, "receive"),
    ("DELETE", "/queues/q/messages/m", None, "receive"),
    ("POST", "/queues", {"name": "q"}, "admin"),
    ("GET", "/queues/q", None, "admin"),
    ("PATCH", "/queues/q", {}, "admin"),
    ("POST", "/queues/q/pause", None, "admin"),
    ("POST", "/queues/q/resume", None, "admin"),
    ("POST", "/queues/q/purge", None, "admin"),
    ("POST", "/queues/q/redrive", None, "admin"),
    ("DELETE", "/queues/q", None, "admin"),
]


@pytest.mark.parametrize(("method", "path", "body", "scope"), ROUTES, ids=lambda value: str(value)[:30])
def test_each_route_demands_its_scope(q: Served, method: str, path: str, body: Any, scope: str) -> None:
    """Planted defect: one route that forgets to ask."""
    for other in ("send", "receive", "admin"):
        for pattern in ("q", "other", "qq*"):
            headers, _ = key(q, f"{other}:{pattern}")
            if (other, pattern) != (scope, "q"):
                refused(q(method, path, body, headers=headers), 403, "forbidden")
    refused(q(method, path, body), 401, "unauthenticated")
    granted = key(q, f"{scope}:q*", "send:z")[0] if scope != "admin" else key(q, "all")[0]
    assert q(method, path, body, headers=granted).status_code not in (401, 403)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer x", "Basic eDp5", "Bearer wk_00000000_x", "bearer\xa0x", "x" * 10_240],
)
def test_what_is_no_key_is_401_with_a_challenge(q: Served, authorization: str) -> None:
    key(q, "all")
    answer = q("GET", "/queues/q/messages", headers=[(b"authorization", authorization.encode("latin-1"))])
    refused(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_works_however_the_word_bearer_is_written_and_with_any_host(q: Served) -> None:
    headers, _ = key(q, "all")
    headers = {"authorization": headers["authorization"].replace("Bearer", "bEARER"), "host": "queue.example"}
    assert q("GET", "/queues/q/messages", headers=headers).status_code == 204


def test_a_foreign_page_is_refused_even_with_a_key(q: Served) -> None:
    headers, _ = key(q, "all")
    refused(q("GET", "/queues", headers={**headers, "origin": "http://evil.example"}), 403, "foreign_origin")


def test_revoking_is_immediate_and_the_last_key_opens_the_door_again(q: Served) -> None:
    headers, key_id = key(q, "all")
    other, other_id = key(q, "all")
    q.run(control.act(q.app, {"do": "revoke_key", "id": key_id}))
    refused(q("GET", "/queues", headers=headers), 401, "unauthenticated")
    assert q("GET", "/queues", headers=other).status_code == 200
    q.run(control.act(q.app, {"do": "revoke_key", "id": other_id}))
    assert q("GET", "/queues").status_code == 200


def test_what_needs_no_key(q: Served) -> None:
    key(q, "all")
    for path in ("/health", "/openapi.json", "/docs", "/docs/start.js"):
        assert q("GET", path).status_code == 200
    for path in ("/status", "/queues", "/nothing"):
        refused(q("GET", path), 401, "unauthenticated")


def test_a_list_shows_what_the_key_may_see(q: Served) -> None:
    for name in ("a1", "a2", "b1"):
        q.queue(name)

    def names(scope: str, query: str = "") -> list[str]:
        answer = q("GET", f"/queues{query}", headers=key(q, scope)[0])
        return [queue["name"] for queue in answer.json()["queues"]]

    assert names("admin:a*") == ["a1", "a2"]
    assert names("receive:b1") == ["b1"]
    assert names("send:*") == []
    assert names("admin:b*", "?limit=1") == ["b1"]


def test_idempotency_keys_are_scoped_to_the_caller(q: Served) -> None:
    """Planted defect: one caller's key answering another's."""
    once = {"idempotency-key": "k"}
    one, two = key(q, "all", name="one")[0], key(q, "all", name="two")[0]
    first = q("POST", "/queues/q/messages", {"content": 1}, headers={**once, **one})
    second = q("POST", "/queues/q/messages", {"content": 2}, headers={**once, **two})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


def test_a_keys_name_is_in_a_messages_life(q: Served) -> None:
    headers, _ = key(q, "all", name='sh"op\\')
    one = q("POST", "/queues/q/messages", {"content": 1}, headers=headers).json()["id"]
    q("POST", "/queues/q/receive", {"lease": 5}, headers=headers)
    q.advance(5)
    life = q("GET", f"/queues/q/messages/{one}", headers=headers).json()["life"]
    assert life[1]["by"] == 'sh"op\\'
