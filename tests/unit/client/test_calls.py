"""What the client says to the server, and how it reads the answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.unit.client.script import LEASED_TO, QUEUE, SENT_AT, STATS, Script, message, messages, ok
from windlass.client import NewMessage, RawJson, Retry, calls, errors

MEBIBYTE = 1024 * 1024


def test_create_sends_the_settings_flat() -> None:
    script = Script(ok(QUEUE, 201))
    with script.client() as client:
        info = client.create_queue("orders", lease_seconds=2.5, dead_letter=None)
    assert script.asked == ["POST /queues"]
    assert script.bodies == [{"name": "orders", "lease_seconds": 2.5, "dead_letter": None}]
    assert (info.name, info.lease_seconds, info.max_length) == ("orders", 30, None)
    assert info.created_at.isoformat() == "2026-11-21T12:00:00+00:00"


def test_queues_follows_the_pages() -> None:
    pages = [{"queues": [QUEUE | {"name": name}], "next": after} for name, after in (("a", "a"), ("b", None))]
    script = Script(*map(ok, pages))
    with script.client() as client:
        assert [queue.name for queue in client.queues("x&y")] == ["a", "b"]
    assert script.asked == [
        "GET /queues?limit=1000&prefix=x%26y",
        "GET /queues?limit=1000&prefix=x%26y&after=a",
    ]


def test_show_reads_counts() -> None:
    script = Script(ok(STATS))
    with script.client() as client:
        stats = client.queue("orders").show()
    assert (stats.ready, stats.leased, stats.dead, stats.oldest_age_seconds) == (3, 1, 2, 1.5)


def test_fields_of_a_newer_server_are_no_trouble() -> None:
    script = Script(ok(STATS | {"colour": "red"}))
    with script.client() as client:
        assert client.queue("orders").show().ready == 3


@pytest.mark.parametrize("name", ["", ".", "..", 7])
def test_a_name_that_would_change_the_path_is_not_sent(name: Any) -> None:
    """Planted defect: an empty name turns `delete` of a queue into a request to /queues/ itself."""
    script = Script()
    with script.client() as client, pytest.raises(errors.NotSent):
        client.queue(name).show()


def test_names_are_quoted() -> None:
    script = Script(ok(STATS))
    with script.client() as client:
        client.queue("a/b c?d").show()
    assert script.asked == ["GET /queues/a%2Fb%20c%3Fd"]


def test_redrive_goes_on_until_done() -> None:
    steps = [{"redriven": 100, "done": False}, {"redriven": 0, "done": False}, {"redriven": 7, "done": True}]
    script = Script(*map(ok, steps))
    with script.client() as client:
        assert client.queue("orders").redrive() == 107
    assert script.bodies == [{}, {}, {}]


def test_redrive_stops_at_its_limit() -> None:
    script = Script(ok({"redriven": 6, "done": False}), ok({"redriven": 4, "done": False}))
    with script.client() as client:
        assert client.queue("orders").redrive(max=10) == 10
    assert script.bodies == [{"max": 10}, {"max": 4}]


def test_a_new_message_carries_what_it_was_given_and_no_more() -> None:
    full = NewMessage(
        {"a": [1, None]}, delay=1.5, ttl=60, priority=0, group="g", dedup_id="d", headers={"trace": "t"}
    )
    assert full.to_json() == (
        '{"content":{"a":[1,null]},"delay":1.5,"ttl":60,"priority":0,"group":"g","dedup_id":"d",'
        '"headers":{"trace":"t"}}'
    )
    assert NewMessage("ä\u0000").to_json() == '{"content":"ä\\u0000"}'


@pytest.mark.parametrize("text", ['{"n": 1e400}', "1180591620717411303424", '  {"b":1, "a":2}', '"\\u0000"'])
def test_raw_json_travels_byte_for_byte(text: str) -> None:
    assert NewMessage(RawJson(text)).to_json() == f'{{"content":{text}}}'


@pytest.mark.parametrize(
    "content",
    [float("nan"), float("inf"), "\ud800", {1, 2}, RawJson("1,2"), RawJson("{"), RawJson('1},{"content":2')],
)
def test_what_is_not_json_is_not_sent(content: Any) -> None:
    """Planted defect: raw text spliced in unchecked makes two messages of one, or breaks its neighbours."""
    script = Script()
    with script.client() as client, pytest.raises(errors.NotSent):
        client.queue("orders").send_many([1, content])
    assert script.requests == []


def test_chunks_hold_at_most_a_thousand() -> None:
    assert [len(chunk) for chunk in calls.chunks("1" for _ in range(2001))] == [1000, 1000, 1]


def test_chunks_stay_within_16_mib_of_body_counted_in_bytes() -> None:
    """Planted defect: counting characters makes a batch of umlauts twice as large as the server takes."""
    body = '"' + "ä" * (MEBIBYTE // 2 - 1) + '"'
    assert len(body.encode()) == MEBIBYTE
    chunks = list(calls.chunks([body] * 40))
    assert [len(chunk) for chunk in chunks] == [15, 15, 10]
    sizes = [calls.send_batch("q", chunk, make_key=False).body for chunk in chunks]
    assert all(isinstance(size, str) and len(size.encode()) <= 16 * MEBIBYTE for size in sizes)


def test_a_message_beyond_every_limit_travels_alone() -> None:
    assert [len(chunk) for chunk in calls.chunks(["1", "x" * (17 * MEBIBYTE), "2"])] == [1, 1, 1]


def test_an_answer_for_fewer_messages_than_were_sent_is_not_taken_for_success() -> None:
    script = Script(ok({"messages": [{"id": "m1", "duplicate": False}]}, 201))
    with script.client() as client, pytest.raises(errors.BadAnswer):
        client.queue("orders").send_many([1, 2])


def test_content_keeps_its_text_and_is_decoded_at_the_first_look() -> None:
    texts = ["1180591620717411303424", "1e400", '{"b":1,"a":[2]}', '"\\u0000"']
    body = ",".join(message(number, text) for number, text in enumerate(texts))
    script = Script(httpx.Response(200, content=f'{{"messages":[{body}]}}'))
    with script.client() as client:
        peeked = client.queue("orders").peek(max=4, state="delayed")
    assert script.asked == ["GET /queues/orders/peek?max=4&state=delayed"]
    assert [message.raw for message in peeked] == texts
    assert [message.content for message in peeked] == [2**70, float("inf"), {"b": 1, "a": [2]}, "\0"]


def test_the_length_of_a_queues_own_lease_is_told_by_the_servers_clock() -> None:
    """Planted defect: by the client's clock, a skew of a minute would extend never, or all the time."""
    answer = messages()
    answer.headers["date"] = "Sat, 21 Nov 2026 11:59:45 GMT"
    script = Script(answer)
    with script.client() as client:
        received = client.queue("orders").receive_one()
    assert received is not None
    assert received.lease_seconds == 45
    assert received.lease_until.isoformat() == LEASED_TO.replace(".000Z", "+00:00")


