"""boto3: batches, which succeed and fail entry by entry."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients import md5
from tests.clients.proofs import BOTO3, each, proves
from tests.clients.site import attribute, new_queue, receive, receive_all, take
from tests.clients.test_boto3_messages import OF_EACH_TYPE, TRACE

pytestmark = pytest.mark.storm


@proves(
    BOTO3,
    SendMessageBatch="QueueUrl "
    + each("Entries", "Id", "MessageBody", "DelaySeconds", "MessageGroupId")
    + " "
    + each("Entries.MessageAttributes", "DataType", "StringValue", "BinaryValue")
    + " "
    + each("Entries.MessageSystemAttributes", "AWSTraceHeader", "DataType", "StringValue"),
)
def test_a_batch_is_sent(sqs: Any, queue: str) -> None:
    entries: list[dict[str, Any]] = [
        {"Id": "plain", "MessageBody": "a"},
        {"Id": "late", "MessageBody": "b", "DelaySeconds": 900},
        {"Id": "with-attributes", "MessageBody": "c", "MessageAttributes": OF_EACH_TYPE},
        {"Id": "traced", "MessageBody": "d", "MessageSystemAttributes": TRACE},
        {"Id": "grouped", "MessageBody": "e", "MessageGroupId": "tenant"},
    ]
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    assert not answer.get("Failed")
    sent = {each["Id"]: each for each in answer["Successful"]}
    assert list(sent) == [each["Id"] for each in entries]
    assert [each["MD5OfMessageBody"] for each in sent.values()] == [md5.of_body(body) for body in "abcde"]
    assert sent["with-attributes"]["MD5OfMessageAttributes"] == md5.of_attributes(OF_EACH_TYPE)
    assert sent["traced"]["MD5OfMessageSystemAttributes"] == md5.of_attributes(TRACE)
    asked = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
    found = {message["Body"]: message for message in receive_all(sqs, queue, 4, **asked)}
    assert set(found) == set("acde")
    assert found["c"]["MessageAttributes"] == OF_EACH_TYPE
    assert found["d"]["Attributes"]["AWSTraceHeader"] == TRACE["AWSTraceHeader"]["StringValue"]
    assert found["e"]["Attributes"]["MessageGroupId"] == "tenant"
    assert found["a"]["MessageId"] == sent["plain"]["MessageId"]
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesDelayed") == "1"


@proves(BOTO3, DeleteMessageBatch="QueueUrl " + each("Entries", "Id", "ReceiptHandle"))
def test_a_batch_is_deleted(sqs: Any, queue: str) -> None:
    _send(sqs, queue, 10)
    messages = receive_all(sqs, queue, 10)
    entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
    answer = sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
    assert [each["Id"] for each in answer["Successful"]] == [str(n) for n in range(10)]
    assert not answer.get("Failed")
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"


@proves(
    BOTO3,
    ChangeMessageVisibilityBatch="QueueUrl " + each("Entries", "Id", "ReceiptHandle", "VisibilityTimeout"),
)
def test_the_visibility_of_a_batch_is_changed(sqs: Any, queue: str) -> None:
    _send(sqs, queue, 4)
    messages = receive_all(sqs, queue, 4, VisibilityTimeout=600)
    entries = [
        {"Id": str(n), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0 if n < 2 else 900}
        for n, message in enumerate(messages)
    ]
    answer = sqs.change_message_visibility_batch(QueueUrl=queue, Entries=entries)
    assert [each["Id"] for each in answer["Successful"]] == ["0", "1", "2", "3"]
    assert not answer.get("Failed")
    again = receive_all(sqs, queue, 2)
    assert {each["MessageId"] for each in again} == {each["MessageId"] for each in messages[:2]}
    assert receive(sqs, queue, wait=0) == []


@proves(BOTO3, SendMessageBatch="!InvalidMessageContents !InvalidParameterValue !UnsupportedOperation")
def test_what_is_wrong_in_a_batch_fails_alone(sqs: Any, queue: str) -> None:
    answer = sqs.send_message_batch(
        QueueUrl=queue,
        Entries=[
            {"Id": "good", "MessageBody": "a"},
            {"Id": "bad-character", "MessageBody": "\0"},
            {"Id": "bad-delay", "MessageBody": "b", "DelaySeconds": 901},
            {"Id": "bad-attribute", "MessageBody": "c", "MessageAttributes": {"AWS.x": OF_EACH_TYPE["text"]}},
            {
                "Id": "bad-list",
                "MessageBody": "c",
                "MessageAttributes": {"x": {"DataType": "String", "StringListValues": ["x"]}},
            },
            {"Id": "good-too", "MessageBody": "d"},
        ],
    )
    assert [each["Id"] for each in answer["Successful"]] == ["good", "good-too"]
    assert {each["Id"]: each["Code"].rpartition(".")[2] for each in answer["Failed"]} == {
        "bad-list": "UnsupportedOperation",
        "bad-character": "InvalidMessageContents",
        "bad-delay": "InvalidParameterValue",
        "bad-attribute": "InvalidParameterValue",
    }
    assert all(each["SenderFault"] is True and each["Message"] for each in answer["Failed"])
    assert {each["Body"] for each in receive_all(sqs, queue, 2)} == {"a", "d"}


@proves(BOTO3, DeleteMessageBatch="!ReceiptHandleIsInvalid")
def test_a_receipt_that_is_none_fails_alone_in_a_deletion(sqs: Any, queue: str) -> None:
    _send(sqs, queue, 1)
    [message] = receive(sqs, queue)
    answer = sqs.delete_message_batch(
        QueueUrl=queue,
        Entries=[
            {"Id": "none", "ReceiptHandle": "none"},
            {"Id": "one", "ReceiptHandle": message["ReceiptHandle"]},
        ],
    )
    assert [each["Id"] for each in answer["Successful"]] == ["one"]
    assert [(each["Id"], each["Code"]) for each in answer["Failed"]] == [("none", "ReceiptHandleIsInvalid")]
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "0"


@proves(
    BOTO3,
    ChangeMessageVisibilityBatch="!ReceiptHandleIsInvalid !MessageNotInflight !InvalidParameterValue",
)
def test_what_is_wrong_in_a_change_of_visibility_fails_alone(sqs: Any, queue: str) -> None:
    _send(sqs, queue, 3)
    receipts = [each["ReceiptHandle"] for each in receive_all(sqs, queue, 3, VisibilityTimeout=600)]
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=receipts[0], VisibilityTimeout=0)
    answer = sqs.change_message_visibility_batch(
        QueueUrl=queue,
        Entries=[
            {"Id": "back", "ReceiptHandle": receipts[0], "VisibilityTimeout": 60},
            {"Id": "none", "ReceiptHandle": "none", "VisibilityTimeout": 60},
            {"Id": "long", "ReceiptHandle": receipts[1], "VisibilityTimeout": 43_201},
            {"Id": "good", "ReceiptHandle": receipts[2], "VisibilityTimeout": 60},
        ],
    )
    assert [each["Id"] for each in answer["Successful"]] == ["good"]
    assert {each["Id"]: each["Code"].rpartition(".")[2] for each in answer["Failed"]} == {
        "back": "MessageNotInflight",
        "none": "ReceiptHandleIsInvalid",
        "long": "InvalidParameterValue",
    }


@proves(
    BOTO3,
    SendMessageBatch=each("Entries", "MessageGroupId", "MessageDeduplicationId") + " !MissingParameter",
)
def test_entries_of_a_fifo_queue(sqs: Any) -> None:
    queue = new_queue(sqs, FifoQueue="true")
    entry = {"MessageGroupId": "g", "MessageDeduplicationId": "1"}
    answer = sqs.send_message_batch(
        QueueUrl=queue,
        Entries=[
            {"Id": "first", "MessageBody": "a", **entry},
            {"Id": "same", "MessageBody": "b", **entry},
            {"Id": "without-group", "MessageBody": "c", "MessageDeduplicationId": "2"},
            {"Id": "without-dedup", "MessageBody": "d", "MessageGroupId": "g"},
            {"Id": "second", "MessageBody": "e", "MessageGroupId": "g", "MessageDeduplicationId": "3"},
        ],
    )
    sent = {each["Id"]: each for each in answer["Successful"]}
    assert set(sent) == {"first", "same", "second"}
    assert sent["first"]["MessageId"] == sent["same"]["MessageId"]
    assert int(sent["first"]["SequenceNumber"]) < int(sent["second"]["SequenceNumber"])
    assert {each["Id"]: each["Code"] for each in answer["Failed"]} == {
        "without-group": "MissingParameter",
        "without-dedup": "InvalidParameterValue",
    }
    assert [each["Body"] for each in take(sqs, queue, 2)] == ["a", "e"]


@proves(BOTO3, SendMessageBatch="!BatchRequestTooLong")
def test_a_batch_has_a_size_as_a_whole(sqs: Any, queue: str) -> None:
    share = 1_048_576 // 4
    entries = [{"Id": str(n), "MessageBody": "x" * share} for n in range(4)]
    assert len(sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == 4
    entries[0]["MessageBody"] += "x"
    with pytest.raises(sqs.exceptions.BatchRequestTooLong) as caught:
        sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.BatchRequestTooLong"


def _send(sqs: Any, queue: str, count: int) -> None:
    entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(count)]
    assert len(sqs.send_message_batch(QueueUrl=queue, Entries=entries)["Successful"]) == count
