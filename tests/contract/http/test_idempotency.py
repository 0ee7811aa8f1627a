"""Idempotency-Key: the same answer again, for a day, across restarts."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.contract.http.served import Served, refused

DAY = 24 * 3600


def send(
    q: Served, key: str | bytes, body: Any = None, path: str = "/queues/q/messages", **headers: str
) -> Any:
    raw = [("idempotency-key", key), *headers.items()]
    return q("POST", path, body or {"content": 1}, headers=raw)


def test_the_first_answer_is_given_again_and_nothing_is_sent_twice(q: Served) -> None:
    first = send(q, "k")
    again = send(q, "k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert q.contents() == [1]
    assert send(q, "k").content == first.content
    assert q.contents() == []


def test_a_batch_too(q: Served) -> None:
    body = {"messages": [{"content": n, "dedup_id": "d"} for n in range(3)]}
    assert send(q, "k", body).content == send(q, "k", body).content
    assert q.contents() == [0]


def test_it_survives_a_restart_and_lasts_a_day(q: Served) -> None:
    first = send(q, "k")
    q.run(q.app.close())
    q.clock.advance(DAY - 1)
    assert send(q, "k").content == first.content
    q.advance(1)
    assert send(q, "k").content != first.content
    assert q.contents() == [1, 1]


def test_the_same_key_with_another_body_is_422(q: Served) -> None:
    send(q, "k")
    refused(send(q, "k", {"content": 2}), 422, "idempotency_key_reused", "Idempotency-Key")
    assert q.contents() == [1]


def test_keys_are_scoped_to_the_path(q: Served) -> None:
    q.queue("other")
    send(q, "k")
    assert send(q, "k", path="/queues/other/messages").status_code == 201
    assert (q.contents(), q.contents("other")) == ([1], [1])


def test_a_repeat_while_the_first_is_under_way_waits_for_it(q: Served) -> None:
    """Planted defect: remembering the key after the send instead of in the same commit."""

    async def scenario() -> list[httpx.Response]:
        headers = {"idempotency-key": "k"}
        asks = (q.ask("POST", "/queues/q/messages", {"content": 1}, headers=headers) for _ in range(20))
        return await asyncio.gather(*asks)

    answers = q.run(scenario())
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert q.contents() == [1]


def test_a_refused_send_is_not_remembered(api: Served) -> None:
    api.queue("q", max_length=1)
    api.send("full")
    refused(send(api, "k"), 429, "queue_full")
    api.receive()
    assert send(api, "k").status_code == 201


def test_a_repeat_is_answered_though_the_queue_is_full_by_now(api: Served) -> None:
    """Planted defect: looking at max_length before the key."""
    api.queue("q", max_length=1)
    first = send(api, "k")
    assert first.status_code == 201
    assert send(api, "k").content == first.content


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\u00e9".encode()])
def test_a_key_has_1_to_255_printable_ascii_characters(same: Served, key: str | bytes) -> None:
    refused(send(same, key), 422, "invalid", "Idempotency-Key")
    assert same.contents() == []


@pytest.mark.parametrize("key", ["x", "x" * 255, "a b", "~!\"#$%&'()"])
def test_all_else_is_a_key(q: Served, key: str) -> None:
    assert send(q, key).content == send(q, key).content
    assert q.contents() == [1]


def test_when_no_more_can_be_remembered_new_keys_are_429_and_old_ones_are_known(
    q: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: forgetting the oldest to make room."""
    monkeypatch.setattr("windlass.store.sqlite.sending.MAX_ANSWERS", 2)
    monkeypatch.setattr("windlass.store.redis.library.MAX_ANSWERS", 2)
    first = send(q, "a")
    send(q, "b")
    refused(send(q, "c"), 429, "idempotency_full")
    assert send(q, "a").content == first.content
    assert q("POST", "/queues/q/messages", {"content": 1}).status_code == 201
    q.advance(DAY)
    assert send(q, "c").status_code == 201
