"""Messages over SQS: sent, received, hidden and deleted, as the API reference has it."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Any

import pytest

from tests.contract.http.served import settled
from tests.contract.sqs.wire import Wire, text

# --- a life ---------------------------------------------------------------------------------------------


def test_a_life(wire: Wire, url: str) -> None:
    """Planted: the body's MD5 taken of its JSON text."""
    assert url == "http://localhost/000000000000/q"
    sent = wire.send(url, 'hällo "you"\n')
    md5 = hashlib.md5('hällo "you"\n'.encode()).hexdigest()
    assert sent == {"MessageId": sent["MessageId"], "MD5OfMessageBody": md5}
    (message,) = wire.receive(url)
    assert message == {
        "MessageId": sent["MessageId"],
        "ReceiptHandle": message["ReceiptHandle"],
        "MD5OfBody": md5,
        "Body": 'hällo "you"\n',
    }
    assert wire("ReceiveMessage", QueueUrl=url) == {}
    assert wire("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]) == {}
    wire.api.advance(60)
    assert wire.receive(url) == []


@pytest.mark.parametrize("named", ["q", "https://queue.amazonaws.com/123456789012/q", "http://h/q/"])
def test_a_queue_is_named_by_any_url(wire: Wire, url: str, named: str) -> None:
    """Planted: the host of a QueueUrl compared with our own, which a proxy changes."""
    wire.send(named, "x")
    assert wire.bodies(url) == ["x"]


def test_a_queues_url_is_where_the_client_came(wire: Wire) -> None:
    """Planted: the address that the server listens on."""
    answer = wire.json(
        "CreateQueue", {"QueueName": "q"}, host="localhost:81", **{"x-forwarded-proto": "https"}
    )
    assert answer.json()["QueueUrl"] == "https://localhost:81/000000000000/q"


def test_requests_at_the_queues_path(wire: Wire, url: str) -> None:
    """Planted: / alone, where Ruby's and JavaScript's clients never ask."""
    path = "/000000000000/q"
    body = {"QueueUrl": url, "MessageBody": "x"}
    assert wire.json("SendMessage", body, path).status_code == 200
    assert wire.query("ReceiveMessage", path).findtext("ReceiveMessageResult/Message/Body") == "x"


# --- one truth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "body"),
    [("a string", "a string"), ({"a": [1, 2.50]}, '{"a": [1, 2.5]}'), (7, "7"), (None, "null"), ("", "")],
)
def test_what_is_sent_over_http_is_received(wire: Wire, url: str, content: Any, body: str) -> None:
    """Planted: a string with its quotes; any other content written anew."""
    wire.api.send(content, headers={"colour": "red"})
    (message,) = wire.receive(url, MessageAttributeNames=["All"])
    assert message["Body"] == body
    assert message["MessageAttributes"] == {"colour": text("red")}


def test_what_is_sent_over_sqs_is_received_over_http(wire: Wire, url: str) -> None:
    sent = wire.send(url, "é\t", MessageAttributes={"colour": text("red"), "size": text("3", "Number")})
    message = wire.api.receive(lease=5)
    assert message["content"] == "é\t"
    for name in (message["id"], sent["MessageId"]):  # the MessageId is the same id, as a UUID
        assert wire.api("GET", f"/queues/q/messages/{name}").json()["state"] == "leased"
    assert str(uuid.UUID(sent["MessageId"])) == sent["MessageId"]
    assert message["headers"]["colour"] == "red"
    wire("DeleteMessage", QueueUrl=url, ReceiptHandle=message["receipt"])
    assert wire.api.acknowledge(message["receipt"]).status_code == 410


def test_settings_over_http_count_here(wire: Wire, url: str) -> None:
    """Planted: VisibilityTimeout kept beside the queue's lease_seconds."""
    assert wire.api("PATCH", "/queues/q", {"lease_seconds": 7}).status_code == 200
    assert wire("GetQueueAttributes", QueueUrl=url, AttributeNames=["VisibilityTimeout"]) == {
        "Attributes": {"VisibilityTimeout": "7"}
    }
    wire.send(url)
    wire.receive(url)
    wire.api.advance(6)
    assert wire.receive(url) == []
    wire.api.advance(2)
    assert len(wire.receive(url)) == 1


# --- attributes of messages -----------------------------------------------------------------------------


