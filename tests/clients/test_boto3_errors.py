"""boto3: the errors that a client can meet, by their class in boto3 and by their code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import model
from tests.clients.proofs import BOTO3, proves
from tests.clients.site import Site, attribute, new_name, new_queue, receive

pytestmark = pytest.mark.storm

NO_ARN = "arn:aws:sqs:us-east-1:000000000000:never"
OLD = "AWS.SimpleQueueService."
HELLO = {"MessageBody": "hello"}
FIFO_HELLO = HELLO | {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
TWENTY_ONE = '{"Statement":[' + ",".join(["{}"] * 21) + "]}"
"""A policy with a statement too many."""
GRANT: dict[str, Any] = {"Label": "shop", "AWSAccountIds": ["111122223333"], "Actions": ["SendMessage"]}
RECEIPT = {"ReceiptHandle": "none"}


def entries(count: int, **more: Any) -> dict[str, Any]:
    """A batch whose entries are the same but for their ids."""
    return {"Entries": [{"Id": str(n), **more} for n in range(count)]}


OF_QUEUE: dict[str, dict[str, Any]] = {
    "AddPermission": GRANT,
    "ChangeMessageVisibility": RECEIPT | {"VisibilityTimeout": 1},
    "ChangeMessageVisibilityBatch": entries(1, **RECEIPT, VisibilityTimeout=1),
    "DeleteMessage": RECEIPT,
    "DeleteMessageBatch": entries(1, **RECEIPT),
    "DeleteQueue": {},
    "GetQueueAttributes": {"AttributeNames": ["All"]},
    "ListDeadLetterSourceQueues": {},
    "ListQueueTags": {},
    "PurgeQueue": {},
    "ReceiveMessage": {},
    "RemovePermission": {"Label": "shop"},
    "SendMessage": HELLO,
    "SendMessageBatch": entries(1, **HELLO),
    "SetQueueAttributes": {"Attributes": {"DelaySeconds": "1"}},
    "TagQueue": {"Tags": {"a": "b"}},
    "UntagQueue": {"TagKeys": ["a"]},
}
"""The actions that are about one queue, and what else they need."""


@pytest.fixture(scope="module")
def raw(site: Site) -> Any:
    """A client of boto3 that sends what it would itself refuse."""
    return site.client(parameter_validation=False)


def refused(client: Any, action: str, error: str, code: str, **parameters: Any) -> None:
    """`action` fails with `code`; boto3 has a class of `error` where SQS's model has it."""
    methods = client.meta.method_to_api_mapping
    method = next(name for name, api in methods.items() if api == action)
    kind = getattr(client.exceptions, error) if error in _SHAPES else client.exceptions.ClientError
    with pytest.raises(kind) as caught:
        getattr(client, method)(**parameters)
    told = caught.value.response
    assert told["Error"]["Code"] == code
    assert told["Error"]["Message"]
    assert 400 <= told["ResponseMetadata"]["HTTPStatusCode"] < 500


_SHAPES = {error for action in model.actions().values() for error in action.errors}


def test_every_action_about_a_queue_is_in_the_table() -> None:
    about = {name for name, action in model.actions().items() if "QueueUrl" in action.parameters}
    assert about == set(OF_QUEUE)


@pytest.mark.parametrize(
    "action", [pytest.param(a, marks=proves(BOTO3, **{a: "!QueueDoesNotExist"})) for a in OF_QUEUE]
)
def test_a_queue_that_is_not_there(sqs: Any, site: Site, action: str) -> None:
    url = f"{site.url}/000000000000/{new_name('never')}"
    refused(sqs, action, "QueueDoesNotExist", OLD + "NonExistentQueue", QueueUrl=url, **OF_QUEUE[action])


@proves(BOTO3, GetQueueUrl="!QueueDoesNotExist")
def test_the_url_of_a_queue_that_is_not_there(sqs: Any) -> None:
    refused(sqs, "GetQueueUrl", "QueueDoesNotExist", OLD + "NonExistentQueue", QueueName=new_name("never"))


