"""Batches: up to 1,000 messages and 16 MiB either way, all or nothing, in order."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.http.served import Served, refused

MIB = 1024 * 1024


def test_with_max_the_answer_is_an_object_of_messages(q: Served) -> None:
    for n in range(3):
        q.send(n)
    answer = q("GET", "/queues/q/messages?max=1").json()
    assert [message["content"] for message in answer["messages"]] == [0]
    assert [message["content"] for message in q.receive(max=1000)["messages"]] == [1, 2]
    empty = q("GET", "/queues/q/messages?max=10")
    assert (empty.status_code, empty.content) == (204, b"")


def test_a_batch_is_sent_in_order_with_an_id_each(q: Served) -> None:
    answer = q("POST", "/queues/q/messages", {"messages": [{"content": n} for n in range(1000)]})
    assert answer.status_code == 201
    sent = answer.json()["messages"]
    assert [message["duplicate"] for message in sent] == [False] * 1000
    taken = q.receive(max=1000, lease=30)["messages"]
    assert [message["id"] for message in taken] == [message["id"] for message in sent]
    assert [message["content"] for message in taken] == list(range(1000))
    acks = [{"receipt": message["receipt"]} for message in taken]
    results = q("POST", "/queues/q/acks", {"acks": acks}).json()["results"]
    assert {result["status"] for result in results} == {"acknowledged"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": 1}] * 1001}, "messages"),
        ({"messages": {"content": 1}}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": 1}, {}]}, "messages[1].content"),
        ({"messages": [{"content": 1}, {"content": 1, "priority": 10}]}, "messages[1].priority"),
        ({"messages": [{"content": 1, "dealy": 1}]}, "messages[0].dealy"),
        ({"messages": [{"content": 1}], "content": 1}, "content"),
        ({"messages": [{"content": 1}], "priority": 1}, "priority"),
    ],
)
def test_a_bad_batch_is_refused_whole_and_names_the_field(same: Served, body: Any, field: str) -> None:
    refused(same("POST", "/queues/q/messages", body), 422, "invalid", field)
    assert same("GET", "/queues/q").json()["ready"] == 0


def test_a_batch_is_known_by_its_fields_wherever_they_stand(q: Served) -> None:
    """Planted defect: looking for the word "messages" in the text."""
    padded = b"{" + b" " * 1000 + b'"messages" : [{"content": 1}]}'
    assert len(q("POST", "/queues/q/messages", padded).json()["messages"]) == 1
    escaped = b'{"\\u006dessages": [{"content": 2}]}'
    assert len(q("POST", "/queues/q/messages", escaped).json()["messages"]) == 1
    singles: list[Any] = [
        {"group": "messages", "content": 3},
        {"headers": {"messages": "x"}, "content": 4},
        {"content": {"messages": []}},
    ]
    for single in singles:
        assert "id" in q("POST", "/queues/q/messages", single).json()
    assert q.contents() == [1, 2, 3, 4, {"messages": []}]


def test_acks_are_at_most_a_thousand(q: Served) -> None:
    assert q("POST", "/queues/q/acks", {"acks": []}).json() == {"results": []}
    refused(q("POST", "/queues/q/acks", {"acks": [{"receipt": "r"}] * 1001}), 422, "invalid", "acks")
    refused(q("POST", "/queues/q/acks", {"acks": [{"receipt": 1}]}), 422, "invalid", "acks[0].receipt")
    refused(q("POST", "/queues/q/acks", {}), 422, "invalid", "acks")


@pytest.mark.parametrize("most", ["0", "-1", "1001", "1.5", "x", "", "9" * 20])
def test_max_is_a_whole_number_from_1_to_1000(same: Served, most: str) -> None:
    refused(same("GET", f"/queues/q/messages?max={most}"), 422, "invalid", "max")
    refused(same("GET", f"/queues/q/peek?max={most}"), 422, "invalid", "max")
    refused(same("POST", "/queues/q/receive", {"max": most}), 422, "invalid", "max")


def test_a_batch_of_more_than_16_mib_of_content_is_413(api: Served) -> None:
    api.queue("q", max_message_bytes=16 * MIB)
    content = b'"' + b"x" * (4 * MIB - 2) + b'"'
    four = b",".join([b'{"content":' + content + b"}"] * 4)
    assert api("POST", "/queues/q/messages", b'{"messages":[' + four + b"]}").status_code == 201
    over = four + b',{"content":1}'
    refused(api("POST", "/queues/q/messages", b'{"messages":[' + over + b"]}"), 413, "too_large", "messages")
    assert api("GET", "/queues/q").json()["ready"] == 4


def test_a_message_of_16_mib_passes_where_the_queue_allows_it(api: Served) -> None:
    api.queue("q", max_message_bytes=16 * MIB)
    content = b'"' + b"x" * (16 * MIB - 2) + b'"'
    assert api("POST", "/queues/q/messages", b'{"content":' + content + b"}").status_code == 201
    refused(api("POST", "/queues/q/messages", b'{"content":"x' + content[1:] + b"}"), 413, "too_large")
    assert content in api("GET", "/queues/q/messages?max=1000").content


def test_a_body_beyond_all_limits_is_413(q: Served) -> None:
    refused(q("POST", "/queues/q/messages", b" " * (17 * MIB + 1)), 413, "too_large")
    refused(q("POST", "/queues", b" " * (17 * MIB + 1)), 413, "too_large")


@pytest.mark.parametrize("lease", [{}, {"lease": 30}], ids=["plain", "lease"])
@pytest.mark.parametrize("group", [{}, {"group": "g"}], ids=["ungrouped", "grouped"])
def test_a_receive_carries_at_most_16_mib(api: Served, lease: dict[str, Any], group: dict[str, Any]) -> None:
    """Planted defect: counting messages, not bytes, when a batch is handed out."""
    api.queue("q", max_message_bytes=16 * MIB)
    for n in range(7):
        api.send(str(n) * (3 * MIB), **group)
    sizes = []
    while taken := api.receive(max=1000, **lease):
        assert sum(len(message["content"]) + 2 for message in taken["messages"]) <= 16 * MIB
        sizes.append(len(taken["messages"]))
        for message in taken["messages"]:
            if lease:
                assert api.acknowledge(message["receipt"]).status_code == 204
    assert sum(sizes) == 7
    if not group or not lease:
        assert sizes == [5, 2]


def test_a_peek_carries_at_most_16_mib(api: Served) -> None:
    api.queue("q", max_message_bytes=16 * MIB)
    for n in range(7):
        api.send(str(n) * (3 * MIB))
    assert len(api("GET", "/queues/q/peek?max=1000").json()["messages"]) == 5