def test_attributes_and_their_md5(wire: Wire, url: str) -> None:
    """Planted: the digest of attributes in the order in which they came."""
    attributes = {
        "b": {"DataType": "Binary.png", "BinaryValue": "AAEC"},
        "a": text("1.5", "Number.float"),
        "c": text("x"),
    }
    sent = wire.send(url, MessageAttributes=attributes)
    (message,) = wire.receive(url, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == attributes
    packed = b""
    for name, kind, mark, value in (
        (b"a", b"Number.float", b"\1", b"1.5"),
        (b"b", b"Binary.png", b"\2", b"\0\1\2"),
        (b"c", b"String", b"\1", b"x"),
    ):
        packed += b"".join(len(part).to_bytes(4) + part for part in (name, kind))
        packed += mark + len(value).to_bytes(4) + value
    assert sent["MD5OfMessageAttributes"] == message["MD5OfMessageAttributes"]
    assert sent["MD5OfMessageAttributes"] == hashlib.md5(packed).hexdigest()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], None),
        (["a.x"], ["a.x"]),
        (["a.*"], ["a.x", "a.y"]),
        (["All"], ["a.x", "a.y", "b"]),
        ([".*"], ["a.x", "a.y", "b"]),
        (["*"], ["a.x", "a.y", "b"]),
        (["a..*", "..b", "AWS.", "a b", ""], ["a.x", "a.y"]),
        (["a"], None),
        (["b.*"], ["b"]),
        (["b", "none"], ["b"]),
        (["none"], None),
    ],
)
def test_attributes_are_selected(wire: Wire, url: str, names: list[str], found: list[str] | None) -> None:
    """Planted: a digest over all of them; a prefix with its dot; names that nothing can have are refused."""
    wire.send(url, MessageAttributes={name: text("1") for name in ("a.x", "a.y", "b")})
    (message,) = wire.receive(url, MessageAttributeNames=names)
    assert (sorted(message["MessageAttributes"]) if "MessageAttributes" in message else None) == found
    assert ("MD5OfMessageAttributes" in message) is (found is not None)


def test_system_attributes(wire: Wire, url: str) -> None:
    """Planted: the count of deliveries before this one; the first receive of the last."""
    wire.send(url, MessageSystemAttributes={"AWSTraceHeader": text("Root=1")})
    start = str(wire.api.clock.now())
    (first,) = wire.receive(url, AttributeNames=["All"], VisibilityTimeout=5)
    assert first["Attributes"] == {
        "SenderId": "000000000000",
        "SentTimestamp": start,
        "ApproximateReceiveCount": "1",
        "ApproximateFirstReceiveTimestamp": start,
        "AWSTraceHeader": "Root=1",
    }
    assert "MessageAttributes" not in first
    wire.api.advance(10)
    (again,) = wire.receive(url, MessageSystemAttributeNames=["All"])
    assert again["Attributes"] == {**first["Attributes"], "ApproximateReceiveCount": "2"}
    assert wire.refused("ReceiveMessage", QueueUrl=url, AttributeNames=["Nope"])[1] == "InvalidAttributeName"


def test_an_attribute_of_queues_that_the_reference_lists_is_of_no_message(wire: Wire, url: str) -> None:
    """Planted: it is refused as unknown."""
    wire.send(url)
    (message,) = wire.receive(url, AttributeNames=["SqsManagedSseEnabled", "ApproximateReceiveCount"])
    assert message["Attributes"] == {"ApproximateReceiveCount": "1"}


# --- visibility and time --------------------------------------------------------------------------------


def test_visibility(wire: Wire, url: str) -> None:
    """Planted: a timeout that is added to what was left; a stale receipt that changes another's lease."""
    wire.send(url)
    (first,) = wire.receive(url, VisibilityTimeout=10)
    change = {"QueueUrl": url, "ReceiptHandle": first["ReceiptHandle"]}
    assert wire("ChangeMessageVisibility", **change, VisibilityTimeout=2) == {}
    wire.api.advance(3)
    (second,) = wire.receive(url, VisibilityTimeout=10)
    in_flight = (400, "MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight")
    assert wire.refused("ChangeMessageVisibility", **change, VisibilityTimeout=5) == in_flight
    assert wire.refused("ChangeMessageVisibility", **change, VisibilityTimeout=0) == in_flight
    assert wire("DeleteMessage", **change) == {}  # stale: answered, and nothing is removed
    change["ReceiptHandle"] = second["ReceiptHandle"]
    assert wire("ChangeMessageVisibility", **change, VisibilityTimeout=0) == {}
    (third,) = wire.receive(url)
    change["ReceiptHandle"] = third["ReceiptHandle"]
    assert wire("DeleteMessage", **change) == {}
    assert wire("DeleteMessage", **change) == {}
    for timeout in (5, 0):
        refused = wire.refused("ChangeMessageVisibility", **change, VisibilityTimeout=timeout)
        assert refused == (400, "InvalidParameterValue", "InvalidParameterValue")


def test_no_timeout_at_all(wire: Wire, url: str) -> None:
    """A VisibilityTimeout of 0 hides nothing. Planted: it is taken for the queue's own."""
    wire.send(url)
    assert len(wire.receive(url, VisibilityTimeout=0)) == 1
    wire.api.advance(0.001)
    assert len(wire.receive(url)) == 1
    none = wire.create("none", VisibilityTimeout="0")
    wire.send(none)
    assert len(wire.receive(none)) == 1
    wire.api.advance(0.001)
    assert len(wire.receive(none)) == 1


