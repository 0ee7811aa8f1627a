"""What is refused over SQS, in which words, and that nothing comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.http.served import Served
from tests.contract.sqs.wire import Wire, text

# --- what is refused ------------------------------------------------------------------------------------


LIST = {"DataType": "String", "StringListValues": ["x"]}
GROUPED = {"MessageGroupId": "a", "MessageDeduplicationId": "x"}


@pytest.mark.parametrize(
    ("queue", "more", "name"),
    [
        ("q", {"MessageBody": ""}, "MissingParameter"),
        ("q", {"DelaySeconds": 901}, "InvalidParameterValue"),
        ("q", {"DelaySeconds": -1}, "InvalidParameterValue"),
        ("q", {"MessageDeduplicationId": "x"}, "InvalidParameterValue"),
        ("q", {"MessageGroupId": "a b"}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"AWS.x": text("x")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {".x": text("x")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a..x": text("x")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a b": text("x")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a": text("")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a": text("x", "Number")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a": text("x", "Text")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a": text("x", "Binary")}}, "InvalidParameterValue"),
        ("q", {"MessageAttributes": {"a": LIST}}, "UnsupportedOperation"),
        ("q", {"MessageAttributes": {str(n): text("x") for n in range(11)}}, "InvalidParameterValue"),
        ("q", {"MessageSystemAttributes": {"Other": text("x")}}, "InvalidParameterValue"),
        ("q.fifo", {}, "MissingParameter"),
        ("q.fifo", {"MessageGroupId": "a"}, "InvalidParameterValue"),
        ("q.fifo", {"MessageGroupId": "a" * 129, "MessageDeduplicationId": "x"}, "InvalidParameterValue"),
        ("q.fifo", {"MessageGroupId": "a", "MessageDeduplicationId": "é"}, "InvalidParameterValue"),
        ("q.fifo", {**GROUPED, "DelaySeconds": 1}, "InvalidParameterValue"),
        ("none", {}, "QueueDoesNotExist"),
        ("no name!", {}, "QueueDoesNotExist"),
        ("windlass.jobs", {}, "AccessDeniedException"),
    ],
)  # fmt: skip
def test_what_may_not_be_sent(
    wire: Wire, url: str, fifo: str, queue: str, more: dict[str, Any], name: str
) -> None:
    """And nothing is sent."""
    refused = wire.refused("SendMessage", **{"QueueUrl": queue, "MessageBody": "x", **more})
    assert refused[1] == name
    assert refused[0] == (403 if name == "AccessDeniedException" else 400)
    assert wire.receive(url) == wire.receive(fifo) == []


@pytest.mark.parametrize(
    ("action", "parameters", "name"),
    [
        ("ReceiveMessage", {"MaxNumberOfMessages": 0}, "InvalidParameterValue"),
        ("ReceiveMessage", {"MaxNumberOfMessages": 11}, "InvalidParameterValue"),
        ("ReceiveMessage", {"VisibilityTimeout": 43_201}, "InvalidParameterValue"),
        ("ReceiveMessage", {"VisibilityTimeout": -1}, "InvalidParameterValue"),
        ("ReceiveMessage", {"WaitTimeSeconds": 21}, "InvalidParameterValue"),
        ("ReceiveMessage", {"ReceiveRequestAttemptId": "x"}, "InvalidParameterValue"),
        ("DeleteMessage", {"ReceiptHandle": "x"}, "ReceiptHandleIsInvalid"),
        ("DeleteMessage", {}, "MissingParameter"),
        ("ChangeMessageVisibility", {"ReceiptHandle": "x", "VisibilityTimeout": 1}, "ReceiptHandleIsInvalid"),
        ("ChangeMessageVisibility", {"ReceiptHandle": "x", "VisibilityTimeout": -1}, "InvalidParameterValue"),
        ("ChangeMessageVisibility", {"ReceiptHandle": "x"}, "MissingParameter"),
    ],
)  # fmt: skip
def test_what_may_not_be_asked(
    wire: Wire, url: str, action: str, parameters: dict[str, Any], name: str
) -> None:
    refused = wire.refused(action, QueueUrl=url, **parameters)
    assert refused == (404 if name == "ReceiptHandleIsInvalid" else 400, name, name)


def test_a_receipt_of_another_queue(wire: Wire, url: str) -> None:
    """Planted: it deletes what has the same number here; a status of 400, which is that of other errors."""
    other = wire.create("other")
    wire.send(url)
    (message,) = wire.receive(url, VisibilityTimeout=5)
    refused = wire.refused("DeleteMessage", QueueUrl=other, ReceiptHandle=message["ReceiptHandle"])
    assert refused == (404, "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid")
    wire.api.advance(6)
    assert len(wire.receive(url)) == 1


# --- broken requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"{", "SerializationException"),
        (b"[]", "SerializationException"),
        (b'"x"', "SerializationException"),
        (b"\xff", "SerializationException"),
        (b'{"QueueUrl":"q","MessageBody":1}', "SerializationException"),
        (b'{"QueueUrl":"q","MessageBody":"\\ud800"}', "SerializationException"),
        (b'{"QueueUrl":"q","MessageBody":"x","DelaySeconds":"1"}', "SerializationException"),
        (b'{"QueueUrl":"q","MessageBody":"x","DelaySeconds":1.5}', "SerializationException"),
        (b'{"QueueUrl":"q","MessageBody":"x","DelaySeconds":99999999999999999999}', "InvalidParameterValue"),
        (b'{"QueueUrl":"q","MessageAttributes":[]}', "SerializationException"),
        (b'{"QueueUrl":"q","MessageBody":"x","MessageAttributes":{"a":{"DataType":"Binary","BinaryValue":"?"}}}',
         "SerializationException"),
        (b"[" * 2000, "SerializationException"),
        (b'{"QueueUrl":"q","a":' + b"[" * 5000, "SerializationException"),
        (b"", "MissingParameter"),
        (b'{"MessageBody":"x"}', "MissingParameter"),
    ],
)  # fmt: skip
def test_broken_json(wire: Wire, url: str, body: bytes, name: str) -> None:
    """Planted: a fault of our own."""
    assert wire.error(wire.json("SendMessage", body))[:2] == (400, name)
    assert wire.receive(url) == []


@pytest.mark.parametrize("target", ["AmazonSQS.Nonsense", "Nonsense", "", "DynamoDB_20120810.SendMessage"])
def test_unknown_actions_in_json(wire: Wire, target: str) -> None:
    answer = wire.api("POST", "/", {}, headers={"x-amz-target": target})
    assert wire.error(answer) == (400, "UnknownOperationException", "InvalidAction")


def test_null_is_as_if_it_were_not_there_and_what_is_unknown_is_passed_over(wire: Wire, url: str) -> None:
    wire.send(url, "x", DelaySeconds=None, MessageAttributes=None, SomethingNew={"a": 1})
    assert wire.bodies(url) == ["x"]


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (b"Action=Nonsense", "InvalidAction"),
        (b"Version=2012-11-05", "MissingAction"),
        (b"Action=SendMessage&QueueUrl=q", "MissingParameter"),
        (b"Action=SendMessage&QueueUrl=q&MessageBody=x&DelaySeconds=x", "InvalidParameterValue"),
        (b"Action=SendMessage&QueueUrl=none&MessageBody=x", "AWS.SimpleQueueService.NonExistentQueue"),
    ],
)
def test_broken_forms(wire: Wire, url: str, form: bytes, code: str) -> None:
    answer = wire.form(form)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/xml"
    assert f"<Code>{code}</Code>" in answer.text
    assert wire.receive(url) == []


def test_a_get_with_an_action(wire: Wire, url: str) -> None:
    answer = wire.api("GET", "/000000000000/q?Action=SendMessage&MessageBody=a%20b&Version=2012-11-05")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert wire.bodies(url) == ["a b"]


def test_what_is_no_sqs_is_told_so_as_ever(api: Served) -> None:
    """Planted: every request at / is one of SQS."""
    for method, path in (("GET", "/"), ("POST", "/"), ("GET", "/000000000000/q"), ("POST", "/1/2/3")):
        answer = api(method, path, {} if method == "POST" else None)
        assert answer.status_code in (404, 405), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_failed_entry_tells_of_characters_that_xml_cannot_carry(wire: Wire, url: str) -> None:
    """Planted defect: its words, with what was sent, make an error of the whole answer: the good ones are
    sent, and the client sends them once more."""
    entry = "SendMessageBatchRequestEntry"
    form = {f"{entry}.1.Id": "good", f"{entry}.1.MessageBody": "x"}
    form |= {f"{entry}.2.Id": "bad", f"{entry}.2.MessageBody": "x", f"{entry}.2.MessageGroupId": "\0\uffff"}
    answer = wire.query("SendMessageBatch", QueueUrl=url, **form)
    assert [each.text for each in answer.iter("Id")] == ["good", "bad"]
    assert "\ufffd\ufffd" in str(answer.findtext(".//Message"))
    assert wire.bodies(url) == ["x"]


def test_a_form_is_known_however_its_type_is_written(wire: Wire, url: str) -> None:
    headers = {"content-type": "Application/X-WWW-Form-URLencoded; charset=UTF-8"}
    answer = wire.api("POST", "/", b"Action=SendMessage&QueueUrl=q&MessageBody=x", headers=headers)
    assert answer.status_code == 200
    assert wire.bodies(url) == ["x"]


@pytest.mark.usefixtures("url")
def test_a_browser_is_not_a_friend(wire: Wire) -> None:
    """Planted: a form, which any page may send to localhost, let in."""
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": "http://evil.example"}
    form = b"Action=ReceiveMessage&QueueUrl=q"
    answer = wire.api("POST", "/", form, headers=headers)
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text


@pytest.mark.usefixtures("url")
def test_a_request_that_names_no_queue(wire: Wire) -> None:
    """Planted: the queue at whose URL it is asked, passed over; `/` taken for one."""
    missing = (400, "MissingParameter", "MissingParameter")
    assert wire.refused("SendMessage", MessageBody="x") == missing
    assert wire.refused_query("DeleteQueue") == (400, "MissingParameter")
    answer = wire.json("SendMessage", {"MessageBody": "x"}, "/000000000000/q")
    assert answer.status_code == 200, answer.text
    assert wire.bodies("q") == ["x"]
