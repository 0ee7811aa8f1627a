"""FIFO queues over SQS: groups, sequence numbers, deduplication, attempts."""

from __future__ import annotations

import hashlib

from tests.contract.sqs.wire import Wire, text


def test_groups_hold_their_own_messages_up_and_no_others(wire: Wire, fifo: str) -> None:
    """Planted: groups that are nothing but a label; a group that goes on when a part of it is settled."""
    for n, group in enumerate("abaa"):
        wire.send(fifo, str(n), MessageGroupId=group, MessageDeduplicationId=str(n))
    first, second = wire.receive(fifo, AttributeNames=["All"], MaxNumberOfMessages=2)
    assert (first["Body"], second["Body"]) == ("0", "2")  # as many of a group as there is room for
    assert first["Attributes"]["MessageGroupId"] == "a"
    assert first["Attributes"]["MessageDeduplicationId"] == "0"
    assert wire.bodies(fifo) == ["1"]
    wire("DeleteMessage", QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"])
    assert wire.receive(fifo) == []
    wire("DeleteMessage", QueueUrl=fifo, ReceiptHandle=second["ReceiptHandle"])
    assert wire.bodies(fifo) == ["3"]


def test_a_group_comes_back_in_its_order(wire: Wire, fifo: str) -> None:
    for n in range(4):
        wire.send(fifo, str(n), MessageGroupId="a", MessageDeduplicationId=str(n))
    assert [each["Body"] for each in wire.receive(fifo, VisibilityTimeout=5)] == ["0", "1", "2", "3"]
    wire.api.advance(5)
    again = wire.receive(fifo, MaxNumberOfMessages=3)
    assert [each["Body"] for each in again] == ["0", "1", "2"]


def test_a_group_ends_in_xml_before_what_that_cannot_carry(wire: Wire, fifo: str) -> None:
    """Planted: the one is given back, and what comes after it in its group goes on."""
    for content, group in (("1", "a"), ("bad \u0007", "a"), ("3", "a"), ("4", "b")):
        wire.api.send(content, fifo.rpartition("/")[2], group=group)
    found = wire.query("ReceiveMessage", QueueUrl=fifo, MaxNumberOfMessages="10")
    assert [each.text for each in found.iter("Body")] == ["1", "4"]


def test_sequence_numbers_grow(wire: Wire, fifo: str) -> None:
    numbers = [
        wire.send(fifo, "x", MessageGroupId="a", MessageDeduplicationId=str(n))["SequenceNumber"]
        for n in range(3)
    ]
    assert [len(number) for number in numbers] == [20, 20, 20]
    assert numbers == sorted(set(numbers))
    (message,) = wire.receive(fifo, AttributeNames=["SequenceNumber"], MaxNumberOfMessages=1)
    assert message["Attributes"] == {"SequenceNumber": numbers[0]}


def test_deduplication(wire: Wire, fifo: str) -> None:
    """For five minutes, and after the message is gone. Planted: ids forgotten with their messages."""
    options = {"MessageGroupId": "a", "MessageDeduplicationId": "same"}
    first = wire.send(fifo, "1", **options)
    (message,) = wire.receive(fifo)
    wire("DeleteMessage", QueueUrl=fifo, ReceiptHandle=message["ReceiptHandle"])
    again = wire.send(fifo, "2", **options)
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert wire.receive(fifo) == []
    wire.api.advance(301)
    assert wire.send(fifo, "3", **options)["MessageId"] != first["MessageId"]
    assert wire.bodies(fifo) == ["3"]


def test_deduplication_by_content_and_by_group(wire: Wire) -> None:
    """Planted: an explicit id that does not win; attributes that count as content; a scope passed over."""
    by_content = wire.create("c.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    one = wire.send(by_content, "x", MessageGroupId="a")
    two = wire.send(by_content, "x", MessageGroupId="b", MessageAttributes={"n": text("1")})
    assert one["MessageId"] == two["MessageId"]
    explicit = wire.send(by_content, "x", MessageGroupId="a", MessageDeduplicationId="other")
    assert explicit["MessageId"] != one["MessageId"]
    (message,) = wire.receive(by_content, AttributeNames=["MessageDeduplicationId"], MaxNumberOfMessages=1)
    assert message["Attributes"]["MessageDeduplicationId"] == hashlib.sha256(b"x").hexdigest()
    by_group = wire.create(
        "g.fifo", FifoQueue="true", DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId"
    )
    ids = {
        wire.send(by_group, "x", MessageGroupId=group, MessageDeduplicationId="d")["MessageId"]
        for group in ("a", "b", "a")
    }
    assert len(ids) == 2


def test_an_attempt_that_is_repeated_gets_the_same(wire: Wire, fifo: str) -> None:
    """Planted: the id passed over: whoever lost an answer waits for the timeout; leases not renewed."""
    for n in range(2):
        wire.send(fifo, str(n), MessageGroupId=str(n), MessageDeduplicationId=str(n))
    attempt = {"ReceiveRequestAttemptId": "a1", "VisibilityTimeout": 10}
    first = wire.receive(fifo, **attempt)
    wire.api.advance(8)
    assert wire.receive(fifo, **attempt) == first
    wire.api.advance(8)
    assert wire.receive(fifo) == []
    wire("DeleteMessage", QueueUrl=fifo, ReceiptHandle=first[0]["ReceiptHandle"])
    assert wire.receive(fifo, **attempt) == first[1:]


def test_an_attempt_is_remembered_for_five_minutes(wire: Wire, fifo: str) -> None:
    """Planted: minutes by another clock than the leases'; each repetition for five minutes more."""
    wire.send(fifo, "x", MessageGroupId="a", MessageDeduplicationId="x")
    attempt = {"ReceiveRequestAttemptId": "a1", "VisibilityTimeout": 400}
    first = wire.receive(fifo, **attempt)
    wire.api.advance(299)
    assert wire.receive(fifo, **attempt) == first
    wire.api.advance(1)
    assert wire.receive(fifo, **attempt) == []


def test_a_group_in_a_standard_queue_is_for_fairness(wire: Wire, url: str) -> None:
    """Planted: it holds up what follows in it."""
    for n in range(2):
        wire.send(url, str(n), MessageGroupId="tenant")
    messages = wire.receive(url, AttributeNames=["MessageGroupId"])
    assert [message["Body"] for message in messages] == ["0", "1"]
    assert messages[0]["Attributes"] == {"MessageGroupId": "tenant"}
