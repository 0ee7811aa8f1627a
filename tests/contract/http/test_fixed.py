"""The block of the contract that is fixed for ever: create, send, receive, status; order, once, content."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.contract.http.served import Caller, Served, refused
from windlass import __version__


def test_a_queue_is_created_once_and_left_as_it_is(api: Served) -> None:
    first = api("POST", "/queues", {"name": "orders", "lease_seconds": 7})
    assert first.status_code == 201
    assert first.json()["name"] == "orders"
    again = api("POST", "/queues", {"name": "orders"})
    assert again.status_code == 200
    assert again.json() == first.json()
    assert api("POST", "/queues", {"name": "orders", "lease_seconds": 7.0}).status_code == 200


def test_a_queue_with_other_settings_is_a_conflict_and_nothing_changes(api: Served) -> None:
    api.queue("orders", lease_seconds=7)
    refused(
        api("POST", "/queues", {"name": "orders", "lease_seconds": 8}), 409, "queue_exists", "lease_seconds"
    )
    assert api("GET", "/queues/orders").json()["lease_seconds"] == 7


@pytest.mark.parametrize(
    "name", ["", "a b", ".a", "-a", "_a", "a/b", "a\n", "é", "a" * 129, "x" * 10_240, "\u0000", "a\u0000"]
)
def test_what_is_no_name_is_refused(api: Served, name: str) -> None:
    refused(api("POST", "/queues", {"name": name}), 422, "invalid", "name")
    assert api("GET", "/queues").json()["queues"] == []


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-d", "a" * 128, "0...---"])
def test_what_is_a_name_is_taken(api: Served, name: str) -> None:
    assert api("POST", "/queues", {"name": name}).status_code == 201
    assert api("GET", f"/queues/{name}/messages").status_code == 204


def test_a_message_goes_in_and_comes_out(q: Served) -> None:
    sent = q("POST", "/queues/q/messages", {"content": "text"})
    assert sent.status_code == 201
    answer = q("GET", "/queues/q/messages")
    assert answer.status_code == 200
    message = answer.json()
    assert message["id"] == sent.json()["id"]
    assert message["content"] == "text"
    empty = q("GET", "/queues/q/messages")
    assert empty.status_code == 204
    assert empty.content == b""
    assert "content-type" not in empty.headers


def test_a_message_has_its_shape(q: Served) -> None:
    q.send("x", priority=3, group="g", headers={"a": "b"})
    message = q("GET", "/queues/q/messages").json()
    assert message == {
        "id": message["id"],
        "content": "x",
        "enqueued_at": "2023-11-14T22:13:20.000Z",
        "deliveries": 1,
        "priority": 3,
        "group": "g",
        "headers": {"a": "b"},
    }


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_a_queue_that_is_not_there_is_404(api: Served, verb: str) -> None:
    body = {"content": 1} if verb == "POST" else None
    refused(api(verb, "/queues/nothing/messages", body), 404, "queue_not_found")
    refused(api("GET", "/queues/nothing/messages?wait=1"), 404, "queue_not_found")


def test_status_tells_of_the_server_and_its_totals(q: Served) -> None:
    q.send()
    q.send(delay=5)
    answer = q("GET", "/status")
    assert answer.status_code == 200
    status = answer.json()
    assert status["status"] == "ok"
    assert status["version"] == __version__
    assert status["uptime_seconds"] >= 0
    assert (status["queues"], status["messages"]) == (1, 2)
    assert status["states"] == {"ready": 1, "delayed": 1, "leased": 0, "blocked": 0, "dead": 0}


def test_status_of_a_store_that_does_not_answer_is_503_with_the_same_object(
    q: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: answering 200 whatever ping() says."""
    from windlass.errors import StoreUnavailable

    async def broken() -> None:
        raise StoreUnavailable("The disk is on fire.")

    whole = q("GET", "/status").json()
    monkeypatch.setattr(q.app.store, "ping", broken)
    answer = q("GET", "/status")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json().keys() == whole.keys()
    assert answer.json()["status"] == "unavailable"
    assert answer.json()["detail"] == "The disk is on fire."
    health = q("GET", "/health")
    assert (health.status_code, health.headers["retry-after"]) == (503, "1")
    assert health.json()["live"] is True
    assert health.json()["ready"] is False


