"""Per queue: settings, limits, dead letters, purge, pause, redrive, deletion, the product's own names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.http.served import Served, refused

DEFAULTS = {
    "lease_seconds": 30,
    "max_deliveries": None,
    "dead_letter": None,
    "max_length": None,
    "max_message_bytes": 1024 * 1024,
    "retention_seconds": None,
    "dedup_window_seconds": 300,
    "history_seconds": 0,
    "outcome_ttl_seconds": 3600,
}
COUNTS = {"ready": 0, "delayed": 0, "leased": 0, "blocked": 0, "dead": 0, "in_rate": 0, "out_rate": 0}


def test_a_queue_shows_its_settings_and_counts(api: Served) -> None:
    created = api("POST", "/queues", {"name": "q"}).json()
    assert created == {
        "name": "q", "paused": False, "created_at": "2023-11-14T22:13:20.000Z", **DEFAULTS, **COUNTS
    }  # fmt: skip
    assert api("GET", "/queues/q").json() == {**created, "oldest_age_seconds": None}


def test_counts_age_and_rates(q: Served) -> None:
    q.send("a")
    q.advance(2.5)
    q.send("b", delay=100)
    q.send("c", group="g")
    q.send("d", group="g")
    shown = q("GET", "/queues/q").json()
    assert (shown["ready"], shown["delayed"], shown["blocked"]) == (2, 1, 1)
    assert shown["oldest_age_seconds"] == 2.5
    assert shown["in_rate"] == round(4 / 60, 3)
    q.receive()
    q.receive(lease=5)
    shown = q("GET", "/queues/q").json()
    assert (shown["ready"], shown["leased"], shown["oldest_age_seconds"]) == (0, 1, None)
    assert shown["out_rate"] == round(1 / 60, 3)
    q.clock.advance(61)
    assert q("GET", "/queues/q").json()["in_rate"] == 0


def test_settings_change_one_by_one(q: Served) -> None:
    changed = q("PATCH", "/queues/q", {"lease_seconds": 5, "max_length": 10})
    assert changed.status_code == 200
    assert (changed.json()["lease_seconds"], changed.json()["max_length"]) == (5, 10)
    assert q("PATCH", "/queues/q", {"max_length": None}).json()["max_length"] is None
    assert q("GET", "/queues/q").json()["lease_seconds"] == 5
    assert q("PATCH", "/queues/q", {}).status_code == 200
    q.run(q.app.close())
    assert q("GET", "/queues/q").json()["lease_seconds"] == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("lease_seconds", value) for value in (0, -1, 43_201, "30", True, None)),
        *(("max_deliveries", value) for value in (0, -1, 1.5, "3", True)),
        *(("max_length", value) for value in (0, -1, 1.5, "3", 2**70)),
        *(("max_message_bytes", value) for value in (0, 16 * 1024 * 1024 + 1, None)),
        *(("retention_seconds", value) for value in (0, -1, 1e300)),
        *(("dedup_window_seconds", value) for value in (-1, None, "x")),
        *(("history_seconds", value) for value in (-1, None)),
        *(("outcome_ttl_seconds", value) for value in (-1, None)),
        *(("dead_letter", value) for value in ("nothing", "q", 5, "x" * 10_240, "")),
        *(("paused", True), ("lease", 5), ("x" * 10_240, 1)),
    ],
)
def test_bad_settings_are_422_and_change_nothing(same: Served, field: str, value: Any) -> None:
    before = same("GET", "/queues/q").json()
    for answer in (
        same("PATCH", "/queues/q", {"history_seconds": 9, field: value}),
        same("POST", "/queues", {"name": "new" if value != "q" else "q", field: value}),
    ):
        assert answer.status_code in (409, 422) if value == "q" else answer.status_code == 422, answer.text
        assert answer.json()["field"].startswith(field[:100])
    assert same("GET", "/queues/q").json() == before
    refused(same("GET", "/queues/new"), 404, "queue_not_found")


def test_a_name_cannot_be_changed(q: Served) -> None:
    refused(q("PATCH", "/queues/q", {"name": "other"}), 422, "invalid", "name")


def test_a_full_queue_refuses_with_retry_after_and_drops_nothing(api: Served) -> None:
    api.queue("q", max_length=2)
    api.send(1)
    api.receive(lease=60)
    api.send(2, delay=60)
    answer = api("POST", "/queues/q/messages", {"content": 3})
    refused(answer, 429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    refused(api("POST", "/queues/q/messages", {"messages": [{"content": 3}] * 2}), 429, "queue_full")
    assert api("GET", "/status").json()["messages"] == 2


def test_the_last_delivery_makes_a_message_dead_and_it_stays(api: Served) -> None:
    api.queue("q", max_deliveries=2)
    api.send("x")
    for _ in range(2):
        assert api.receive(lease=1)
        api.advance(1)
    assert api.receive() is None
    assert api("GET", "/queues/q").json()["dead"] == 1
    peeked = api("GET", "/queues/q/peek?state=dead").json()["messages"]
    assert [(message["content"], message["deliveries"]) for message in peeked] == [("x", 2)]


def test_a_dead_letter_moves_with_its_id_and_says_why(api: Served) -> None:
    api.queue("dead")
    api.queue("q", max_deliveries=1, dead_letter="dead")
    one = api.send("x")
    receipt = api.receive(lease=60)["receipt"]
    assert api("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 0}).status_code == 204
    life = api("GET", f"/queues/q/messages/{one}").json()
    assert (life["queue"], life["state"]) == ("dead", "ready")
    assert life["life"][-1]["event"] == "dead"
    assert life["life"][-1]["reason"] == "max_deliveries"
    letter = api.receive("dead", lease=60)
    assert letter["id"] == one
    refused(api.acknowledge(letter["receipt"], "q"), 404, "receipt_unknown")
    assert api.acknowledge(letter["receipt"], "dead").status_code == 204


def test_redrive_gives_the_dead_a_new_start_at_the_end(api: Served) -> None:
    api.queue("q", max_deliveries=1)
    one = api.send("dead")
    api.receive(lease=1)
    api.advance(1)
    api.send("younger")
    assert api("POST", "/queues/q/redrive").json() == {"redriven": 1, "done": True}
    taken = api.receive(max=10)["messages"]
    assert [message["content"] for message in taken] == ["younger", "dead"]
    assert (taken[1]["id"], taken[1]["deliveries"]) == (one, 1)


@pytest.mark.parametrize("where", ["q", "dead"])
def test_redrive_brings_letters_back_from_either_end(api: Served, where: str) -> None:
    api.queue("dead")
    api.queue("q", max_deliveries=1, dead_letter="dead")
    for n in range(3):
        api.send(n)
    api.send("its own", "dead")
    api.receive(lease=1, max=3)
    api.advance(1)
    first = api("POST", f"/queues/{where}/redrive", {"max": 2}).json()
    assert first == {"redriven": 2, "done": False}
    assert api("POST", f"/queues/{where}/redrive", {"max": 2}).json()["redriven"] == 1
    assert api.contents() == [0, 1, 2]
    assert api.contents("dead") == ["its own"]


def test_a_purge_ends_everything_leased_ones_too(q: Served) -> None:
    q.send(1)
    q.send(2, delay=5)
    q.send(3, group="g")
    q.send(4, group="g")
    receipt = q.receive(lease=60)["receipt"]
    assert q("POST", "/queues/q/purge").json() == {"purged": 4}
    refused(q.acknowledge(receipt), 410, "receipt_gone")
    refused(q("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 5}), 410, "receipt_gone")
    q.send(5, group="g")
    q.advance(100)
    assert q.contents() == [5]
    assert q("GET", "/status").json()["messages"] == 0


def test_a_paused_queue_answers_as_if_empty_and_takes_sends(q: Served) -> None:
    q.send(1)
    assert q("POST", "/queues/q/pause").json()["paused"] is True
    assert q.receive() is None
    assert q.receive(lease=5, max=10) is None
    q.send(2)
    q.run(q.app.close())
    assert q.receive() is None
    assert q("POST", "/queues/q/resume").json()["paused"] is False
    assert q.contents() == [1, 2]


def test_what_is_leased_can_be_settled_while_paused(q: Served) -> None:
    q.send(1)
    receipt = q.receive(lease=60)["receipt"]
    q("POST", "/queues/q/pause")
    assert q.acknowledge(receipt).status_code == 204


def test_retention_ends_what_nobody_took(api: Served) -> None:
    api.queue("q", retention_seconds=60)
    api.send("old")
    api.advance(30)
    api.send("young")
    api.clock.advance(30)
    assert api.contents() == ["young"]


def test_a_deleted_queue_takes_all_with_it(q: Served) -> None:
    one = q.send(1)
    assert q("DELETE", "/queues/q").status_code == 204
    refused(q("DELETE", "/queues/q"), 404, "queue_not_found")
    refused(q("POST", "/queues/q/messages", {"content": 1}), 404, "queue_not_found")
    q.queue("q")
    assert q.contents() == []
    refused(q("GET", f"/queues/q/messages/{one}"), 410, "message_gone")


def test_a_dead_letter_queue_in_use_cannot_be_deleted(api: Served) -> None:
    api.queue("dead")
    api.queue("q", max_deliveries=1, dead_letter="dead")
    refused(api("DELETE", "/queues/dead"), 409, "queue_in_use")
    assert api("PATCH", "/queues/q", {"dead_letter": None}).status_code == 200
    assert api("DELETE", "/queues/dead").status_code == 204


def test_queues_are_listed_by_name_a_page_at_a_time(api: Served) -> None:
    for name in ("b", "a.2", "a.10", "c", "a.1", "A"):
        api.queue(name)

    def page(query: str) -> tuple[list[str], Any]:
        answer = api("GET", f"/queues?{query}").json()
        return [queue["name"] for queue in answer["queues"]], answer["next"]

    assert page("") == (["A", "a.1", "a.10", "a.2", "b", "c"], None)
    assert page("prefix=a.") == (["a.1", "a.10", "a.2"], None)
    assert page("prefix=a.&limit=2") == (["a.1", "a.10"], "a.10")
    assert page("prefix=a.&limit=2&after=a.10") == (["a.2"], None)
    assert page("prefix=a.1&limit=2") == (["a.1", "a.10"], None)  # a full page, and nothing behind it
    assert page("prefix=a.1") == (["a.1", "a.10"], None)
    assert page("prefix=nothing") == ([], None)
    assert page("after=zzz") == ([], None)
    for bad in (
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=-1",
        "after=" + "x" * 10_240,
        "prefix=" + "x" * 129,
    ):
        refused(api("GET", f"/queues?{bad}"), 422, "invalid", bad.partition("=")[0])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/queues", {"name": "windlass.jobs"}),
        ("PATCH", "/queues/windlass.jobs", {"lease_seconds": 5}),
        ("DELETE", "/queues/windlass.jobs", None),
        ("POST", "/queues/windlass.jobs/messages", {"content": 1}),
        ("GET", "/queues/windlass.jobs/messages", None),
        ("GET", "/queues/windlass.jobs/messages?wait=1", None),
        ("POST", "/queues/windlass.jobs/receive", {}),
        ("POST", "/queues/windlass.jobs/acks", {"acks": []}),
        ("DELETE", "/queues/windlass.jobs/receipts/r", None),
        ("PATCH", "/queues/windlass.jobs/receipts/r", {"lease": 1}),
        ("DELETE", "/queues/windlass.jobs/messages/m", None),
        *(
            ("POST", f"/queues/windlass.jobs/{verb}", None)
            for verb in ("purge", "pause", "resume", "redrive")
        ),
    ],
)
def test_the_products_own_queues_may_only_be_looked_at(
    api: Served, method: str, path: str, body: Any
) -> None:
    """Planted defect: one verb that forgets the rule."""
    api.run(api.app.store.create_queue("windlass.jobs", {})) if api("GET", "/status") else None
    refused(api(method, path, body), 403, "forbidden")
    assert api("GET", "/queues/windlass.jobs").status_code == 200
    assert api("GET", "/queues/windlass.jobs/peek").json() == {"messages": []}
