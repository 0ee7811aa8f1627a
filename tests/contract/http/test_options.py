"""What a message may carry: delay, ttl, priority, group, dedup_id, headers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.http.served import Served, refused

MONTH = 30 * 24 * 3600


def test_a_delayed_message_is_ready_after_its_delay(q: Served) -> None:
    q.send("x", delay=1.5)
    q.advance(1.499)
    assert q.contents() == []
    q.advance(0.001)
    assert q.contents() == ["x"]


def test_a_message_expires_after_its_ttl(q: Served) -> None:
    q.send("x", ttl=10)
    q.send("y", ttl=10.001)
    q.advance(10)
    assert q.contents() == ["y"]


def test_a_message_that_expired_is_not_handed_out_even_before_it_is_swept(q: Served) -> None:
    q.send("x", ttl=10)
    q.clock.advance(10)
    assert q.contents() == []


def test_inside_a_group_the_number_alone_counts(q: Served) -> None:
    q.send("low", group="g")
    q.send("high", group="g", priority=9)
    assert q.contents() == ["low", "high"]


def test_nothing_leaves_a_group_while_an_older_one_is_leased_or_delayed(q: Served) -> None:
    """Planted defect: blocking a group for leases but not for delays."""
    q.send("first", group="g")
    q.send("second", group="g")
    q.send("late", group="h", delay=10)
    q.send("behind", group="h", priority=9)
    leased = q.receive(lease=5)
    assert leased["content"] == "first"
    assert q.contents() == []
    assert q("GET", "/queues/q").json()["blocked"] == 2
    q.acknowledge(leased["receipt"])
    assert q.contents() == ["second"]
    q.advance(10)
    assert q.contents() == ["late", "behind"]


def test_groups_do_not_hold_each_other_up_and_the_ungrouped_hold_up_nobody(q: Served) -> None:
    q.send("a1", group="a")
    q.send("a2", group="a")
    q.send("b1", group="b")
    q.send("free")
    assert q.receive(lease=60)["content"] == "a1"
    assert q.contents() == ["b1", "free"]


def test_a_dedup_id_is_sent_once_inside_the_window(api: Served) -> None:
    api.queue("q", dedup_window_seconds=100)
    first = api("POST", "/queues/q/messages", {"content": 1, "dedup_id": "d"})
    assert (first.status_code, first.json()["duplicate"]) == (201, False)
    again = api("POST", "/queues/q/messages", {"content": 2, "dedup_id": "d"})
    assert (again.status_code, again.json()) == (200, {"id": first.json()["id"], "duplicate": True})
    assert api.contents() == [1]
    assert api("POST", "/queues/q/messages", {"content": 3, "dedup_id": "d"}).status_code == 200
    api.advance(100)
    later = api("POST", "/queues/q/messages", {"content": 4, "dedup_id": "d"})
    assert later.status_code == 201
    assert later.json()["id"] != first.json()["id"]


def test_dedup_ids_inside_a_batch_are_told_message_by_message(q: Served) -> None:
    q.send(0, dedup_id="a")
    messages = [{"content": n, "dedup_id": dedup_id} for n, dedup_id in enumerate("abb", 1)]
    answer = q("POST", "/queues/q/messages", {"messages": messages})
    assert answer.status_code == 201
    sent = answer.json()["messages"]
    assert [message["duplicate"] for message in sent] == [True, False, True]
    assert sent[1]["id"] == sent[2]["id"]
    assert q.contents() == [0, 2]


def test_a_known_dedup_id_is_no_new_message_for_a_full_queue(api: Served) -> None:
    """Planted defect: looking at max_length before the dedup id."""
    api.queue("q", max_length=1)
    first = api.send(1, dedup_id="d")
    again = api("POST", "/queues/q/messages", {"content": 1, "dedup_id": "d"})
    assert (again.status_code, again.json()["id"]) == (200, first)


def test_dedup_ids_of_two_queues_are_strangers(q: Served) -> None:
    q.queue("other")
    q.send(1, dedup_id="d")
    assert q.send(2, "other", dedup_id="d")


def test_headers_come_back_as_they_were(q: Served) -> None:
    headers = {"": "", "Trace": "\u00e9\n\"'", "z" * 200: "\U0001f600"}
    q.send("x", headers=headers)
    assert q("GET", "/queues/q/messages").json()["headers"] == headers


BAD: list[tuple[str, Any]] = [
    *(("delay", value) for value in list[Any]((-1, -0.001, MONTH + 0.001, "5", True, None, [], 1e300))),
    *(("ttl", value) for value in (0, -1, "5", True, 1e300)),
    *(("priority", value) for value in (-1, 10, 1.5, "1", True, None, 2**70)),
    *(("group", value) for value in ("", "g" * 129, 1, "a\nb", "a\u0000", "\u007f")),
    *(("dedup_id", value) for value in ("", "d" * 129, 1, "a\tb")),
    *(("headers", value) for value in list[Any](({"a": 1}, {"a": None}, [], "x", {"a": {"b": "c"}}))),
    *((name, 1) for name in ("contents", "Delay", "lease", "id", "x" * 10_240)),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_what_is_out_of_range_of_the_wrong_type_or_unknown_is_422(
    same: Served, field: str, value: Any
) -> None:
    answer = same("POST", "/queues/q/messages", {"content": 1, field: value})
    refused(answer, 422, "invalid")
    assert answer.json()["field"].startswith(field[:100])
    assert len(answer.json()["field"]) <= 200
    assert same("GET", "/queues/q").json()["ready"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 0}, {"delay": MONTH}, {"ttl": 0.001}, {"priority": 9}, {"priority": 0}, {"ttl": None},
        {"group": "g" * 128}, {"group": "\u00e9 \U0001f600"}, {"group": None}, {"dedup_id": "d" * 128},
        {"headers": {}}, {"headers": None},
    ],
)  # fmt: skip
def test_the_edges_are_inside(q: Served, options: dict[str, Any]) -> None:
    assert q.send("x", **options)


def test_numbers_beyond_all_floats_are_422_where_a_number_is_read(q: Served) -> None:
    for number in (b"1e400", b"-1e400", b"1" + b"0" * 5000):
        refused(q("POST", "/queues/q/messages", b'{"content":1,"delay":' + number + b"}"), 422, "invalid")
        refused(q("POST", "/queues", b'{"name":"z","lease_seconds":' + number + b"}"), 422, "invalid")
        refused(q("POST", "/queues", b'{"name":"z","max_length":' + number + b"}"), 422, "invalid")
    assert [queue["name"] for queue in q("GET", "/queues").json()["queues"]] == ["q"]
