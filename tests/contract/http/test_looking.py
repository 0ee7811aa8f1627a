"""Looking without taking: peek, a message's life, cancel, outcomes and waiting for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.http.served import Caller, Served, refused, settled, together


def test_a_peek_shows_in_order_and_takes_nothing(q: Served) -> None:
    for n in range(12):
        q.send(n)
    q.send("urgent", priority=9)
    for _ in range(2):
        peeked = q("GET", "/queues/q/peek").json()["messages"]
        assert [message["content"] for message in peeked] == ["urgent", *range(9)]
        assert peeked[0]["deliveries"] == 0
        assert "receipt" not in peeked[0]
    assert len(q("GET", "/queues/q/peek?max=1000").json()["messages"]) == 13
    assert q("GET", "/queues/q").json()["ready"] == 13


def test_a_peek_into_other_states(api: Served) -> None:
    api.queue("q", max_deliveries=1)
    api.send("dead")
    api.receive(lease=1)
    api.advance(1)
    api.send("first", group="g")
    api.send("blocked", group="g")

    def peek(state: str) -> list[Any]:
        answer = api("GET", f"/queues/q/peek?state={state}")
        return [message["content"] for message in answer.json()["messages"]]

    assert (peek("ready"), peek("blocked"), peek("dead")) == (["first"], ["blocked"], ["dead"])
    refused(api("GET", "/queues/q/peek?state=gone"), 422, "invalid", "state")
    refused(api("GET", "/queues/nothing/peek"), 404, "queue_not_found")


def test_a_living_message_tells_its_life(api: Served) -> None:
    api.queue("q", max_deliveries=3)
    one = api.send({"a": 1}, group="g", headers={"h": "1"})
    receipt = api.receive(lease=10)["receipt"]
    api("PATCH", f"/queues/q/receipts/{receipt}", {"lease": 0})
    api.receive(lease=10)
    api.advance(10)
    life = api("GET", f"/queues/q/messages/{one}").json()
    assert life["content"] == {"a": 1}
    assert (life["queue"], life["state"], life["deliveries"]) == ("q", "ready", 2)
    assert (life["group"], life["headers"]) == ("g", {"h": "1"})
    assert [event["event"] for event in life["life"]] == [
        "sent", "leased", "given_back", "leased", "lease_expired",
    ]  # fmt: skip
    assert life["life"][1]["by"] == "127.0.0.1"
    api.receive(lease=10)
    api.advance(10)
    life = api("GET", f"/queues/q/messages/{one}").json()
    assert life["state"] == "dead"
    assert life["life"][-1] == {
        "event": "dead", "at": "2023-11-14T22:13:40.000Z", "reason": "max_deliveries", "deliveries": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda q, _: q.acknowledge(q.receive(lease=5)["receipt"]), "acknowledged"),
        (lambda q, _: q("GET", "/queues/q/messages"), "received"),
        (lambda q, one: q("DELETE", f"/queues/q/messages/{one}"), "cancelled"),
        (lambda q, _: q.advance(50), "expired"),
    ],
    ids=["acknowledged", "received", "cancelled", "expired"],
)
def test_an_ended_message_is_kept_for_the_queues_history_then_410(api: Served, end: Any, state: str) -> None:
    api.queue("q", history_seconds=100)
    one = api.send("x", ttl=50)
    end(api, one)
    life = api("GET", f"/queues/q/messages/{one}").json()
    assert life["state"] == state
    assert life["life"][-1]["event"] == state
    assert life["ended_at"]
    api.advance(99.9)
    assert api("GET", f"/queues/q/messages/{one}").status_code == 200
    api.advance(0.2)
    refused(api("GET", f"/queues/q/messages/{one}"), 410, "message_gone")
    refused(api("DELETE", f"/queues/q/messages/{one}"), 410, "message_gone")


def test_without_a_history_an_ended_message_is_410_at_once(q: Served) -> None:
    one = q.send("x")
    q.receive()
    refused(q("GET", f"/queues/q/messages/{one}"), 410, "message_gone")


def test_an_id_never_issued_is_404_and_does_not_reach_the_store(q: Served) -> None:
    """Planted defect: looking the number up before the MAC is checked."""
    one = q.send("x")
    before = q.calls()
    for forged in (
        "nonsense",
        one[:-1] + ("A" if one[-1] != "A" else "B"),
        one + "A",
        one[1:],
        "x" * 10_240,
        "%00",
    ):
        for method in ("GET", "DELETE"):
            refused(q(method, f"/queues/q/messages/{forged}"), 404, "message_not_found")
    assert q.calls() == before


def test_a_message_of_another_queue_is_404(q: Served) -> None:
    q.queue("other")
    one = q.send("x")
    refused(q("GET", f"/queues/other/messages/{one}"), 404, "message_not_found")
    refused(q("GET", f"/queues/nothing/messages/{one}"), 404, "queue_not_found")
    assert q("DELETE", f"/queues/other/messages/{one}").status_code in (404, 410)
    assert q.contents() == ["x"]


def test_cancelling_ends_what_is_not_leased(q: Served) -> None:
    ready, delayed, leased = q.send("a"), q.send("b", delay=9), q.send("c", priority=1)
    q.receive(lease=60)
    assert q("DELETE", f"/queues/q/messages/{ready}").status_code == 204
    assert q("DELETE", f"/queues/q/messages/{delayed}").status_code == 204
    refused(q("DELETE", f"/queues/q/messages/{leased}"), 409, "message_leased")
    refused(q("DELETE", f"/queues/q/messages/{ready}"), 410, "message_gone")
    q.advance(60)
    assert q.contents() == ["c"]


def test_cancelling_the_head_of_a_group_lets_the_next_one_go(q: Served) -> None:
    head = q.send("a", group="g", delay=100)
    q.send("b", group="g")
    assert q.receive() is None
    assert q("DELETE", f"/queues/q/messages/{head}").status_code == 204
    assert q.contents() == ["b"]


# --- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [b"1", b"null", b'{"b":1,"a":1e400}', b'"\\u0000"', b"[ ]"])
def test_an_outcome_is_kept_byte_for_byte_for_its_ttl(api: Served, outcome: bytes) -> None:
    api.queue("q", outcome_ttl_seconds=100)
    one = api.send("x")
    receipt = api.receive(lease=5)["receipt"]
    ended = api("DELETE", f"/queues/q/receipts/{receipt}", b'{"outcome":' + outcome + b"}")
    assert ended.status_code == 204
    answer = api("GET", f"/queues/q/messages/{one}")
    assert answer.json()["state"] == "acknowledged"
    assert b'"outcome":' + outcome + b"," in answer.content
    api.advance(100)
    refused(api("GET", f"/queues/q/messages/{one}"), 410, "message_gone")


def test_outcomes_of_many_acknowledgements(q: Served) -> None:
    ids = [q.send(n) for n in range(3)]
    receipts = [message["receipt"] for message in q.receive(lease=5, max=3)["messages"]]
    acks = [{"receipt": receipts[0], "outcome": {"n": 0}}, {"receipt": receipts[1]}]
    acks.append({"receipt": receipts[2], "outcome": None})
    assert q("POST", "/queues/q/acks", {"acks": acks}).status_code == 200
    assert q("GET", f"/queues/q/messages/{ids[0]}").json()["outcome"] == {"n": 0}
    refused(q("GET", f"/queues/q/messages/{ids[1]}"), 410, "message_gone")
    assert q("GET", f"/queues/q/messages/{ids[2]}").json()["outcome"] is None


@pytest.mark.parametrize(
    "body", [b'{"outcome":"\\ud800"}', b'{"outcome":"\0"}', b'{"outcome":' + b"[" * 101 + b"]" * 101 + b"}"]
)
def test_an_outcome_is_json_like_any_content(q: Served, body: bytes) -> None:
    q.send("x")
    receipt = q.receive(lease=5)["receipt"]
    refused(q("DELETE", f"/queues/q/receipts/{receipt}", body), 422, "invalid")
    assert q.acknowledge(receipt).status_code == 204


def test_waiting_for_an_outcome_ends_with_the_message(q: Served) -> None:
    """Planted defect: telling of the end before the commit, or not at all."""
    one = q.send("x")
    receipt = q.receive(lease=50)["receipt"]

    async def scenario() -> Any:
        with together(q.ask("GET", f"/queues/q/messages/{one}?wait=60")) as (waiting,):
            await settled(lambda: len(q.app.queues.ends))
            await q.ask("DELETE", f"/queues/q/receipts/{receipt}", {"outcome": "done"})
            return await asyncio.wait_for(waiting, 60)

    answer = q.run(scenario())
    assert (answer.json()["state"], answer.json()["outcome"]) == ("acknowledged", "done")
    assert len(q.app.queues.ends) == 0


@pytest.mark.parametrize("how", ["purge", "delete"])
def test_waiting_for_an_outcome_ends_with_a_purge_and_with_the_queue(q: Served, how: str) -> None:
    """Planted defect: a purge is a mark and names no messages, so nobody is told."""
    one = q.send("x")

    async def scenario() -> Any:
        with together(q.ask("GET", f"/queues/q/messages/{one}?wait=60")) as (waiting,):
            await settled(lambda: len(q.app.queues.ends))
            method, path = ("POST", "/queues/q/purge") if how == "purge" else ("DELETE", "/queues/q")
            assert (await q.ask(method, path)).is_success
            return await asyncio.wait_for(waiting, 60)

    assert q.run(scenario()).status_code in (404, 410)


def test_a_wait_for_another_message_goes_on_through_a_purge_elsewhere(q: Served) -> None:
    q.queue("other")
    one = q.send("x", "other")

    async def scenario() -> Any:
        with together(q.ask("GET", f"/queues/other/messages/{one}?wait=60")) as (waiting,):
            await settled(lambda: len(q.app.queues.ends))
            await q.ask("POST", "/queues/q/purge")
            await q.ask("GET", "/queues/q")
            assert not waiting.done()
            await q.ask("GET", "/queues/other/messages")
            return await asyncio.wait_for(waiting, 60)

    refused(q.run(scenario()), 410, "message_gone")


def test_a_wait_for_an_outcome_is_over_after_its_time(q: Served) -> None:
    one = q.send("x")
    answer = q("GET", f"/queues/q/messages/{one}?wait=0.02")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")


def test_who_waits_for_an_outcome_and_hangs_up_leaves_nothing_behind(q: Served) -> None:
    one = q.send("x")

    async def scenario() -> None:
        caller = Caller(q, "GET", f"/queues/q/messages/{one}", query=b"wait=60")
        await settled(lambda: len(q.app.queues.ends))
        caller.hang_up()
        await asyncio.wait_for(caller.task, 60)

    q.run(scenario())
    assert len(q.app.queues.ends) == 0


@pytest.mark.parametrize("wait", ["-1", "60.1", "nan", "inf", "x", ""])
def test_wait_is_a_number_of_seconds_from_0_to_60(q: Served, wait: str) -> None:
    one = q.send("x")
    refused(q("GET", f"/queues/q/messages/{one}?wait={wait}"), 422, "invalid", "wait")
    refused(q("GET", f"/queues/q/messages?wait={wait}"), 422, "invalid", "wait")
    refused(q("POST", "/queues/q/receive", {"wait": wait}), 422, "invalid", "wait")
    assert q.contents() == ["x"]
