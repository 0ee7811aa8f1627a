"""boto3: queues, their attributes, tags and permissions."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.clients import model
from tests.clients.proofs import BOTO3, each, proves
from tests.clients.site import arn, attribute, new_name, new_queue, receive

pytestmark = pytest.mark.storm

SETTABLE = {
    "DelaySeconds": "7",
    "MaximumMessageSize": "2048",
    "MessageRetentionPeriod": "3600",
    "ReceiveMessageWaitTimeSeconds": "3",
    "VisibilityTimeout": "45",
    "Policy": json.dumps({"Version": "2012-10-17", "Statement": []}),
    "KmsMasterKeyId": "alias/ours",
    "KmsDataKeyReusePeriodSeconds": "600",
    "SqsManagedSseEnabled": "false",
    "RedriveAllowPolicy": json.dumps({"redrivePermission": "denyAll"}),
}
OF_FIFO = {
    "ContentBasedDeduplication": "true",
    "DeduplicationScope": "messageGroup",
    "FifoThroughputLimit": "perMessageGroupId",
}
TOLD = {
    "ApproximateNumberOfMessages": "0",
    "ApproximateNumberOfMessagesDelayed": "0",
    "ApproximateNumberOfMessagesNotVisible": "0",
}


@proves(BOTO3, CreateQueue="QueueName", GetQueueUrl="QueueName", DeleteQueue="QueueUrl")
def test_a_queues_life(sqs: Any) -> None:
    name = new_name()
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    assert url.endswith(f"/{name}")
    assert sqs.get_queue_url(QueueName=name)["QueueUrl"] == url
    sqs.delete_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=name)


@proves(BOTO3, GetQueueUrl="QueueOwnerAWSAccountId")
def test_a_queues_url_for_its_owner(sqs: Any, queue: str) -> None:
    account, name = queue.split("/")[-2:]
    assert sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"] == queue


@proves(BOTO3, SendMessage="QueueUrl", ReceiveMessage="QueueUrl")
def test_a_bare_name_is_as_good_as_a_url(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue.rpartition("/")[2], MessageBody="hello")
    assert [message["Body"] for message in receive(sqs, queue)] == ["hello"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(
            name, value, marks=proves(BOTO3, **dict.fromkeys(SETS, f"Attributes.{name}")), id=f"{name}"
        )
        for SETS in [("CreateQueue", "SetQueueAttributes")]
        for name, value in SETTABLE.items()
    ],
)
def test_an_attribute_is_set_and_given_back(sqs: Any, name: str, value: str) -> None:
    created = new_queue(sqs, **{name: value})
    assert _same(attribute(sqs, created, name), value)
    changed = new_queue(sqs)
    sqs.set_queue_attributes(QueueUrl=changed, Attributes={name: value})
    assert _same(attribute(sqs, changed, name), value)


def _same(got: str | None, wanted: str) -> bool:
    assert got is not None
    return bool(json.loads(got) == json.loads(wanted)) if wanted[0] == "{" else got == wanted


@proves(
    BOTO3,
    CreateQueue=each("Attributes", "FifoQueue", *OF_FIFO),
    SetQueueAttributes=each("Attributes", *OF_FIFO),
)
def test_attributes_of_fifo_queues(sqs: Any) -> None:
    created = new_queue(sqs, FifoQueue="true", **OF_FIFO)
    changed = new_queue(sqs, FifoQueue="true")
    sqs.set_queue_attributes(QueueUrl=changed, Attributes=OF_FIFO)
    for url in (created, changed):
        got = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["FifoQueue", *OF_FIFO])["Attributes"]
        assert got == {"FifoQueue": "true", **OF_FIFO}


@proves(BOTO3, **dict.fromkeys(("CreateQueue", "SetQueueAttributes"), "Attributes.RedrivePolicy"))
def test_a_redrive_policy_is_json_in_a_string(sqs: Any) -> None:
    dead = arn(sqs, new_queue(sqs))
    policy = {"deadLetterTargetArn": dead, "maxReceiveCount": 3}
    created = new_queue(sqs, RedrivePolicy=json.dumps(policy))
    changed = new_queue(sqs)
    sqs.set_queue_attributes(QueueUrl=changed, Attributes={"RedrivePolicy": json.dumps(policy)})
    for url in (created, changed):
        got = json.loads(attribute(sqs, url, "RedrivePolicy") or "{}")
        assert got["deadLetterTargetArn"] == dead
        assert int(got["maxReceiveCount"]) == 3
    sqs.set_queue_attributes(QueueUrl=changed, Attributes={"RedrivePolicy": ""})
    assert attribute(sqs, changed, "RedrivePolicy") is None


@proves(BOTO3, GetQueueAttributes="QueueUrl " + each("AttributeNames", "All", *model.attribute_names()))
def test_every_attribute_can_be_asked_for(sqs: Any) -> None:
    before = int(time.time())
    dead = arn(sqs, new_queue(sqs, FifoQueue="true"))
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 3})
    wanted = SETTABLE | OF_FIFO | {"FifoQueue": "true", "RedrivePolicy": policy}
    url = new_queue(sqs, **wanted)
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    told = TOLD | {"QueueArn": arn(sqs, url)}
    assert told.items() <= found.items()
    for name in ("CreatedTimestamp", "LastModifiedTimestamp"):
        assert before - 60 <= int(found[name]) <= time.time() + 60
    assert set(wanted) <= set(found)
    for name in model.attribute_names():
        assert found[name] == attribute(sqs, url, name), name


@proves(BOTO3, CreateQueue="")
def test_creating_again_is_the_same_queue_where_nothing_differs(sqs: Any) -> None:
    name = new_name()
    first = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "45"})["QueueUrl"]
    assert sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "45"})["QueueUrl"] == first
    assert sqs.create_queue(QueueName=name)["QueueUrl"] == first
    with pytest.raises(sqs.exceptions.QueueNameExists):
        sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "46"})


@proves(BOTO3, ListQueues="QueueNamePrefix NextToken MaxResults")
def test_listing_goes_page_by_page(sqs: Any) -> None:
    prefix = new_name("listed")
    made = {sqs.create_queue(QueueName=f"{prefix}-{n}")["QueueUrl"] for n in range(5)}
    assert set(sqs.list_queues(QueueNamePrefix=prefix)["QueueUrls"]) == made
    first = sqs.list_queues(QueueNamePrefix=prefix, MaxResults=2)
    second = sqs.list_queues(QueueNamePrefix=prefix, MaxResults=2, NextToken=first["NextToken"])
    third = sqs.list_queues(QueueNamePrefix=prefix, MaxResults=2, NextToken=second["NextToken"])
    assert [len(page["QueueUrls"]) for page in (first, second, third)] == [2, 2, 1]
    assert {url for page in (first, second, third) for url in page["QueueUrls"]} == made
    assert "NextToken" not in third
    pages = sqs.get_paginator("list_queues").paginate(
        QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2}
    )
    assert [len(page["QueueUrls"]) for page in pages] == [2, 2, 1]
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=prefix + "-none")


@proves(BOTO3, ListDeadLetterSourceQueues="QueueUrl NextToken MaxResults")
def test_the_sources_of_a_dead_letter_queue_go_page_by_page(sqs: Any) -> None:
    dead = new_queue(sqs)
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead).get("queueUrls", []) == []
    policy = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 1})
    made = {new_queue(sqs, RedrivePolicy=policy) for _ in range(3)}
    assert set(sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"]) == made
    first = sqs.list_dead_letter_source_queues(QueueUrl=dead, MaxResults=2)
    second = sqs.list_dead_letter_source_queues(QueueUrl=dead, MaxResults=2, NextToken=first["NextToken"])
    assert len(first["queueUrls"]) == 2
    assert {*first["queueUrls"], *second["queueUrls"]} == made
    assert "NextToken" not in second
    pages = sqs.get_paginator("list_dead_letter_source_queues").paginate(
        QueueUrl=dead, PaginationConfig={"PageSize": 2}
    )
    assert [len(page["queueUrls"]) for page in pages] == [2, 1]


@proves(BOTO3, CreateQueue="tags", TagQueue="QueueUrl Tags", UntagQueue="QueueUrl TagKeys")
@proves(BOTO3, ListQueueTags="QueueUrl")
def test_tags(sqs: Any) -> None:
    url = sqs.create_queue(QueueName=new_name(), tags={"team": "shop", "empty": ""})["QueueUrl"]
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "shop", "empty": ""}
    sqs.tag_queue(QueueUrl=url, Tags={"team": "bank", "größe": "ß"})
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "bank", "empty": "", "größe": "ß"}
    sqs.untag_queue(QueueUrl=url, TagKeys=["team", "empty", "never"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"größe": "ß"}
    sqs.untag_queue(QueueUrl=url, TagKeys=["größe"])
    assert sqs.list_queue_tags(QueueUrl=url).get("Tags", {}) == {}


@proves(
    BOTO3,
    AddPermission="QueueUrl Label AWSAccountIds Actions",
    RemovePermission="QueueUrl Label",
)
def test_permissions_are_statements_of_the_policy(sqs: Any, queue: str) -> None:
    sqs.add_permission(
        QueueUrl=queue,
        Label="shop",
        AWSAccountIds=["111122223333", "444455556666"],
        Actions=["SendMessage", "ReceiveMessage"],
    )
    statements = json.loads(attribute(sqs, queue, "Policy") or "{}")["Statement"]
    assert [statement["Sid"] for statement in statements] == ["shop"]
    assert "111122223333" in json.dumps(statements[0]["Principal"])
    assert {action.lower() for action in statements[0]["Action"]} == {
        "sqs:sendmessage",
        "sqs:receivemessage",
    }
    sqs.remove_permission(QueueUrl=queue, Label="shop")
    assert json.loads(attribute(sqs, queue, "Policy") or '{"Statement": []}')["Statement"] == []


@proves(BOTO3, PurgeQueue="QueueUrl !PurgeQueueInProgress")
def test_a_purge_takes_everything_and_is_done_once_a_minute(sqs: Any, queue: str) -> None:
    for n in range(3):
        sqs.send_message(QueueUrl=queue, MessageBody=str(n), DelaySeconds=900 if n == 2 else 0)
    assert receive(sqs, queue, MaxNumberOfMessages=1)
    sqs.purge_queue(QueueUrl=queue)
    with pytest.raises(sqs.exceptions.PurgeQueueInProgress):
        sqs.purge_queue(QueueUrl=queue)
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[*TOLD])["Attributes"]
    assert counts == TOLD
    sqs.send_message(QueueUrl=queue, MessageBody="after")
    assert [message["Body"] for message in receive(sqs, queue)] == ["after"]


@proves(BOTO3, CreateQueue="", DeleteQueue="")
def test_a_name_is_free_at_once(sqs: Any) -> None:
    name = new_name()
    for _ in range(2):
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="old")
        sqs.delete_queue(QueueUrl=url)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    assert receive(sqs, url, wait=0) == []
