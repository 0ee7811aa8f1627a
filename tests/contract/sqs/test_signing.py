"""Clients of SQS that sign, over both protocols and every road: who is let in, and what others are told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx

from tests.contract.http.served import Served
from tests.contract.sqs.wire import IN_JSON
from tests.unit.server.signing import Arrived, signed
from windlass.server import control
from windlass.server.sqs import errors


def made(api: Served, *scopes: str) -> dict[str, Any]:
    assert api("GET", "/health").status_code == 200  # it opens with the first request
    return api.run(control.act(api.app, {"do": "create_key", "scopes": scopes}))


def pair_of(key: dict[str, Any]) -> tuple[str, str]:
    return key["access_key_id"], key["secret_access_key"]


def sent(api: Served, request: Arrived) -> httpx.Response:
    url = (request.path + b"?" + request.query).decode().rstrip("?")
    return api(request.method, url, request.body, headers=list(request.headers))


def call(action: str, pair: tuple[str, str], **parameters: Any) -> Arrived:
    headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
    return signed(body=json.dumps(parameters).encode(), headers=headers, pair=pair)


def refused(answer: httpx.Response, status: int, name: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["__type"].endswith("#" + IN_JSON.get(name, name))
    code = errors.SqsError(name, "").code
    assert answer.headers["x-amzn-query-error"] == f"{code};Sender"


def test_who_signs_is_let_in_as_far_as_the_key_reaches(api: Served) -> None:
    """Planted defect: whoever signs may do everything."""
    everything, sends = made(api, "all"), made(api, "send:orders")
    assert sent(api, call("CreateQueue", pair_of(everything), QueueName="orders")).status_code == 200
    body = {"QueueUrl": "orders", "MessageBody": "rope"}
    assert sent(api, call("SendMessage", pair_of(sends), **body)).status_code == 200
    refused(
        sent(api, call("ReceiveMessage", pair_of(sends), QueueUrl="orders")), 403, "AccessDeniedException"
    )
    answer = sent(api, call("ReceiveMessage", pair_of(everything), QueueUrl="orders"))
    assert [message["Body"] for message in answer.json()["Messages"]] == ["rope"]
    form = {"Action": "SendMessage", "MessageBody": "a b+c", "Version": "2012-11-05"}
    for request in (
        signed(path="/000000000000/orders", body=form, pair=pair_of(sends)),
        signed("GET", "/000000000000/orders", params=form, pair=pair_of(sends)),
        signed("GET", "/000000000000/orders", params=form, expires=60, pair=pair_of(sends)),
    ):
        form_type = request.with_header("content-type", "application/x-www-form-urlencoded")
        answer = sent(api, form_type if request.method == "POST" else request)
        assert answer.status_code == 200, answer.text
        answer = sent(api, call("ReceiveMessage", pair_of(everything), QueueUrl="orders"))
        assert [message["Body"] for message in answer.json()["Messages"]] == ["a b+c"]


def test_who_does_not_sign_is_told_what_is_missing(api: Served) -> None:
    """Planted defects: signatures not looked at; a fault of the server for one that cannot be read."""
    key = made(api, "all")
    good = call("ListQueues", pair_of(key))
    assert sent(api, good).status_code == 200
    bare = replace(good, headers=tuple(pair for pair in good.headers if pair[0] != b"authorization"))
    refused(sent(api, bare), 403, "MissingAuthenticationToken")
    assert sent(api, bare.with_header("authorization", f"Bearer {key['key']}")).status_code == 200
    refused(sent(api, bare.with_header("authorization", "nonsense")), 400, "IncompleteSignature")
    refused(sent(api, replace(good, body=b"{ }")), 403, "SignatureDoesNotMatch")
    refused(sent(api, call("ListQueues", ("WINDLASS0", "x"))), 403, "InvalidClientTokenId")
    query = signed("GET", params={"Action": "ListQueues"}, pair=(key["access_key_id"], "wrong"))
    answer = sent(api, query)
    assert answer.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text
    made(api, "all")
    api.run(control.act(api.app, {"do": "revoke_key", "id": key["id"]}))
    refused(sent(api, good), 403, "InvalidClientTokenId")


def test_without_keys_any_signature_will_do(api: Served) -> None:
    request = call("ListQueues", ("test", "test")).with_header("host", "localhost")
    assert sent(api, request).status_code == 200
    page = request.with_header("origin", "http://evil.example")
    assert sent(api, page).status_code == 403