# --- order and once -------------------------------------------------------------------------------


def test_messages_leave_in_the_order_of_their_sends(q: Served) -> None:
    for n in range(20):
        q.send(n)
    assert q.contents() == list(range(20))


def test_a_batch_is_contiguous_among_others(q: Served) -> None:
    """Planted defect: numbering the messages of concurrent batches one by one in turn."""

    async def scenario() -> None:
        await asyncio.gather(
            *(
                q.ask("POST", "/queues/q/messages", {"messages": [{"content": [b, n]} for n in range(50)]})
                for b in range(10)
            )
        )

    q.run(scenario())
    contents = q.contents()
    batches = [contents[start : start + 50] for start in range(0, 500, 50)]
    for batch in batches:
        assert batch == [[batch[0][0], n] for n in range(50)]


def test_of_the_ready_messages_the_highest_priority_leaves_first_then_the_oldest(q: Served) -> None:
    for content, priority in [("a", 0), ("b", 9), ("c", 5), ("d", 9), ("e", 0)]:
        q.send(content, priority=priority)
    assert q.contents() == ["b", "d", "c", "a", "e"]


def test_a_message_keeps_its_number_while_it_is_not_ready(q: Served) -> None:
    q.send("delayed", delay=5)
    q.send("leased")
    q.send("back")
    q.send("younger")
    q.receive(lease=10)
    back = q.receive(lease=60)
    assert q("PATCH", f"/queues/q/receipts/{back['receipt']}", {"lease": 0}).status_code == 204
    q.advance(10)
    assert q.contents() == ["delayed", "leased", "back", "younger"]


def test_younger_messages_may_leave_before_one_that_is_not_ready(q: Served) -> None:
    q.send("first", delay=5)
    q.send("second")
    assert q.contents() == ["second"]
    q.advance(5)
    assert q.contents() == ["first"]


def test_numbers_survive_a_restart(api: Served) -> None:
    """Planted defect: numbering from 1 again, or forgetting where messages stood."""
    api.queue("q")
    api.send("a")
    api.run(api.app.close())
    api.send("b")
    api.run(api.app.close())
    assert api.contents() == ["a", "b"]


def test_a_message_goes_to_exactly_one_of_many(q: Served) -> None:
    async def scenario() -> list[Any]:
        for n in range(30):
            await q.ask("POST", "/queues/q/messages", {"content": n})
        answers = await asyncio.gather(*(q.ask("GET", "/queues/q/messages") for _ in range(60)))
        return [answer.json()["content"] for answer in answers if answer.status_code == 200]

    assert sorted(q.run(scenario())) == list(range(30))


def test_a_client_known_to_be_gone_takes_nothing(q: Served) -> None:
    """Planted defect: not asking, before the commit, whether the caller is still there."""
    q.send("kept")

    async def scenario() -> Caller:
        gone = Caller(q, "GET", "/queues/q/messages")
        gone.hang_up()
        await gone.task
        return gone

    assert q.run(scenario()).status == 204
    assert q.contents() == ["kept"]


# --- content --------------------------------------------------------------------------------------

KEPT = [
    b'"text"', b"1", b"null", b"true", b"-0.0", b"1e400", b"1E-400", b"1180591620717411303424", b"-0",
    b"123456789012345678901234567890.12345678901234567890", b'"\\u0000"', b'"\\ud83d\\ude00"', b'"\\/"',
    '"\u00e9\U0001f600\u2028"'.encode(), b'{"z":1,"a":2,"z":3}', b'{ "a" :\t[ 1 ,\n2 ] }', b"[]", b"{}",
    b'""',
    b'"\\u00e9"', b'"a\\\\ud800"', b"[" * 100 + b"]" * 100, b'{"a":' * 100 + b"1" + b"}" * 100,
    b'"' + b"[" * 5000 + b'"', b'["\\"[[[[", "\\\\"]',
]  # fmt: skip


