"""Leases, receipts and fencing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.contract.http.served import Served, refused


def lease(q: Served, seconds: Any = 30, queue: str = "q") -> Any:
    message = q.receive(queue, lease=seconds)
    assert message is not None
    return message


def test_a_lease_hands_out_with_a_receipt_until_a_moment(q: Served) -> None:
    q.send("x")
    message = q("GET", "/queues/q/messages?lease=30").json()
    assert message["deliveries"] == 1
    until = datetime.fromisoformat(message["lease_until"])
    assert until - datetime.fromisoformat(message["enqueued_at"]) == timedelta(seconds=30)
    assert message["lease_until"].endswith("Z")
    for text in (message["id"], message["receipt"]):
        assert len(text) <= 64
        assert text.replace("-", "").replace("_", "").isalnum()
    assert q("GET", "/queues/q/messages").status_code == 204
    assert q("GET", "/queues/q").json()["leased"] == 1


@pytest.mark.parametrize("bare", ["?lease", "?lease=", "?max=1&lease", "?lease&max=1"])
def test_a_bare_lease_takes_the_queues(api: Served, bare: str) -> None:
    """Planted defect: parsing the query strictly, so that a name without `=` is an error."""
    api.queue("q", lease_seconds=7)
    api.send("x")
    answer = api("GET", "/queues/q/messages" + bare).json()
    message = answer["messages"][0] if "max" in bare else answer
    assert message["receipt"]
    api.advance(6.999)
    assert api("GET", "/queues/q").json()["leased"] == 1
    api.advance(0.001)
    assert api("GET", "/queues/q").json()["ready"] == 1


def test_a_body_says_true_for_the_queues_lease(api: Served) -> None:
    api.queue("q", lease_seconds=7)
    api.send("x")
    assert api.receive(lease=True)["receipt"]
    api.advance(7)
    assert "receipt" not in api.receive(lease=False)


def test_without_lease_a_get_always_removes(q: Served) -> None:
    q.send("x")
    assert "receipt" not in q("GET", "/queues/q/messages").json()
    assert q("GET", "/status").json()["messages"] == 0


def test_post_receive_takes_the_same_parameters_as_a_get(q: Served) -> None:
    for n in range(4):
        q.send(n)
    by_get = q("GET", "/queues/q/messages?lease=5.5&max=2&wait=0").json()["messages"]
    by_post = q("POST", "/queues/q/receive", {"lease": 5.5, "max": 2, "wait": 0}).json()["messages"]
    assert [message["content"] for message in by_get + by_post] == [0, 1, 2, 3]
    assert {message["lease_until"] for message in by_get + by_post} == {by_get[0]["lease_until"]}


def test_a_lease_that_runs_out_makes_it_ready_again_at_its_old_number(q: Served) -> None:
    q.send("a")
    q.send("b")
    old = lease(q, 10)
    q.advance(10)
    new = lease(q, 10)
    assert (new["id"], new["deliveries"]) == (old["id"], 2)
    assert new["receipt"] != old["receipt"]


def test_acknowledging_is_204_and_the_message_never_comes_back(q: Served) -> None:
    q.send("x")
    message = lease(q, 10)
    assert q.acknowledge(message["receipt"]).status_code == 204
    q.advance(60)
    assert q.contents() == []
    assert q("GET", "/status").json()["messages"] == 0


def test_the_same_acknowledgement_again_is_204_while_the_record_is_kept_then_410(api: Served) -> None:
    api.queue("q", history_seconds=60)
    api.send("x")
    receipt = lease(api)["receipt"]
    assert [api.acknowledge(receipt).status_code for _ in range(3)] == [204, 204, 204]
    api.advance(60)
    refused(api.acknowledge(receipt), 410, "receipt_gone")


def test_without_a_record_the_second_acknowledgement_is_410(q: Served) -> None:
    q.send("x")
    receipt = lease(q)["receipt"]
    assert q.acknowledge(receipt).status_code == 204
    refused(q.acknowledge(receipt), 410, "receipt_gone")


def test_a_receipt_is_a_fencing_token_good_for_one_delivery(q: Served) -> None:
    """Planted defect: comparing the message alone, not the delivery."""
    q.send("x")
    old = lease(q, 10)
    q.advance(10)
    refused(q.acknowledge(old["receipt"]), 409, "receipt_stale")
    new = lease(q, 10)
    refused(q.acknowledge(old["receipt"]), 409, "receipt_stale")
    refused(q("PATCH", f"/queues/q/receipts/{old['receipt']}", {"lease": 60}), 409, "receipt_stale")
    refused(q("PATCH", f"/queues/q/receipts/{old['receipt']}", {"lease": 0}), 409, "receipt_stale")
    assert q.acknowledge(new["receipt"]).status_code == 204
    refused(q.acknowledge(old["receipt"]), 410, "receipt_gone")


def test_acknowledging_after_somebody_elses_acknowledgement_is_410_not_409(q: Served) -> None:
    q.send("x")
    old = lease(q, 10)
    q.advance(10)
    assert q("GET", "/queues/q/messages").status_code == 200
    refused(q.acknowledge(old["receipt"]), 410, "receipt_gone")


def test_a_lease_is_over_at_its_moment_even_before_anybody_noticed(q: Served) -> None:
    """Planted defect: trusting the state in the store instead of the deadline."""
    q.send("x")
    message = lease(q, 10)
    q.clock.advance(10)
    refused(q.acknowledge(message["receipt"]), 409, "receipt_stale")


def test_extending_counts_from_now(q: Served) -> None:
    q.send("x")
    message = lease(q, 10)
    q.advance(9)
    answer = q("PATCH", f"/queues/q/receipts/{message['receipt']}", {"lease": 60})
    assert answer.status_code == 200
    assert answer.json() == {"lease_until": "2023-11-14T22:14:29.000Z"}
    q.advance(59.9)
    assert q.contents() == []
    q.advance(0.1)
    assert q.contents() == ["x"]


def test_giving_back_makes_it_ready_at_once_or_after_a_delay(q: Served) -> None:
    q.send("x")
    receipt = lease(q)["receipt"]
    assert q("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 0}).status_code == 204
    receipt = lease(q)["receipt"]
    answer = q("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 0, "delay": 5})
    assert (answer.status_code, answer.content) == (204, b"")
    assert q("GET", "/queues/q").json()["delayed"] == 1
    q.advance(4.999)
    assert q.receive() is None
    q.advance(0.001)
    assert q.receive()["deliveries"] == 3


def test_acknowledging_many_tells_of_each_in_order(q: Served) -> None:
    q.send("a")
    q.send("b")
    q.send("c")
    stale = lease(q, 1)["receipt"]
    q.advance(1)
    first, second = (message["receipt"] for message in q.receive(lease=30, max=2)["messages"])
    third = lease(q)["receipt"]
    assert q.acknowledge(third).status_code == 204
    forged = first[:-1] + ("A" if first[-1] != "A" else "B")
    wanted = [stale, forged, first, "", second, third, first]
    answer = q("POST", "/queues/q/acks", {"acks": [{"receipt": receipt} for receipt in wanted]})
    assert answer.status_code == 200
    assert answer.json() == {
        "results": [
            {"receipt": receipt, "status": status}
            for receipt, status in zip(
                wanted,
                ["stale", "unknown", "acknowledged", "unknown", "acknowledged", "gone", "gone"],
                strict=True,
            )
        ]
    }


def test_what_is_no_receipt_is_404_without_the_store(q: Served) -> None:
    q.send("x")
    receipt = lease(q)["receipt"]
    message_id = q.send("y")
    before = q.calls()
    for forged in (
        "nonsense", "x" * 10_000, receipt[:-1], receipt + "A", message_id, receipt[:20] + "A" * 16, "%00",
        "é", receipt.swapcase(),
    ):  # fmt: skip
        refused(q.acknowledge(forged), 404, "receipt_unknown")
        refused(q("PATCH", f"/queues/q/receipts/{forged}", {"lease": 5}), 404, "receipt_unknown")
    assert q.calls() == before
    assert q.acknowledge(receipt).status_code == 204


def test_a_receipt_of_another_queue_is_404(q: Served) -> None:
    q.queue("other")
    q.send("x")
    receipt = lease(q)["receipt"]
    refused(q.acknowledge(receipt, "other"), 404, "receipt_unknown")
    refused(q.acknowledge(receipt, "nothing"), 404, "queue_not_found")
    answer = q("POST", "/queues/other/acks", {"acks": [{"receipt": receipt}]}).json()
    assert answer["results"][0]["status"] == "unknown"
    assert q.acknowledge(receipt).status_code == 204


def test_receipts_of_a_deleted_queue_are_gone(q: Served) -> None:
    q.send("x")
    receipt = lease(q)["receipt"]
    q("DELETE", "/queues/q")
    refused(q.acknowledge(receipt), 404, "queue_not_found")
    q.queue("q")
    refused(q.acknowledge(receipt), 410, "receipt_gone")


def test_receipts_survive_a_restart(q: Served) -> None:
    q.send("x")
    receipt = lease(q)["receipt"]
    q.run(q.app.close())
    assert q.acknowledge(receipt).status_code == 204


@pytest.mark.parametrize("seconds", [-1, 43_200.1, "x", "nan", "inf", "1e9", "1_0", "", "0x1"])
def test_lease_is_a_number_of_seconds_from_0_to_43200(q: Served, seconds: Any) -> None:
    q.send("x")
    if seconds != "":  # bare: the queue's own
        refused(q("GET", f"/queues/q/messages?lease={seconds}"), 422, "invalid", "lease")
    refused(q("POST", "/queues/q/receive", {"lease": seconds}), 422, "invalid", "lease")
    receipt = lease(q, 43_200)["receipt"]
    refused(q("PATCH", f"/queues/q/receipts/{receipt}", {"lease": seconds}), 422, "invalid", "lease")


def test_a_delay_goes_with_giving_back_only(q: Served) -> None:
    q.send("x")
    receipt = lease(q)["receipt"]
    path = f"/queues/q/receipts/{receipt}"
    refused(q("PATCH", path, {"lease": 5, "delay": 1}), 422, "invalid", "delay")
    refused(q("PATCH", path, {"delay": 1}), 422, "invalid", "lease")
    refused(q("PATCH", path, {"lease": 0, "delay": 30 * 24 * 3600 + 1}), 422, "invalid", "delay")
    refused(q("PATCH", path, {"lease": 0, "dlay": 1}), 422, "invalid", "dlay")
    assert q.acknowledge(receipt).status_code == 204
