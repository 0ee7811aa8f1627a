"""The AWS CLI as somebody at a terminal has it: JSON on stdout, a word and a status where it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients import md5
from tests.clients.proofs import CLI, each, proves
from tests.clients.site import Site, new_name

pytestmark = pytest.mark.storm

AWS = Path(sys.executable).with_name("aws")
SERVICE_ERROR, USAGE_ERROR = 255, 2
"""What the AWS CLI ends with where the server, and where its own parser, says no."""


class Cli:
    """`aws sqs …` against a server."""

    def __init__(self, site: Site) -> None:
        self._url = site.url
        self._environment = site.environment | {"AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AWS, "sqs", *arguments, "--endpoint-url", self._url, "--output", "json"],
            env=self._environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> Any:
        """What it prints, None where that is nothing; AssertionError where it fails."""
        ran = self.run(*arguments)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout) if ran.stdout.strip() else None


@pytest.fixture(scope="module")
def aws(site: Site) -> Cli:
    return Cli(site)


@pytest.fixture
def url(aws: Cli) -> str:
    """The URL of a new queue."""
    made: str = aws("create-queue", "--queue-name", new_name("cli"))["QueueUrl"]
    return made


def receive(aws: Cli, url: str, *more: str) -> list[dict[str, Any]]:
    arguments = ["--queue-url", url, "--max-number-of-messages", "10", "--wait-time-seconds", "20", *more]
    answer = aws("receive-message", *arguments)
    found: list[dict[str, Any]] = (answer or {}).get("Messages", [])
    return found


@proves(
    CLI,
    CreateQueue="QueueName Attributes.DelaySeconds tags",
    GetQueueUrl="QueueName",
    ListQueues="QueueNamePrefix",
    ListQueueTags="QueueUrl",
    DeleteQueue="QueueUrl",
)
def test_a_queues_life(aws: Cli) -> None:
    name = new_name("cli")
    made = aws("create-queue", "--queue-name", name, "--attributes", "DelaySeconds=0", "--tags", "team=shop")
    url = made["QueueUrl"]
    assert aws("get-queue-url", "--queue-name", name)["QueueUrl"] == url
    assert aws("list-queues", "--queue-name-prefix", name)["QueueUrls"] == [url]
    assert aws("list-queue-tags", "--queue-url", url)["Tags"] == {"team": "shop"}
    assert aws("delete-queue", "--queue-url", url) is None
    assert aws.run("get-queue-url", "--queue-name", name).returncode == SERVICE_ERROR


@proves(
    CLI,
    SendMessage="QueueUrl MessageBody DelaySeconds " + each("MessageAttributes", "DataType", "StringValue"),
    ReceiveMessage="QueueUrl MaxNumberOfMessages WaitTimeSeconds MessageAttributeNames"
    " AttributeNames.All VisibilityTimeout",
    ChangeMessageVisibility="QueueUrl ReceiptHandle VisibilityTimeout",
    DeleteMessage="QueueUrl ReceiptHandle",
)
def test_a_messages_life(aws: Cli, url: str) -> None:
    attributes = {"color": {"DataType": "String", "StringValue": "röt"}}
    sent = aws(
        "send-message", "--queue-url", url, "--message-body", "größer <&>", "--delay-seconds", "0",
        "--message-attributes", json.dumps(attributes),
    )  # fmt: skip
    assert sent["MD5OfMessageBody"] == md5.of_body("größer <&>")
    assert sent["MD5OfMessageAttributes"] == md5.of_attributes(attributes)
    asked = ("--message-attribute-names", "All", "--attribute-names", "All", "--visibility-timeout", "600")
    [message] = receive(aws, url, *asked)
    assert message["Body"] == "größer <&>"
    assert message["MessageAttributes"] == attributes
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    receipt = ("--queue-url", url, "--receipt-handle", message["ReceiptHandle"])
    aws("change-message-visibility", *receipt, "--visibility-timeout", "0")
    [message] = receive(aws, url)
    receipt = ("--queue-url", url, "--receipt-handle", message["ReceiptHandle"])
    assert aws("delete-message", *receipt) is None
    assert aws("receive-message", "--queue-url", url) is None


@proves(
    CLI,
    SendMessageBatch="QueueUrl " + each("Entries", "Id", "MessageBody") + " !InvalidMessageContents",
    ChangeMessageVisibilityBatch="QueueUrl " + each("Entries", "Id", "ReceiptHandle", "VisibilityTimeout"),
    DeleteMessageBatch="QueueUrl " + each("Entries", "Id", "ReceiptHandle"),
)
def test_batches(aws: Cli, url: str) -> None:
    bodies = [("a", "A"), ("b", "B"), ("bad", "\1")]
    entries = [{"Id": name, "MessageBody": body} for name, body in bodies]
    sent = aws("send-message-batch", "--queue-url", url, "--entries", json.dumps(entries))
    assert [each["Id"] for each in sent["Successful"]] == ["a", "b"]
    assert [(each["Id"], each["Code"]) for each in sent["Failed"]] == [("bad", "InvalidMessageContents")]
    found: list[dict[str, Any]] = []
    while len(found) < 2:
        found += receive(aws, url) or pytest.fail("a message did not come")
    receipts = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(found)]
    changes = [each | {"VisibilityTimeout": 600} for each in receipts]
    changed = aws("change-message-visibility-batch", "--queue-url", url, "--entries", json.dumps(changes))
    assert [each["Id"] for each in changed["Successful"]] == ["0", "1"]
    deleted = aws("delete-message-batch", "--queue-url", url, "--entries", json.dumps(receipts))
    assert [each["Id"] for each in deleted["Successful"]] == ["0", "1"]


@proves(
    CLI,
    CreateQueue="Attributes.FifoQueue Attributes.ContentBasedDeduplication",
    SendMessage="MessageGroupId MessageDeduplicationId",
    ReceiveMessage=each("MessageSystemAttributeNames", "SequenceNumber", "MessageGroupId"),
)
def test_a_fifo_queue(aws: Cli) -> None:
    attributes = "FifoQueue=true,ContentBasedDeduplication=true"
    name = new_name("cli") + ".fifo"
    url = aws("create-queue", "--queue-name", name, "--attributes", attributes)["QueueUrl"]
    group: Sequence[str] = ("--queue-url", url, "--message-group-id", "g")
    first = aws("send-message", *group, "--message-body", "a")
    same = aws("send-message", *group, "--message-body", "a")
    aws("send-message", *group, "--message-body", "a", "--message-deduplication-id", "other")
    assert first["SequenceNumber"] == same["SequenceNumber"]
    names = ("SequenceNumber", "MessageGroupId")
    found = receive(aws, url, "--message-system-attribute-names", *names)
    assert found[0]["Body"] == "a"
    assert found[0]["Attributes"] == {"SequenceNumber": first["SequenceNumber"], "MessageGroupId": "g"}


@proves(
    CLI,
    SetQueueAttributes="QueueUrl Attributes.VisibilityTimeout Attributes.RedrivePolicy",
    GetQueueAttributes="QueueUrl AttributeNames.QueueArn AttributeNames.VisibilityTimeout",
    TagQueue="QueueUrl Tags",
    UntagQueue="QueueUrl TagKeys",
    ListDeadLetterSourceQueues="QueueUrl",
    AddPermission="QueueUrl Label AWSAccountIds Actions",
    RemovePermission="QueueUrl Label",
)
def test_attributes_tags_and_permissions(aws: Cli, url: str) -> None:
    dead = aws("create-queue", "--queue-name", new_name("cli"))["QueueUrl"]
    asked = ("get-queue-attributes", "--queue-url", dead, "--attribute-names", "QueueArn")
    policy = json.dumps(
        {"deadLetterTargetArn": aws(*asked)["Attributes"]["QueueArn"], "maxReceiveCount": "3"}
    )
    attributes = json.dumps({"VisibilityTimeout": "45", "RedrivePolicy": policy})
    aws("set-queue-attributes", "--queue-url", url, "--attributes", attributes)
    asked = ("get-queue-attributes", "--queue-url", url, "--attribute-names", "VisibilityTimeout")
    assert aws(*asked)["Attributes"] == {"VisibilityTimeout": "45"}
    assert aws("list-dead-letter-source-queues", "--queue-url", dead)["queueUrls"] == [url]
    aws("tag-queue", "--queue-url", url, "--tags", "a=1,b=2")
    aws("untag-queue", "--queue-url", url, "--tag-keys", "a")
    assert aws("list-queue-tags", "--queue-url", url)["Tags"] == {"b": "2"}
    granted = ("--aws-account-ids", "111122223333", "--actions", "SendMessage")
    aws("add-permission", "--queue-url", url, "--label", "shop", *granted)
    aws("remove-permission", "--queue-url", url, "--label", "shop")


@proves(CLI, ListQueues="MaxResults NextToken")
def test_pages(aws: Cli) -> None:
    prefix = new_name("cli")
    made = {aws("create-queue", "--queue-name", f"{prefix}-{n}")["QueueUrl"] for n in range(3)}
    listed = aws("list-queues", "--queue-name-prefix", prefix, "--page-size", "2")
    assert set(listed["QueueUrls"]) == made
    first = aws("list-queues", "--queue-name-prefix", prefix, "--max-items", "2", "--page-size", "2")
    token = first["NextToken"]
    rest = aws("list-queues", "--queue-name-prefix", prefix, "--page-size", "2", "--starting-token", token)
    assert {*first["QueueUrls"], *rest["QueueUrls"]} == made


@proves(CLI, PurgeQueue="QueueUrl !PurgeQueueInProgress", GetQueueAttributes="AttributeNames.All")
def test_a_purge(aws: Cli, url: str) -> None:
    aws("send-message", "--queue-url", url, "--message-body", "x")
    assert aws("purge-queue", "--queue-url", url) is None
    again = aws.run("purge-queue", "--queue-url", url)
    assert again.returncode == SERVICE_ERROR
    assert "AWS.SimpleQueueService.PurgeQueueInProgress" in again.stderr
    found = aws("get-queue-attributes", "--queue-url", url, "--attribute-names", "All")["Attributes"]
    assert found["ApproximateNumberOfMessages"] == "0"


@proves(
    CLI,
    StartMessageMoveTask="SourceArn !ResourceNotFoundException",
    ListMessageMoveTasks="SourceArn !ResourceNotFoundException",
    CancelMessageMoveTask="TaskHandle !InvalidParameterValue",
    SendMessage="!QueueDoesNotExist",
    DeleteMessage="!ReceiptHandleIsInvalid",
    SetQueueAttributes="!InvalidAttributeName",
)
def test_what_fails_says_why_and_has_a_status(aws: Cli, url: str) -> None:
    never = "arn:aws:sqs:us-east-1:000000000000:never"
    of = ("--queue-url", url)
    for code, *arguments in (
        ("ResourceNotFoundException", "start-message-move-task", "--source-arn", never),
        ("ResourceNotFoundException", "list-message-move-tasks", "--source-arn", never),
        ("InvalidParameterValue", "cancel-message-move-task", "--task-handle", "AAAA"),
        (
            "AWS.SimpleQueueService.NonExistentQueue",
            *("send-message", "--queue-url", url + "-never", "--message-body", "x"),
        ),
        ("ReceiptHandleIsInvalid", "delete-message", *of, "--receipt-handle", "none"),
        ("InvalidAttributeName", "set-queue-attributes", *of, "--attributes", "Color=red"),
    ):
        ran = aws.run(*arguments)
        assert ran.returncode == SERVICE_ERROR, (arguments, ran.stderr)
        assert f"({code})" in ran.stderr
        assert ran.stdout == ""
    assert aws.run("send-message", *of).returncode == USAGE_ERROR
