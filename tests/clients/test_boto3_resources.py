"""boto3's resources, which are objects for queues and messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.proofs import BOTO3, proves
from tests.clients.site import Site, new_name

pytestmark = pytest.mark.storm


@pytest.fixture
def boxes(site: Site) -> Any:
    return site.resource()


@proves(
    BOTO3, CreateQueue="", GetQueueUrl="", ListQueues="QueueNamePrefix", GetQueueAttributes="", DeleteQueue=""
)
def test_queues_as_objects(boxes: Any) -> None:
    name = new_name()
    made = boxes.create_queue(QueueName=name, Attributes={"DelaySeconds": "3"})
    found = boxes.get_queue_by_name(QueueName=name)
    assert found.url == made.url
    assert found.attributes["DelaySeconds"] == "3"
    found.set_attributes(Attributes={"DelaySeconds": "0"})
    found.reload()
    assert found.attributes["DelaySeconds"] == "0"
    assert [queue.url for queue in boxes.queues.filter(QueueNamePrefix=name)] == [made.url]
    found.delete()
    assert list(boxes.queues.filter(QueueNamePrefix=name)) == []


@proves(
    BOTO3, SendMessage="", SendMessageBatch="", ReceiveMessage="", DeleteMessage="", DeleteMessageBatch=""
)
@proves(BOTO3, ChangeMessageVisibility="", PurgeQueue="")
def test_messages_as_objects(boxes: Any) -> None:
    queue = boxes.create_queue(QueueName=new_name())
    queue.send_message(MessageBody="a", MessageAttributes={"n": {"DataType": "Number", "StringValue": "1"}})
    [message] = queue.receive_messages(
        WaitTimeSeconds=20, MessageAttributeNames=["All"], AttributeNames=["All"]
    )
    assert message.body == "a"
    assert message.message_attributes["n"]["StringValue"] == "1"
    assert message.attributes["ApproximateReceiveCount"] == "1"
    message.change_visibility(VisibilityTimeout=0)
    [message] = queue.receive_messages(WaitTimeSeconds=20)
    message.delete()
    queue.send_messages(Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(3)])
    receipts: list[str] = []
    while len(receipts) < 3:
        some = queue.receive_messages(WaitTimeSeconds=20, MaxNumberOfMessages=10)
        assert some
        receipts += [each.receipt_handle for each in some]
    answer = queue.delete_messages(
        Entries=[{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(receipts)]
    )
    assert len(answer["Successful"]) == 3
    queue.purge()


@proves(BOTO3, ListDeadLetterSourceQueues="", AddPermission="", RemovePermission="")
def test_dead_letter_queues_and_permissions_as_objects(boxes: Any) -> None:
    dead = boxes.create_queue(QueueName=new_name())
    policy = {"deadLetterTargetArn": dead.attributes["QueueArn"], "maxReceiveCount": 1}
    queue = boxes.create_queue(QueueName=new_name(), Attributes={"RedrivePolicy": json.dumps(policy)})
    assert [source.url for source in dead.dead_letter_source_queues.all()] == [queue.url]
    queue.add_permission(Label="shop", AWSAccountIds=["111122223333"], Actions=["*"])
    queue.remove_permission(Label="shop")