def test_a_message_without_a_lease_is_never_worked_on() -> None:
    script = Script(messages(receipt=None))
    with script.client() as client, pytest.raises(errors.BadAnswer):
        client.queue("orders").receive_one(lease=30)


def record(state: str, **more: Any) -> httpx.Response:
    life = [{"event": "sent", "at": SENT_AT}]
    fields = {"id": "m1", "queue": "orders", "state": state, "enqueued_at": SENT_AT, "life": life}
    return ok(fields | more)


def test_message_tells_the_life_of_one() -> None:
    script = Script(record("leased", content={"a": 1}, deliveries=2), record("cancelled", ended_at=SENT_AT))
    with script.client() as client:
        living, ended = (client.queue("orders").message("m1") for _ in range(2))
    assert (living.state, living.content, living.deliveries, living.ended) == ("leased", {"a": 1}, 2, False)
    assert living.life == [{"event": "sent", "at": SENT_AT}]
    assert (ended.raw, ended.content, ended.has_outcome, ended.ended) == (None, None, False, True)


def test_outcome_waits_in_as_many_requests_as_it_takes() -> None:
    script = Script()

    def after(seconds: float, answer: httpx.Response) -> None:
        def step(_request: httpx.Request) -> httpx.Response:
            script.clock.advance(seconds)
            return answer

        script.steps.append(step)

    after(60, record("ready"))
    after(5, record("acknowledged", outcome={"verdict": "ok"}))
    with script.client() as client:
        assert client.queue("orders").outcome("m1", wait=100) == {"verdict": "ok"}
    assert script.asked == [
        "GET /queues/orders/messages/m1?wait=60",
        "GET /queues/orders/messages/m1?wait=40",
    ]


def test_outcome_of_null_and_of_none_given_are_both_none() -> None:
    script = Script(record("acknowledged", outcome=None), record("acknowledged"))
    with script.client() as client:
        assert client.queue("orders").outcome("m1") is None
        assert client.queue("orders").outcome("m1") is None


def test_an_outcome_that_has_not_come_is_pending() -> None:
    script = Script(record("leased"))
    with script.client() as client, pytest.raises(errors.OutcomePending):
        client.queue("orders").outcome("m1")
    assert script.asked == ["GET /queues/orders/messages/m1"]


@pytest.mark.parametrize("state", ["dead", "cancelled", "expired", "received"])
def test_a_message_that_ended_otherwise_has_no_outcome(state: str) -> None:
    script = Script(record(state))
    with script.client() as client, pytest.raises(errors.NoOutcome) as caught:
        client.queue("orders").outcome("m1", wait=60)
    assert caught.value.state == state


def test_status_reads_the_totals() -> None:
    answer = {"status": "ok", "version": "0.1.0", "uptime_seconds": 5, "queues": 2, "messages": 9}
    script = Script(ok(answer | {"states": {"ready": 9}}))
    with script.client(Retry(limit=0)) as client:
        status = client.status()
    assert (status.status, status.messages, status.states) == ("ok", 9, {"ready": 9})


def test_reading_timeouts_leave_room_for_a_long_poll() -> None:
    script = Script(messages(), ok(STATS))
    with script.client(timeout=3.0) as client:
        client.queue("orders").receive_one(wait=20)
        client.queue("orders").show()
    assert [request.extensions["timeout"]["read"] for request in script.requests] == [23.0, 3.0]