def test_delays(wire: Wire) -> None:
    """Planted: a message's own 0 that gives way to the queue's delay."""
    url = wire.create("q", DelaySeconds="5")
    wire.send(url, "later")
    wire.send(url, "now", DelaySeconds=0)
    wire.send(url, "last", DelaySeconds=900)
    assert wire.bodies(url) == ["now"]
    wire.api.advance(5)
    assert wire.bodies(url) == ["later"]
    wire("SetQueueAttributes", QueueUrl=url, Attributes={"DelaySeconds": "0"})
    wire.send(url, "at once")
    assert wire.bodies(url) == ["at once"]


def test_a_long_poll_is_woken(wire: Wire, url: str) -> None:
    """Planted: WaitTimeSeconds of a request or of the queue passed over."""
    wire("SetQueueAttributes", QueueUrl=url, Attributes={"ReceiveMessageWaitTimeSeconds": "20"})

    async def scenario(**wait: Any) -> Any:
        headers = {"x-amz-target": "AmazonSQS.ReceiveMessage"}
        ask = wire.api.ask("POST", "/", {"QueueUrl": url, **wait}, headers=headers)
        receiving = asyncio.ensure_future(ask)
        await settled(lambda: wire.api.app.queues.lines.waiting("q"))
        await wire.api.app.store.send("q", [b'"woken"'])
        return (await receiving).json()["Messages"][0]["Body"]

    assert wire.api.run(scenario()) == "woken"
    wire("SetQueueAttributes", QueueUrl=url, Attributes={"ReceiveMessageWaitTimeSeconds": "0"})
    assert wire.api.run(scenario(WaitTimeSeconds=20)) == "woken"


# --- batches --------------------------------------------------------------------------------------------


def test_batches(wire: Wire, url: str) -> None:
    """Planted: one bad entry that fails all; Failed left out where there is none."""
    entries = [
        {"Id": "a", "MessageBody": "1"},
        {"Id": "b", "MessageBody": ""},
        {"Id": "c", "MessageBody": "2", "DelaySeconds": 901},
        {"Id": "d", "MessageBody": "3", "MessageAttributes": {"n": text("4", "Number")}},
    ]
    sent = wire("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert [each["Id"] for each in sent["Successful"]] == ["a", "d"]
    assert [(each["Id"], each["Code"], each["SenderFault"]) for each in sent["Failed"]] == [
        ("b", "MissingParameter", True),
        ("c", "InvalidParameterValue", True),
    ]
    messages = wire.receive(url, MessageAttributeNames=["All"])
    assert [message["Body"] for message in messages] == ["1", "3"]
    receipts = [message["ReceiptHandle"] for message in messages]
    changes = [
        {"Id": "a", "ReceiptHandle": receipts[0], "VisibilityTimeout": 0},
        {"Id": "b", "ReceiptHandle": "nonsense", "VisibilityTimeout": 0},
        {"Id": "c", "ReceiptHandle": receipts[1]},
        {"Id": "d", "ReceiptHandle": receipts[1], "VisibilityTimeout": 60},
    ]
    changed = wire("ChangeMessageVisibilityBatch", QueueUrl=url, Entries=changes)
    assert changed["Successful"] == [{"Id": "a"}, {"Id": "d"}]
    assert [each["Code"] for each in changed["Failed"]] == ["ReceiptHandleIsInvalid", "MissingParameter"]
    (again,) = wire.receive(url)
    deletes = [
        {"Id": "a", "ReceiptHandle": again["ReceiptHandle"]},
        {"Id": "b", "ReceiptHandle": receipts[0]},
        {"Id": "c", "ReceiptHandle": "nonsense"},
        {"Id": "d", "ReceiptHandle": receipts[1]},
    ]
    deleted = wire("DeleteMessageBatch", QueueUrl=url, Entries=deletes)
    assert [each["Id"] for each in deleted["Successful"]] == ["a", "b", "d"]
    assert [each["Code"] for each in deleted["Failed"]] == ["ReceiptHandleIsInvalid"]
    wire.api.advance(3600)
    assert wire.receive(url) == []
    all_bad = wire("SendMessageBatch", QueueUrl=url, Entries=[{"Id": "a", "MessageBody": ""}])
    assert (all_bad["Successful"], len(all_bad["Failed"])) == ([], 1)


@pytest.mark.parametrize("action", ["SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"])
@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ([], "EmptyBatchRequest"),
        ([str(n) for n in range(11)], "TooManyEntriesInBatchRequest"),
        (["a", "a"], "BatchEntryIdsNotDistinct"),
        (["a b"], "InvalidBatchEntryId"),
        ([""], "InvalidBatchEntryId"),
        (["a" * 81], "InvalidBatchEntryId"),
    ],
)
def test_what_is_no_batch(wire: Wire, url: str, action: str, ids: list[str], name: str) -> None:
    entries = [{"Id": each, "MessageBody": "x", "ReceiptHandle": "x", "VisibilityTimeout": 1} for each in ids]
    refused = wire.refused(action, QueueUrl=url, Entries=entries)
    assert refused == (400, name, f"AWS.SimpleQueueService.{name}")


