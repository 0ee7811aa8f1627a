"""boto3: FIFO queues: groups, sequence numbers, dedup, attempts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.proofs import BOTO3, each, proves
from tests.clients.site import attribute, new_queue, receive, receive_all, take

pytestmark = pytest.mark.storm


def _send(sqs: Any, queue: str, body: str, group: str = "g", dedup: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = sqs.send_message(
        QueueUrl=queue, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=dedup or body
    )
    return answer


@proves(BOTO3, SendMessage="MessageGroupId MessageDeduplicationId")
@proves(
    BOTO3,
    ReceiveMessage=" ".join(
        each(parameter, "SequenceNumber", "MessageGroupId", "MessageDeduplicationId")
        for parameter in ("MessageSystemAttributeNames", "AttributeNames")
    ),
)
@pytest.mark.parametrize("parameter", ["MessageSystemAttributeNames", "AttributeNames"])
def test_a_group_is_received_in_its_order_with_growing_numbers(sqs: Any, fifo: str, parameter: str) -> None:
    sent = [_send(sqs, fifo, str(n), dedup=f"d{n}") for n in range(5)]
    numbers = [each["SequenceNumber"] for each in sent]
    assert [int(number) for number in numbers] == sorted({int(number) for number in numbers})
    asked = ["SequenceNumber", "MessageGroupId", "MessageDeduplicationId"]
    more: dict[str, Any] = {parameter: asked}
    found = take(sqs, fifo, 5, **more)
    assert [each["Body"] for each in found] == list("01234")
    assert [each["Attributes"] for each in found] == [
        {"SequenceNumber": number, "MessageGroupId": "g", "MessageDeduplicationId": f"d{n}"}
        for n, number in enumerate(numbers)
    ]


@proves(BOTO3, ReceiveMessage="MaxNumberOfMessages")
def test_a_receive_takes_as_many_of_a_group_as_there_are(sqs: Any, fifo: str) -> None:
    """Planted: one of each group."""
    for n in range(6):
        _send(sqs, fifo, str(n))
        _send(sqs, fifo, f"other-{n}", "other")
    found = receive(sqs, fifo, MaxNumberOfMessages=10)
    others = [f"other-{n}" for n in range(4)]
    assert [each["Body"] for each in found] == ["0", "1", "2", "3", "4", "5", *others]
    assert receive(sqs, fifo, wait=0) == []  # of groups in flight
    entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(found)]
    sqs.delete_message_batch(QueueUrl=fifo, Entries=entries)
    assert [each["Body"] for each in receive(sqs, fifo)] == ["other-4", "other-5"]


@proves(BOTO3, ReceiveMessage="")
def test_a_group_waits_for_what_is_in_flight_and_others_do_not(sqs: Any, fifo: str) -> None:
    for body, group in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        _send(sqs, fifo, body, group)
    [first] = receive(sqs, fifo, MaxNumberOfMessages=1, VisibilityTimeout=600)
    assert first["Body"] == "a1"
    assert [each["Body"] for each in receive(sqs, fifo, VisibilityTimeout=600)] == ["b1"]
    assert receive(sqs, fifo, wait=0) == []
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"])
    assert [each["Body"] for each in receive(sqs, fifo)] == ["a2"]


@proves(BOTO3, ChangeMessageVisibility="")
def test_what_comes_back_comes_before_what_was_sent_after_it(sqs: Any, fifo: str) -> None:
    for body in "ab":
        _send(sqs, fifo, body)
    [first] = receive(sqs, fifo, MaxNumberOfMessages=1, VisibilityTimeout=600)
    sqs.change_message_visibility(QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    assert [each["Body"] for each in take(sqs, fifo, 2)] == ["a", "b"]


@proves(BOTO3, SendMessage="MessageDeduplicationId")
def test_a_dedup_id_counts_after_the_messages_deletion_too(sqs: Any, fifo: str) -> None:
    first = _send(sqs, fifo, "a", dedup="same")
    second = _send(sqs, fifo, "b", dedup="same")
    assert second["MessageId"] == first["MessageId"]
    assert second["SequenceNumber"] == first["SequenceNumber"]
    [message] = receive(sqs, fifo)
    assert message["Body"] == "a"
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=message["ReceiptHandle"])
    assert _send(sqs, fifo, "c", dedup="same")["MessageId"] == first["MessageId"]
    assert receive(sqs, fifo, wait=0) == []
    assert _send(sqs, fifo, "c", dedup="other")["MessageId"] != first["MessageId"]


@proves(BOTO3, CreateQueue="Attributes.ContentBasedDeduplication", SendMessage="MessageBody")
def test_dedup_by_content(sqs: Any) -> None:
    queue = new_queue(sqs, FifoQueue="true", ContentBasedDeduplication="true")
    for attributes in ({}, {"n": {"DataType": "Number", "StringValue": "1"}}):
        sqs.send_message(QueueUrl=queue, MessageBody="same", MessageGroupId="g", MessageAttributes=attributes)
    sqs.send_message(QueueUrl=queue, MessageBody="same", MessageGroupId="g", MessageDeduplicationId="mine")
    assert [each["Body"] for each in take(sqs, queue, 2)] == ["same", "same"]
    assert receive(sqs, queue, wait=0) == []


@proves(BOTO3, CreateQueue=each("Attributes", "DeduplicationScope", "FifoThroughputLimit"))
def test_dedup_within_a_group(sqs: Any) -> None:
    queue = new_queue(
        sqs, FifoQueue="true", DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId"
    )
    for group in ("a", "b", "a"):
        _send(sqs, queue, group, group, dedup="same")
    assert sorted(each["Body"] for each in receive_all(sqs, queue, 2)) == ["a", "b"]
    assert receive(sqs, queue, wait=0) == []


@proves(BOTO3, CreateQueue="Attributes.DelaySeconds Attributes.FifoQueue")
def test_a_fifo_queues_delay_is_the_queues(sqs: Any) -> None:
    queue = new_queue(sqs, FifoQueue="true", DelaySeconds="900")
    _send(sqs, queue, "x")
    assert receive(sqs, queue, wait=0) == []
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesDelayed") == "1"


@proves(BOTO3, ReceiveMessage="ReceiveRequestAttemptId")
def test_an_attempt_that_is_repeated_has_the_same_answer(sqs: Any, fifo: str) -> None:
    for body, group in (("a", "1"), ("b", "2")):
        _send(sqs, fifo, body, group)
    asked = {"MaxNumberOfMessages": 1, "VisibilityTimeout": 600}
    first = receive(sqs, fifo, ReceiveRequestAttemptId="attempt-1", **asked)
    again = receive(sqs, fifo, ReceiveRequestAttemptId="attempt-1", **asked)
    assert [each["MessageId"] for each in again] == [each["MessageId"] for each in first]
    other = receive(sqs, fifo, ReceiveRequestAttemptId="attempt-2", **asked)
    assert other[0]["MessageId"] != first[0]["MessageId"]
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=again[0]["ReceiptHandle"])
    assert attribute(sqs, fifo, "ApproximateNumberOfMessagesNotVisible") == "1"