def _batches() -> Iterator[Any]:
    of_batches: dict[str, dict[str, Any]] = {
        "SendMessageBatch": HELLO,
        "DeleteMessageBatch": RECEIPT,
        "ChangeMessageVisibilityBatch": RECEIPT | {"VisibilityTimeout": 1},
    }
    for action, entry in of_batches.items():
        twins = {"Entries": [{"Id": "a", **entry}, {"Id": "a", **entry}]}
        cases: list[tuple[str, dict[str, Any]]] = [
            ("EmptyBatchRequest", {"Entries": []}),
            ("TooManyEntriesInBatchRequest", entries(11, **entry)),
            ("BatchEntryIdsNotDistinct", twins),
            ("InvalidBatchEntryId", {"Entries": [{"Id": "a b", **entry}]}),
            ("InvalidBatchEntryId", {"Entries": [{"Id": "a" * 81, **entry}]}),
            ("InvalidBatchEntryId", {"Entries": [{"Id": "", **entry}]}),
        ]
        for error, parameters in cases:
            yield pytest.param(action, error, parameters, marks=proves(BOTO3, **{action: f"!{error}"}))


@pytest.mark.parametrize(("action", "error", "parameters"), list(_batches()))
def test_a_batch_that_is_none(raw: Any, queue: str, action: str, error: str, parameters: Any) -> None:
    refused(raw, action, error, OLD + error, QueueUrl=queue, **parameters)


def case(action: str, error: str, id_: str, **parameters: Any) -> Any:
    return pytest.param(action, error, parameters, marks=proves(BOTO3, **{action: f"!{error}"}), id=id_)