# --- sizes and characters -------------------------------------------------------------------------------


def test_sizes_are_counted_in_bytes_of_body_and_attributes(wire: Wire) -> None:
    """Planted: characters counted; the body's JSON text, whose quotes are escaped; attributes for nothing."""
    url = wire.create("q", MaximumMessageSize="1024")
    for body in ("x" * 1024, '"' * 1024, "é" * 512, "\n" * 1024):
        wire.send(url, body)
        assert wire.bodies(url) == [body]
    wire.send(url, "x" * 1016, MessageAttributes={"n": text("1")})
    for body, attributes in (
        ("x" * 1025, {}),
        ("é" * 513, {}),
        ("x" * 1017, {"n": text("1")}),
    ):
        refused = wire.refused("SendMessage", QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
        assert refused[:2] == (400, "InvalidParameterValue")


def test_the_largest_batch(wire: Wire, url: str) -> None:
    """Planted: a limit for each message and none for their sum; 413, which no client knows."""
    largest = "x" * (1024 * 1024)
    wire.send(url, largest)
    assert wire.bodies(url) == [largest]
    entries = [{"Id": str(n), "MessageBody": "x" * 104_857} for n in range(10)]
    assert len(wire("SendMessageBatch", QueueUrl=url, Entries=entries)["Successful"]) == 10
    too_long = (400, "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong")
    for size in (104_858, 1024 * 1024):
        entries = [{"Id": str(n), "MessageBody": "x" * size} for n in range(10)]
        assert wire.refused("SendMessageBatch", QueueUrl=url, Entries=entries) == too_long


def test_what_fails_in_a_batch_counts_in_its_size(wire: Wire, url: str) -> None:
    """Planted defect: the sum of what may be sent, so of two megabytes one is sent."""
    entries = [{"Id": "a", "MessageBody": "x"}, {"Id": "b", "MessageBody": "x" * (1024 * 1024)}]
    refused = wire.refused("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert refused[1] == "BatchRequestTooLong"
    entries[1]["MessageAttributes"] = {"n": text("x" * 1024 * 1024)}  # type: ignore[assignment]
    entries[1]["MessageBody"] = ""
    assert wire.refused("SendMessageBatch", QueueUrl=url, Entries=entries)[1] == "BatchRequestTooLong"
    assert wire.receive(url) == []


def test_a_trace_header_is_no_way_around_the_largest_size(wire: Wire, url: str) -> None:
    """Planted defect: what counts as nothing may be of any size."""
    trace = {"AWSTraceHeader": text("x" * (1024 * 1024 + 1))}
    refused = wire.refused("SendMessage", QueueUrl=url, MessageBody="x", MessageSystemAttributes=trace)
    assert refused[1] == "InvalidParameterValue"


@pytest.mark.parametrize("character", ["\0", "\x08", "\x1f", "\ufffe", "\uffff"])
def test_characters_that_no_body_has(wire: Wire, url: str, character: str) -> None:
    refused = wire.refused("SendMessage", QueueUrl=url, MessageBody=f"a{character}")
    assert refused == (400, "InvalidMessageContents", "InvalidMessageContents")


@pytest.mark.parametrize(
    "character", ["\t", "\n", "\r", " ", "\x7f", "\ud7ff", "\ue000", "\ufffd", "\U0010ffff"]
)
def test_characters_that_any_body_may_have(wire: Wire, url: str, character: str) -> None:
    """In XML too. Planted: a carriage return that XML's readers make a line feed of."""
    wire.send(url, f"a{character}b")
    found = wire.query("ReceiveMessage", QueueUrl=url).findtext("ReceiveMessageResult/Message/Body")
    assert found == f"a{character}b"


def test_what_xml_cannot_carry_stays(wire: Wire, url: str) -> None:
    """Planted: it is taken by the answer that cannot tell of it; others are kept back with it."""
    wire.api.send("bad \u0007")
    assert wire.refused_query("ReceiveMessage", QueueUrl=url) == (400, "InvalidMessageContents")
    wire.api.send("good")
    found = wire.query("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages="10")
    assert [each.text for each in found.iter("Body")] == ["good"]
    assert wire.bodies(url) == ["bad \u0007"]
