"""Problem documents become errors, and everything else that may come back does too."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.unit.client.script import Script, problem
from windlass.client import Client, errors, transport


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "broken_json", errors.InvalidRequest),
        (422, "invalid", errors.InvalidRequest),
        (422, "idempotency_key_reused", errors.IdempotencyKeyReused),
        (413, "too_large", errors.TooLarge),
        (401, "unauthenticated", errors.Unauthenticated),
        (403, "forbidden", errors.Forbidden),
        (403, "foreign_origin", errors.Forbidden),
        (404, "not_found", errors.NotFound),
        (404, "queue_not_found", errors.QueueNotFound),
        (404, "message_not_found", errors.MessageNotFound),
        (404, "receipt_unknown", errors.ReceiptUnknown),
        (405, "method_not_allowed", errors.Problem),
        (408, "request_timeout", errors.Problem),
        (409, "receipt_stale", errors.LeaseLost),
        (409, "queue_exists", errors.QueueExists),
        (409, "queue_in_use", errors.QueueInUse),
        (409, "message_leased", errors.MessageLeased),
        (409, "something_new", errors.Conflict),
        (410, "receipt_gone", errors.ReceiptGone),
        (410, "message_gone", errors.MessageGone),
        (429, "queue_full", errors.QueueFull),
        (429, "idempotency_full", errors.IdempotencyFull),
        (503, "store_unavailable", errors.StoreUnavailable),
        (500, "internal", errors.ServerFailed),
    ],
)
def test_each_code_has_its_error(status: int, code: str, kind: type[errors.Problem]) -> None:
    answer = problem(status, code, "that is wrong", field="content", retry_after="3")
    error = errors.from_answer(status, answer.headers, answer.content)
    assert type(error) is kind
    assert isinstance(error, errors.Problem)
    assert (error.status, error.code, error.field, error.retry_after) == (status, code, "content", 3.0)
    assert error.detail == "that is wrong"
    assert str(error) == "content: that is wrong", "the field is told, as the detail does not name it"


def test_a_field_that_the_detail_names_is_not_told_twice() -> None:
    error = errors.InvalidRequest(422, "invalid", "The priority is 0 to 9.", field="priority")
    assert str(error) == "The priority is 0 to 9."


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, b"<html>Bad Gateway</html>", errors.ServerFailed),
        (401, b"", errors.Unauthenticated),
        (404, b"<html>no such page</html>", errors.BadAnswer),
        (404, b'{"detail": "Not Found"}', errors.BadAnswer),
        (302, b"", errors.BadAnswer),
        (400, b"[1]", errors.BadAnswer),
    ],
)
def test_an_answer_without_a_problem_document(status: int, body: bytes, kind: type[Exception]) -> None:
    """Planted defect: a wrong address must not look like a queue that does not exist."""
    assert type(errors.from_answer(status, {}, body)) is kind


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "inf", "nan", ""])
def test_a_retry_after_that_is_no_number_of_seconds_is_left(text: str) -> None:
    error = errors.from_answer(503, {"retry-after": text}, json.dumps({"code": "x"}).encode())
    assert isinstance(error, errors.Problem)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), errors.Unreachable),
        (httpx.ConnectTimeout("slow"), errors.Unreachable),
        (httpx.PoolTimeout("busy"), errors.Unreachable),
        (httpx.ReadTimeout("slow"), errors.AnswerLost),
        (httpx.WriteError("reset"), errors.AnswerLost),
        (httpx.RemoteProtocolError("disconnected"), errors.AnswerLost),
        (httpx.DecodingError("gzip"), errors.BadAnswer),
    ],
)
def test_a_connection_that_fails_says_whether_anything_was_sent(
    failure: Exception, kind: type[errors.WindlassError]
) -> None:
    script = Script(failure)
    with script.client() as client:
        client.retry = type(client.retry)(limit=0)
        with pytest.raises(kind, match=r"http://windlass\.test") as caught:
            client.status()
    assert "Errno" not in str(caught.value)
    assert caught.value.__cause__ is failure


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "nonsense"])
def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(errors.NotSent, match="address"):
        Client(url)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_URL", "http://10.0.0.5:9000/")
    monkeypatch.setenv("WINDLASS_KEY", " wk_1_secret\n")
    assert transport.base_url(None) == "http://10.0.0.5:9000"
    assert transport.base_url("http://other") == "http://other"
    assert transport.headers(None)["authorization"] == "Bearer wk_1_secret"
    assert transport.headers("wk_2_x")["authorization"] == "Bearer wk_2_x"
    assert "authorization" not in transport.headers("")


def test_a_key_that_cannot_be_one_is_told_at_once() -> None:
    with pytest.raises(errors.NotSent, match="API key"):
        Client("http://x", "wk_1_\u00e9")


def test_an_address_below_a_path_keeps_it() -> None:
    script = Script(httpx.Response(204))
    with Client("http://proxy/windlass/", httpx_transport=httpx.MockTransport(script)) as client:
        client.queue("q").acknowledge("r")
    assert str(script.requests[0].url) == "http://proxy/windlass/queues/q/receipts/r"