INVALID = "InvalidParameterValue"
CODES = {"UnsupportedOperation": OLD + "UnsupportedOperation"}
"""Of the errors below, those whose code is another than their name."""
OF_STANDARD = [
    case("SendMessage", "InvalidMessageContents", "nul", MessageBody="a\0b"),
    case("SendMessage", "InvalidMessageContents", "ffff", MessageBody="a\uffffb"),
    case("SendMessage", "InvalidMessageContents", "escape", MessageBody="a\x1bb"),
    case("SendMessage", "MissingParameter", "empty", MessageBody=""),
    case("SendMessage", "MissingParameter", "bodiless"),
    case("SendMessage", INVALID, "too-long", MessageBody="x" * 1_048_577),
    case("SendMessage", INVALID, "delay-901", MessageBody="x", DelaySeconds=901),
    case("SendMessage", INVALID, "delay-below-0", MessageBody="x", DelaySeconds=-1),
    case("SendMessage", INVALID, "group-of-129", MessageBody="x", MessageGroupId="g" * 129),
    *(
        case("SendMessage", INVALID, f"attribute-{what}", MessageBody="x", MessageAttributes=attributes)
        for what, attributes in {
            "name-reserved": {"AWS.x": {"DataType": "String", "StringValue": "x"}},
            "name-reserved-too": {"amazon.x": {"DataType": "String", "StringValue": "x"}},
            "name-with-space": {"a b": {"DataType": "String", "StringValue": "x"}},
            "name-with-dots": {"a..b": {"DataType": "String", "StringValue": "x"}},
            "name-of-257": {"a" * 257: {"DataType": "String", "StringValue": "x"}},
            "type-unknown": {"a": {"DataType": "Boolean", "StringValue": "x"}},
            "type-empty": {"a": {"DataType": "", "StringValue": "x"}},
            "value-empty": {"a": {"DataType": "String", "StringValue": ""}},
            "value-none": {"a": {"DataType": "String"}},
            "value-no-number": {"a": {"DataType": "Number", "StringValue": "seven"}},
            "value-no-text": {"a": {"DataType": "String", "StringValue": "\0"}},
            "value-of-other-type": {"a": {"DataType": "Binary", "StringValue": "x"}},
            "eleven": {f"a{n}": {"DataType": "String", "StringValue": "x"} for n in range(11)},
        }.items()
    ),
    *(
        case("SendMessage", INVALID, f"system-{what}", MessageBody="x", MessageSystemAttributes=attributes)
        for what, attributes in {
            "unknown": {"SenderId": {"DataType": "String", "StringValue": "x"}},
            "no-string": {"AWSTraceHeader": {"DataType": "Number", "StringValue": "1"}},
        }.items()
    ),
    *(
        pytest.param(
            "SendMessage",
            "UnsupportedOperation",
            {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "String", name: ["x"]}}},
            marks=proves(BOTO3, SendMessage=f"MessageAttributes.{name} !UnsupportedOperation"),
            id=name,
        )
        for name in ("StringListValues", "BinaryListValues")
    ),
    case("ReceiveMessage", INVALID, "none", MaxNumberOfMessages=0),
    case("ReceiveMessage", INVALID, "eleven", MaxNumberOfMessages=11),
    case("ReceiveMessage", INVALID, "wait-21", WaitTimeSeconds=21),
    case("ReceiveMessage", INVALID, "visibility-43201", VisibilityTimeout=43_201),
    case("ReceiveMessage", INVALID, "visibility-below-0", VisibilityTimeout=-1),
    case("ReceiveMessage", "InvalidAttributeName", "name-unknown", AttributeNames=["Color"]),
    case("DeleteMessage", "ReceiptHandleIsInvalid", "no-receipt", ReceiptHandle="none"),
    case("DeleteMessage", "MissingParameter", "without-receipt"),
    case("ChangeMessageVisibility", "ReceiptHandleIsInvalid", "no-receipt", VisibilityTimeout=1, **RECEIPT),
    case("ChangeMessageVisibility", "MissingParameter", "without-timeout", **RECEIPT),
    case("GetQueueAttributes", "InvalidAttributeName", "name-unknown", AttributeNames=["Color"]),
    case("SetQueueAttributes", "InvalidAttributeName", "name-unknown", Attributes={"Color": "red"}),
    case("SetQueueAttributes", "InvalidAttributeName", "read-only", Attributes={"QueueArn": "x"}),
    case("SetQueueAttributes", "InvalidAttributeName", "fifo-afterwards", Attributes={"FifoQueue": "true"}),
    *(
        case(
            "SetQueueAttributes",
            "InvalidAttributeValue",
            f"{name}-{value or 'empty'}",
            Attributes={name: value},
        )
        for name, values in {
            "DelaySeconds": ("901", "-1", "x", ""),
            "MaximumMessageSize": ("1023", "1048577"),
            "MessageRetentionPeriod": ("59", "1209601"),
            "ReceiveMessageWaitTimeSeconds": ("21",),
            "VisibilityTimeout": ("43201", "1.5"),
            "Policy": ("{",),
            "RedriveAllowPolicy": ("[]",),
        }.items()
        for value in values
    ),
    *(
        case("SetQueueAttributes", INVALID, f"redrive-{what}", Attributes={"RedrivePolicy": policy})
        for what, policy in {
            "no-json": "{",
            "without-count": f'{{"deadLetterTargetArn": "{NO_ARN}"}}',
            "count-0": f'{{"deadLetterTargetArn": "{NO_ARN}", "maxReceiveCount": 0}}',
            "to-nowhere": f'{{"deadLetterTargetArn": "{NO_ARN}", "maxReceiveCount": 1}}',
        }.items()
    ),
    case("SetQueueAttributes", "OverLimit", "statements-21", Attributes={"Policy": TWENTY_ONE}),
    case("AddPermission", "OverLimit", "eight-actions", **GRANT | {"Actions": ["SendMessage"] * 8}),
    case("AddPermission", INVALID, "action-unknown", **GRANT | {"Actions": ["Dance"]}),
    case("AddPermission", INVALID, "label-with-space", **GRANT | {"Label": "a b"}),
    case("RemovePermission", INVALID, "label-unknown", Label="never"),
    case("ListDeadLetterSourceQueues", INVALID, "token", NextToken="never", MaxResults=1),
    case("ListDeadLetterSourceQueues", INVALID, "results-1001", MaxResults=1001),
    case("TagQueue", INVALID, "fifty-one", Tags={str(n): "x" for n in range(51)}),
    case("TagQueue", INVALID, "key-of-129", Tags={"k" * 129: "x"}),
    case("TagQueue", INVALID, "value-of-257", Tags={"k": "x" * 257}),
]


@pytest.mark.parametrize(("action", "error", "parameters"), OF_STANDARD)
def test_what_a_queue_refuses(
    raw: Any, queue: str, action: str, error: str, parameters: dict[str, Any]
) -> None:
    refused(raw, action, error, CODES.get(error, error), QueueUrl=queue, **parameters)


