"""DeleteMessage after a message's visibility timeout."""

from __future__ import annotations

from tests.contract.sqs.wire import Wire


def test_the_latest_receipt_deletes_after_its_timeout_too(wire: Wire, url: str) -> None:
    """Planted: a lease that is over keeps the message; any receipt deletes."""
    for change in (None, 0):
        wire.send(url)
        (first,) = wire.receive(url, VisibilityTimeout=2)
        wire.api.advance(3)
        (second,) = wire.receive(url, VisibilityTimeout=2)
        wire("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
        of_second = {"QueueUrl": url, "ReceiptHandle": second["ReceiptHandle"]}
        if change is None:
            wire.api.advance(3)
        else:
            wire("ChangeMessageVisibility", **of_second, VisibilityTimeout=change)
        wire("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
        (third,) = wire.receive(url, VisibilityTimeout=0)
        assert third["MessageId"] == second["MessageId"]
        wire.api.advance(0.001)
        entries = [
            {"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate((second, third))
        ]
        wire("DeleteMessageBatch", QueueUrl=url, Entries=entries)
        assert wire.receive(url) == []
        assert wire("DeleteMessage", QueueUrl=url, ReceiptHandle=third["ReceiptHandle"]) == {}


def test_a_late_delete_in_a_fifo_queue_removes_nothing(wire: Wire, fifo: str) -> None:
    """Planted: as in standard queues."""
    wire.send(fifo, MessageGroupId="a", MessageDeduplicationId="1")
    (first,) = wire.receive(fifo, VisibilityTimeout=2)
    wire.api.advance(3)
    assert wire("DeleteMessage", QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"]) == {}
    assert len(wire.receive(fifo)) == 1


def test_a_late_delete_leaves_what_is_dead(wire: Wire, url: str) -> None:
    """Over HTTP a queue may keep its own dead. Planted: the latest receipt deletes them."""
    assert wire.api("PATCH", "/queues/q", {"max_deliveries": 1}).status_code == 200
    wire.send(url)
    (message,) = wire.receive(url, VisibilityTimeout=2)
    wire.api.advance(3)
    assert wire.receive(url) == []
    assert wire("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]) == {}
    assert wire.api("GET", "/queues/q").json()["dead"] == 1
