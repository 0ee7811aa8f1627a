"""When the client asks again, and above all when it must not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.unit.client.script import QUEUE, Script, extended, messages, ok, problem
from windlass.client import NewMessage, Queue, Retry, calls, errors
from windlass.client.retry import Attempts

CUT = httpx.ReadError("connection reset")
REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
BUSY = (503, "store_unavailable")
MANY = (429, "queue_full")

Verb = Callable[[Queue], Any]

NEVER: dict[str, Verb] = {
    "take": lambda queue: queue.take(),
    "purge": lambda queue: queue.purge(),
    "redrive": lambda queue: queue.redrive(),
}

ALWAYS: dict[str, tuple[Verb, httpx.Response]] = {
    "show": (lambda queue: queue.show(), ok(QUEUE | {"ready": 0, "delayed": 0, "leased": 0, "dead": 0})),
    "peek": (lambda queue: queue.peek(), ok({"messages": []})),
    "send": (lambda queue: queue.send(1), ok({"id": "m1", "duplicate": False}, 201)),
    "send_many": (
        lambda queue: queue.send_many([1]),
        ok({"messages": [{"id": "m1", "duplicate": False}]}, 201),
    ),
    "receive_one": (lambda queue: queue.receive_one(), messages([1])),
    "acknowledge": (lambda queue: queue.acknowledge("r1"), ok()),
    "acknowledge_many": (
        lambda queue: queue.acknowledge_many(["r1"]),
        ok({"results": [{"receipt": "r1", "status": "acknowledged"}]}),
    ),
    "extend": (lambda queue: queue.extend("r1", 60), ok({"lease_until": "2026-11-21T12:00:30.000Z"})),
    "release": (lambda queue: queue.release("r1"), ok()),
    "update": (lambda queue: queue.update(lease_seconds=5), ok(QUEUE)),
    "pause": (lambda queue: queue.pause(), ok(QUEUE)),
    "resume": (lambda queue: queue.resume(), ok(QUEUE)),
    "delete": (lambda queue: queue.delete(), ok()),
    "cancel": (lambda queue: queue.cancel("m1"), ok()),
}


def failing(kind: str) -> httpx.Response | Exception:
    match kind:
        case "cut":
            return CUT
        case "refused":
            return REFUSED
        case "busy":
            return problem(*BUSY)
        case _:
            return problem(*MANY)


@pytest.mark.parametrize("failure", ["cut", "refused", "busy", "many"])
@pytest.mark.parametrize("verb", NEVER)
def test_what_a_repeat_could_harm_is_never_repeated(verb: str, failure: str) -> None:
    """Planted defect: `repeatable=True` on take loses a second message; on purge it removes later ones."""
    script = Script(failing(failure))
    with script.client() as client, pytest.raises(errors.WindlassError):
        NEVER[verb](client.queue("orders"))
    assert len(script.requests) == 1
    assert script.pauses == []


@pytest.mark.parametrize("failure", ["cut", "refused", "busy", "many"])
@pytest.mark.parametrize("verb", ALWAYS)
def test_what_a_repeat_cannot_harm_is_repeated(verb: str, failure: str) -> None:
    act, answer = ALWAYS[verb]
    script = Script(failing(failure), failing(failure), answer)
    with script.client() as client:
        act(client.queue("orders"))
    first = script.requests[0]
    assert len(script.requests) == 3
    assert [(r.method, r.url, r.content) for r in script.requests] == [
        (first.method, first.url, first.content)
    ] * 3


def test_each_send_has_a_key_of_its_own_and_repeats_carry_the_same() -> None:
    """Planted defect: a key made at each try, or none, stores a message twice when an answer is lost."""
    sent = ok({"id": "m1", "duplicate": False}, 201)
    script = Script(CUT, sent, sent)
    with script.client() as client:
        client.queue("orders").send("a")
        client.queue("orders").send("a")
    first, repeat, other = (request.headers["idempotency-key"] for request in script.requests)
    assert first == repeat != other


def test_a_send_without_a_key_is_never_repeated() -> None:
    script = Script(CUT)
    with script.client(retry_sends=False) as client, pytest.raises(errors.AnswerLost):
        client.queue("orders").send("a")
    assert "idempotency-key" not in script.requests[0].headers
    assert len(script.requests) == 1


def test_the_users_own_key_is_used() -> None:
    script = Script(CUT, ok({"id": "m1", "duplicate": False}, 201))
    with script.client(retry_sends=False) as client:
        client.queue("orders").send("a", idempotency_key="order-7")
    assert [request.headers["idempotency-key"] for request in script.requests] == ["order-7", "order-7"]


def test_when_the_server_keeps_no_more_keys_the_message_goes_bare_and_is_not_repeated() -> None:
    """Planted defect: repeating the bare send after a lost answer stores the message twice."""
    script = Script(problem(429, "idempotency_full", retry_after="3600"), CUT)
    with script.client() as client, pytest.raises(errors.AnswerLost):
        client.queue("orders").send("a")
    assert ["idempotency-key" in request.headers for request in script.requests] == [True, False]


def test_the_users_own_key_is_never_dropped() -> None:
    script = Script(problem(429, "idempotency_full", retry_after="3600"))
    with script.client() as client, pytest.raises(errors.IdempotencyFull):
        client.queue("orders").send("a", idempotency_key="order-7")
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "broken_json"),
        (401, "unauthenticated"),
        (404, "queue_not_found"),
        (409, "receipt_stale"),
        (500, ""),
    ],
)
def test_a_refusal_is_final(status: int, code: str) -> None:
    script = Script(problem(status, code))
    with script.client() as client, pytest.raises(errors.Problem):
        client.queue("orders").acknowledge("r1")
    assert len(script.requests) == 1


def test_an_answer_that_cannot_be_read_is_final() -> None:
    script = Script(httpx.Response(200, text="<html>hello</html>"))
    with script.client() as client, pytest.raises(errors.BadAnswer):
        client.queue("orders").show()
    assert len(script.requests) == 1


def test_acknowledging_what_is_gone_is_success() -> None:
    script = Script(problem(410, "receipt_gone"))
    with script.client() as client:
        client.queue("orders").acknowledge("r1")
    assert script.asked == ["DELETE /queues/orders/receipts/r1"]


@pytest.mark.parametrize(
    ("act", "gone"),
    [
        (lambda queue: queue.delete(), (404, "queue_not_found")),
        (lambda queue: queue.cancel("m1"), (410, "message_gone")),
        (lambda queue: queue.release("r1"), (409, "receipt_stale")),
    ],
)
def test_not_there_on_a_repeat_means_that_the_first_try_did_it(act: Verb, gone: tuple[int, str]) -> None:
    """Planted defect: forgiving it after a refused connection, where no first try can have done it."""
    script = Script(CUT, problem(*gone))
    with script.client() as client:
        act(client.queue("orders"))
    for before in ([], [REFUSED], [problem(*MANY)]):
        script = Script(*before, problem(*gone))
        with script.client() as client, pytest.raises(errors.Problem) as caught:
            act(client.queue("orders"))
        assert caught.value.code == gone[1]


def test_pauses_grow_and_are_cut_short_at_random() -> None:
    attempts = Attempts(calls.show("orders"), Retry(limit=100, first=1, longest=8), chance=lambda: 0.0)
    cut = errors.AnswerLost("cut")
    assert [attempts.pause_after(cut) for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    attempts = Attempts(calls.show("orders"), Retry(limit=100, first=1, longest=8), chance=lambda: 1.0)
    assert [attempts.pause_after(cut) for _ in range(3)] == [0.5, 1, 2]


def test_it_gives_up_at_the_limit_and_raises_the_last_error() -> None:
    script = Script(*[CUT] * 20)
    with script.client(Retry(limit=10, first=1, longest=1)) as client, pytest.raises(errors.AnswerLost):
        client.queue("orders").show()
    assert 9 <= sum(script.pauses) <= 10


def test_a_limit_of_nothing_never_repeats() -> None:
    script = Script(CUT)
    with script.client(Retry(limit=0)) as client, pytest.raises(errors.AnswerLost):
        client.queue("orders").show()
    assert len(script.requests) == 1


def test_a_server_that_is_not_there_at_first_may_be_an_error_at_once() -> None:
    hasty = Retry(wait_for_server=False)
    with Script(REFUSED).client(hasty) as client, pytest.raises(errors.Unreachable):
        client.status()
    script = Script(CUT, REFUSED, ok({"id": "m1", "duplicate": False}, 201))
    with script.client(hasty) as client:
        client.queue("orders").send("a")
    assert len(script.requests) == 3, "once the answer is in doubt, it is worth waiting for the server"


def test_retry_after_is_honoured() -> None:
    script = Script(problem(*MANY, retry_after="7"), ok({"id": "m1", "duplicate": False}, 201))
    with script.client() as client:
        client.queue("orders").send("a")
    assert script.pauses == [7.0]


def test_a_retry_after_beyond_the_limit_is_told_at_once() -> None:
    script = Script(problem(*MANY, retry_after="3600"))
    with script.client() as client, pytest.raises(errors.QueueFull) as caught:
        client.queue("orders").send(NewMessage("a"))
    assert caught.value.retry_after == 3600
    assert script.pauses == []


def test_the_client_pauses_between_tries() -> None:
    script = Script(REFUSED, extended)
    with script.client() as client:
        client.queue("orders").extend("r1", 5)
    assert len(script.pauses) == 1
    assert 0.05 <= script.pauses[0] <= 0.1


REFUSAL = errors.InvalidRequest(422, "invalid", "no")


@pytest.mark.parametrize(
    ("failures", "in_doubt"),
    [
        ([errors.Unreachable(), errors.Unreachable()], False),
        ([errors.AnswerLost()], True),
        ([errors.AnswerLost(), errors.Unreachable()], True),
        ([errors.ServerFailed(500, "internal", "no")], True),
        ([errors.QueueFull(429, "queue_full", "no")], False),
        ([errors.AnswerLost(), REFUSAL], False),
    ],
)
def test_an_error_says_whether_the_request_may_have_been_done(
    failures: list[errors.WindlassError], in_doubt: bool
) -> None:
    """Planted defect: judging by the last try alone forgets that an earlier one may have got through."""
    attempts = Attempts(calls.send("orders", NewMessage("a"), key="k", make_key=False), Retry())
    for failure in failures:
        with contextlib.suppress(errors.WindlassError):
            attempts.pause_after(failure)
    assert failures[-1].in_doubt is in_doubt