OF_FIFO = [
    case("SendMessage", "MissingParameter", "without-group", **HELLO, MessageDeduplicationId="d"),
    case("SendMessage", INVALID, "without-dedup", **HELLO, MessageGroupId="g"),
    case("SendMessage", INVALID, "delay", **FIFO_HELLO, DelaySeconds=1),
    case("SendMessage", INVALID, "dedup-of-129", **FIFO_HELLO | {"MessageDeduplicationId": "d" * 129}),
    case("SendMessage", INVALID, "dedup-with-space", **FIFO_HELLO | {"MessageDeduplicationId": "a b"}),
    case("SendMessage", INVALID, "group-with-space", **FIFO_HELLO | {"MessageGroupId": "a b"}),
    case("ReceiveMessage", INVALID, "attempt-with-space", ReceiveRequestAttemptId="a b"),
]


@pytest.mark.parametrize(("action", "error", "parameters"), OF_FIFO)
def test_what_a_fifo_queue_refuses(
    raw: Any, fifo: str, action: str, error: str, parameters: dict[str, Any]
) -> None:
    refused(raw, action, error, error, QueueUrl=fifo, **parameters)


NO_QUEUE = [
    case("CreateQueue", INVALID, "name-with-space", QueueName="a b"),
    case("CreateQueue", INVALID, "name-of-81", QueueName="a" * 81),
    case("CreateQueue", INVALID, "name-empty", QueueName=""),
    case("CreateQueue", "MissingParameter", "nameless"),
    case("CreateQueue", INVALID, "fifo-by-name-alone", QueueName="a.fifo"),
    case("CreateQueue", INVALID, "fifo-not-by-name", QueueName="a", Attributes={"FifoQueue": "true"}),
    case("CreateQueue", "InvalidAttributeName", "name-unknown", QueueName="a", Attributes={"Color": "red"}),
    case("CreateQueue", "InvalidAttributeValue", "delay", QueueName="a", Attributes={"DelaySeconds": "901"}),
    case("ListQueues", INVALID, "token", NextToken="never", MaxResults=1),
    case("ListQueues", INVALID, "results-0", MaxResults=0),
    case("ListQueues", INVALID, "results-1001", MaxResults=1001),
]


@pytest.mark.parametrize(("action", "error", "parameters"), NO_QUEUE)
def test_what_is_refused_without_a_queue(
    raw: Any, action: str, error: str, parameters: dict[str, Any]
) -> None:
    refused(raw, action, error, error, **parameters)


@proves(BOTO3, CreateQueue="!QueueNameExists")
def test_a_name_that_is_taken_by_another_queue(sqs: Any) -> None:
    name = new_name()
    sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "1"})
    other = {"DelaySeconds": "2"}
    refused(sqs, "CreateQueue", "QueueNameExists", "QueueAlreadyExists", QueueName=name, Attributes=other)


@proves(BOTO3, ChangeMessageVisibility="!MessageNotInflight !InvalidParameterValue")
def test_a_message_that_is_not_in_flight(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue)
    of = {"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"]}
    refused(sqs, "ChangeMessageVisibility", INVALID, INVALID, **of, VisibilityTimeout=43_201)
    refused(sqs, "ChangeMessageVisibility", INVALID, INVALID, **of, VisibilityTimeout=-1)
    sqs.change_message_visibility(**of, VisibilityTimeout=0)
    refused(
        sqs, "ChangeMessageVisibility", "MessageNotInflight", OLD + "MessageNotInflight",
        **of, VisibilityTimeout=1,
    )  # fmt: skip


@proves(BOTO3, DeleteMessage="!ReceiptHandleIsInvalid")
def test_a_receipt_of_another_queue_deletes_nothing(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(sqs, queue)
    other = new_queue(sqs)
    with pytest.raises(sqs.exceptions.ClientError):
        sqs.delete_message(QueueUrl=other, ReceiptHandle=message["ReceiptHandle"])
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "1"


@proves(BOTO3, AddPermission="!InvalidParameterValue")
def test_a_label_is_of_one_permission(sqs: Any, queue: str) -> None:
    sqs.add_permission(QueueUrl=queue, **GRANT)
    refused(sqs, "AddPermission", INVALID, INVALID, QueueUrl=queue, **GRANT)