@pytest.mark.parametrize("content", KEPT, ids=lambda content: content[:20].decode())
@pytest.mark.parametrize("options", [b"", b', "priority": 1'], ids=["plain", "options"])
def test_content_comes_back_byte_for_byte(same: Served, content: bytes, options: bytes) -> None:
    """Planted defect: parsing the content and writing it again."""
    assert same("POST", "/queues/q/messages", b'{"content": ' + content + options + b"}").status_code == 201
    many = b'{"messages": [{"content": ' + content + options + b'}, {"content":' + content + b"}]}"
    assert same("POST", "/queues/q/messages", many).status_code == 201
    for _ in range(3):
        answer = same("GET", "/queues/q/messages")
        start = answer.content.index(b'"content":') + len(b'"content":')
        assert answer.content[start : start + len(content)] == content
        assert answer.content[start + len(content) :].startswith(b',"enqueued_at"')


REFUSED = {
    "raw NUL": (b'"a\0b"', 422, "invalid"),
    "raw lone surrogate": (b'"\xed\xa0\x80"', 422, "invalid"),
    "escaped lone surrogate": (b'"\\ud800"', 422, "invalid"),
    "escaped low surrogate": (b'"x\\uDFFFy"', 422, "invalid"),
    "two high surrogates": (b'"\\ud83d\\ud83d"', 422, "invalid"),
    "surrogate in a key": (b'{"\\udc00":1}', 422, "invalid"),
    "nested 101 deep": (b"[" * 101 + b"]" * 101, 422, "invalid"),
    "objects nested 101 deep": (b'{"a":' * 101 + b"1" + b"}" * 101, 422, "invalid"),
    "nested deep behind strings": (b'["]]]\\"]",' * 101 + b"1" + b"]" * 101, 422, "invalid"),
    "nested 100,000 deep": (b"[" * 100_000 + b"]" * 100_000, 422, "invalid"),
    "not UTF-8": (b'"\xff"', 400, "broken_json"),
    "NaN": (b"NaN", 400, "broken_json"),
    "single quotes": (b"'a'", 400, "broken_json"),
    "a comma too many": (b"[1,]", 400, "broken_json"),
    "cut off": (b'"abc', 400, "broken_json"),
    "raw newline": (b'"a\nb"', 400, "broken_json"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("options", [b"", b', "priority": 1'], ids=["plain", "options"])
def test_what_is_no_content_is_refused(same: Served, kind: str, options: bytes) -> None:
    content, status, code = REFUSED[kind]
    refused(same("POST", "/queues/q/messages", b'{"content":' + content + options + b"}"), status, code)
    batch = b'{"messages":[{"content":1},{"content":' + content + options + b"}]}"
    refused(same("POST", "/queues/q/messages", batch), status, code)
    assert same("GET", "/queues/q").json()["ready"] == 0, "half of it was done"


def test_size_is_counted_in_bytes_of_utf_8(api: Served) -> None:
    api.queue("q", max_message_bytes=10)
    assert api("POST", "/queues/q/messages", '{"content":"éééé"}'.encode()).status_code == 201
    refused(api("POST", "/queues/q/messages", '{"content":"ééééé"}'.encode()), 413, "too_large", "content")
    refused(
        api("POST", "/queues/q/messages", {"messages": [{"content": 1}, {"content": "x" * 9}]}),
        413,
        "too_large",
    )
    assert api("GET", "/queues/q").json()["ready"] == 1


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "nonsense"]
)
@pytest.mark.parametrize("path", ["/queues", "/queues/q/messages", "/queues/q/receive", "/queues/q/redrive"])
def test_json_is_read_whatever_the_content_type_says(same: Served, content_type: str, path: str) -> None:
    body = {"/queues": {"name": "other"}, "/queues/q/messages": {"content": 1}}.get(path, {"max": 1})
    answer = same("POST", path, body, headers={"content-type": content_type})
    assert answer.status_code in (200, 201, 204), answer.text
    assert same("POST", path, body).status_code == answer.status_code or path == "/queues"


def test_json_is_read_without_a_content_type(q: Served) -> None:
    assert q("POST", "/queues", b'{"name": "other"}').status_code == 201
    assert json.loads(q("GET", "/queues").content)["queues"][0]["name"] == "other"
