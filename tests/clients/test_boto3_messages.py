"""boto3: sending and receiving, with everything that a message can have."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.clients import md5
from tests.clients.proofs import BOTO3, each, proves
from tests.clients.site import Site, attribute, new_queue, receive, receive_all

pytestmark = pytest.mark.storm

OF_EACH_TYPE: dict[str, dict[str, Any]] = {
    "text": {"DataType": "String", "StringValue": "größer € 𝄞"},
    "count": {"DataType": "Number", "StringValue": "-12.50"},
    "picture": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    "of-a-kind.text": {"DataType": "String.json", "StringValue": "{}"},
    "of-a-kind.count": {"DataType": "Number.int", "StringValue": "7"},
    "of_a_kind": {"DataType": "Binary.png", "BinaryValue": b"\0"},
}
TRACE = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}


@proves(BOTO3, SendMessage="QueueUrl MessageBody", ReceiveMessage="", DeleteMessage="QueueUrl ReceiptHandle")
@pytest.mark.parametrize(
    "body",
    ["hello", "größer € 𝄞", '{"a": [1, 2.50]}', "  <a>&amp;</a>\t\r\n ", "\ufffd", "x" * 262_144],
    ids=["plain", "unicode", "json", "xml", "edge", "long"],
)
def test_a_messages_life(sqs: Any, queue: str, body: str) -> None:
    sent = sqs.send_message(QueueUrl=queue, MessageBody=body)
    assert sent["MD5OfMessageBody"] == md5.of_body(body)
    assert "MD5OfMessageAttributes" not in sent
    assert "SequenceNumber" not in sent
    [message] = receive(sqs, queue)
    assert message["Body"] == body
    assert message["MessageId"] == sent["MessageId"]
    assert message["MD5OfBody"] == md5.of_body(body)
    assert set(message) == {"MessageId", "ReceiptHandle", "MD5OfBody", "Body"}
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "0"
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])  # once more does no harm


@proves(
    BOTO3,
    SendMessage=each("MessageAttributes", "DataType", "StringValue", "BinaryValue"),
    ReceiveMessage="MessageAttributeNames",
)
def test_message_attributes_of_every_type_with_their_md5(sqs: Any, queue: str) -> None:
    sent = sqs.send_message(QueueUrl=queue, MessageBody="x", MessageAttributes=OF_EACH_TYPE)
    assert sent["MD5OfMessageAttributes"] == md5.of_attributes(OF_EACH_TYPE)
    [message] = receive(sqs, queue, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == OF_EACH_TYPE
    assert message["MD5OfMessageAttributes"] == md5.of_attributes(OF_EACH_TYPE)


@proves(BOTO3, ReceiveMessage="MessageAttributeNames")
@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ([".*"], set(OF_EACH_TYPE)),
        (["text"], {"text"}),
        (["of-a-kind.*"], {"of-a-kind.text", "of-a-kind.count"}),
        (["text", "of-a-kind.*", "never", "never.*"], {"text", "of-a-kind.text", "of-a-kind.count"}),
        (["never"], set()),
        ([], set()),
    ],
)
def test_only_attributes_asked_for_are_given(sqs: Any, queue: str, asked: list[str], given: set[str]) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="x", MessageAttributes=OF_EACH_TYPE)
    [message] = receive(sqs, queue, MessageAttributeNames=asked)
    assert set(message.get("MessageAttributes", {})) == given
    if given:
        assert message["MD5OfMessageAttributes"] == md5.of_attributes(message["MessageAttributes"])
    else:
        assert "MD5OfMessageAttributes" not in message


SYSTEM = ("SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp")


@proves(
    BOTO3,
    SendMessage=each("MessageSystemAttributes", "AWSTraceHeader", "DataType", "StringValue"),
    ReceiveMessage=each("MessageSystemAttributeNames", "All", "AWSTraceHeader", *SYSTEM)
    + " "
    + each("AttributeNames", "All", "AWSTraceHeader", *SYSTEM),
)
@pytest.mark.parametrize("parameter", ["MessageSystemAttributeNames", "AttributeNames"])
def test_system_attributes(sqs: Any, queue: str, parameter: str) -> None:
    before = time.time() * 1000
    sent = sqs.send_message(QueueUrl=queue, MessageBody="x", MessageSystemAttributes=TRACE)
    assert sent["MD5OfMessageSystemAttributes"] == md5.of_attributes(TRACE)
    given = []
    for count, asked in enumerate([["All"], *([name] for name in ("AWSTraceHeader", *SYSTEM))], 1):
        names: dict[str, Any] = {parameter: asked}
        [message] = receive(sqs, queue, VisibilityTimeout=0, **names)
        given.append(message["Attributes"])
        if asked == ["All"]:
            assert {"AWSTraceHeader", *SYSTEM} <= set(message["Attributes"])
            assert message["Attributes"]["ApproximateReceiveCount"] == "1"
            assert message["Attributes"]["SenderId"]
        else:
            assert list(message["Attributes"]) == asked
        if "ApproximateReceiveCount" in asked:
            assert message["Attributes"]["ApproximateReceiveCount"] == str(count)
    everything = given[0]
    assert everything["AWSTraceHeader"] == TRACE["AWSTraceHeader"]["StringValue"]
    for name in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
        assert before - 60_000 <= int(everything[name]) <= time.time() * 1000 + 60_000
    for later in given[1:]:
        for name in set(later) - {"ApproximateReceiveCount"}:
            assert later[name] == everything[name]


@proves(BOTO3, SendMessage="MessageGroupId", ReceiveMessage="MessageSystemAttributeNames.MessageGroupId")
def test_a_group_on_a_standard_queue(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="x", MessageGroupId="tenant-1")
    [message] = receive(sqs, queue, MessageSystemAttributeNames=["MessageGroupId"])
    assert message["Attributes"] == {"MessageGroupId": "tenant-1"}


@proves(BOTO3, SendMessage="DelaySeconds")
def test_a_delay_of_one_message(sqs: Any, queue: str) -> None:
    started = time.monotonic()
    sqs.send_message(QueueUrl=queue, MessageBody="soon", DelaySeconds=1)
    sqs.send_message(QueueUrl=queue, MessageBody="late", DelaySeconds=900)
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesDelayed") in ("1", "2")
    assert [message["Body"] for message in receive(sqs, queue)] == ["soon"]
    assert time.monotonic() - started > 0.9
    assert receive(sqs, queue, wait=0) == []


@proves(BOTO3, SendMessage="DelaySeconds", CreateQueue="Attributes.DelaySeconds")
def test_a_queues_delay_is_that_of_messages_without_one(sqs: Any) -> None:
    queue = new_queue(sqs, DelaySeconds="900")
    sqs.send_message(QueueUrl=queue, MessageBody="late")
    sqs.send_message(QueueUrl=queue, MessageBody="now", DelaySeconds=0)
    assert [message["Body"] for message in receive(sqs, queue)] == ["now"]
    assert receive(sqs, queue, wait=0) == []


@proves(BOTO3, ReceiveMessage="MaxNumberOfMessages")
def test_no_more_messages_than_asked_for(sqs: Any, queue: str) -> None:
    for n in range(4):
        sqs.send_message(QueueUrl=queue, MessageBody=str(n))
    assert len(sqs.receive_message(QueueUrl=queue)["Messages"]) == 1
    some = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=2)["Messages"]
    assert 1 <= len(some) <= 2
    receive_all(sqs, queue, 3 - len(some))
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)


@proves(BOTO3, ReceiveMessage="VisibilityTimeout")
def test_a_message_comes_again_after_its_visibility_timeout(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    started = time.monotonic()
    [first] = receive(sqs, queue, VisibilityTimeout=1)
    [second] = receive(sqs, queue, MessageSystemAttributeNames=["ApproximateReceiveCount"])
    assert time.monotonic() - started > 0.9
    assert second["MessageId"] == first["MessageId"]
    assert second["ReceiptHandle"] != first["ReceiptHandle"]
    assert second["Attributes"] == {"ApproximateReceiveCount": "2"}
    assert receive(sqs, queue, wait=0) == []
    # The first receipt is stale: its deletion is answered, and deletes nothing.
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "1"


@proves(BOTO3, ReceiveMessage="", CreateQueue="Attributes.VisibilityTimeout")
def test_a_queues_visibility_timeout_is_that_of_receives_without_one(sqs: Any) -> None:
    queue = new_queue(sqs, VisibilityTimeout="1")
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert len(receive(sqs, queue)) == len(receive(sqs, queue)) == 1


@proves(BOTO3, ChangeMessageVisibility="QueueUrl ReceiptHandle VisibilityTimeout")
def test_the_visibility_of_a_message_in_flight_is_changed(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [first] = receive(sqs, queue, VisibilityTimeout=43_200)
    assert receive(sqs, queue, wait=0) == []
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    [second] = receive(sqs, queue, VisibilityTimeout=1)
    sqs.change_message_visibility(
        QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=36_000
    )
    assert receive(sqs, queue, wait=2) == []  # it would be back after one second
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "1"


@proves(BOTO3, ReceiveMessage="WaitTimeSeconds")
def test_a_long_poll_ends_when_a_message_comes(sqs: Any, site: Site, queue: str) -> None:
    received: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: received.extend(receive(site.client(), queue)))
    waiting.start()
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    waiting.join(60)
    assert [message["Body"] for message in received] == ["x"]


@proves(BOTO3, ReceiveMessage="WaitTimeSeconds", CreateQueue="Attributes.ReceiveMessageWaitTimeSeconds")
def test_a_long_poll_waits_as_long_as_it_says(sqs: Any) -> None:
    queue = new_queue(sqs, ReceiveMessageWaitTimeSeconds="1")
    for asked in ({}, {"WaitTimeSeconds": 2}):
        started = time.monotonic()
        assert "Messages" not in sqs.receive_message(QueueUrl=queue, **asked)
        assert time.monotonic() - started > asked.get("WaitTimeSeconds", 1) - 0.1


@proves(BOTO3, SendMessage="MessageBody", CreateQueue="Attributes.MaximumMessageSize")
def test_sizes_are_counted_in_bytes_over_body_and_attributes(sqs: Any) -> None:
    queue = new_queue(sqs, MaximumMessageSize="1024")
    half = {"a": {"DataType": "Binary", "BinaryValue": b"x" * (512 - 7)}}  # with its name and its type
    sqs.send_message(QueueUrl=queue, MessageBody="ß" * 512)
    sqs.send_message(QueueUrl=queue, MessageBody="x" * 512, MessageAttributes=half)
    for body, attributes in (("ß" * 512 + "x", {}), ("x" * 513, half)):
        with pytest.raises(sqs.exceptions.ClientError) as caught:
            sqs.send_message(QueueUrl=queue, MessageBody=body, MessageAttributes=attributes)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
    largest = new_queue(sqs)
    body = "x" * 1_048_576
    sent = sqs.send_message(QueueUrl=largest, MessageBody=body)
    assert sent["MD5OfMessageBody"] == md5.of_body(body)
    [message] = receive(sqs, largest)
    assert message["Body"] == body
