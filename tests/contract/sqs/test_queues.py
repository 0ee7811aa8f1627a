"""Queues as clients of SQS make, find, list, empty and delete them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.contract.sqs.face import BASE, Face
from windlass.message import QueueInfo
from windlass.server.auth import Principal
from windlass.server.sqs.errors import NO_QUEUE
from windlass.server.sqs.names import arn_of

URL = f"{BASE}/000000000000"


def test_a_queue_is_found_by_its_name_and_its_url(sqs: Face) -> None:
    assert sqs.create("orders") == f"{URL}/orders"
    assert sqs.create("orders.fifo", FifoQueue="true") == f"{URL}/orders.fifo"
    assert sqs("GetQueueUrl", QueueName="orders") == {"QueueUrl": f"{URL}/orders"}
    for url in (f"{URL}/orders", "orders", "https://127.0.0.1:9/123456789012/orders"):
        assert sqs.attributes(url, "QueueArn") == {"QueueArn": arn_of("orders")}
    sqs.bench.create("made.elsewhere.fifo")  # over HTTP, where more may be a name
    assert sqs("GetQueueUrl", QueueName="made.elsewhere.fifo")
    assert sqs.attributes("made.elsewhere.fifo", "FifoQueue") == {"FifoQueue": "true"}


@pytest.mark.parametrize("action", ["GetQueueAttributes", "PurgeQueue", "DeleteQueue", "ListQueueTags"])
def test_what_is_not_there(sqs: Face, action: str) -> None:
    assert sqs.refused(action, QueueUrl=f"{URL}/nothing") == ("QueueDoesNotExist", NO_QUEUE)


@pytest.mark.parametrize("name", ["nothing", "", "a/orders", f"{URL}/orders", "x" * 200])
def test_a_name_that_no_queue_has(sqs: Face, name: str) -> None:
    """Fails when a URL is taken for a name: GetQueueUrl would answer for any text that ends in one."""
    sqs.create("orders")
    assert sqs.refused("GetQueueUrl", QueueName=name) == ("QueueDoesNotExist", NO_QUEUE)


@pytest.mark.parametrize(
    ("name", "attributes", "error"),
    [
        ("", {}, "InvalidParameterValue"),
        ("a b", {}, "InvalidParameterValue"),
        ("x" * 81, {}, "InvalidParameterValue"),
        ("orders.fifo", {}, "InvalidParameterValue"),
        ("orders", {"FifoQueue": "true"}, "InvalidParameterValue"),
        ("orders", {"FifoQueue": "false"}, "InvalidAttributeName"),
        ("orders.fifo", {"FifoQueue": "false"}, "InvalidAttributeName"),
        ("orders", {"ContentBasedDeduplication": "true"}, "InvalidAttributeName"),
        ("orders", {"Unknown": "1"}, "InvalidAttributeName"),
        ("orders", {"DelaySeconds": "901"}, "InvalidAttributeValue"),
        ("windlass.jobs", {}, "InvalidParameterValue"),
        ("windlass.fifo", {"FifoQueue": "true"}, "AccessDeniedException"),
    ],
)
def test_queues_that_cannot_be_made(sqs: Face, name: str, attributes: dict[str, str], error: str) -> None:
    assert sqs.refused("CreateQueue", QueueName=name, Attributes=attributes)[0] == error
    assert sqs("ListQueues") == {}


def test_creating_again_compares_what_is_given(sqs: Face) -> None:
    """Fails when a repeat changes anything, or differs where it names a default or other tags."""
    sqs("CreateQueue", QueueName="q", Attributes={"DelaySeconds": "5"}, tags={"a": "1"})
    for same in ({}, {"DelaySeconds": "5"}, {"DelaySeconds": "05", "VisibilityTimeout": "30"}):
        again = sqs("CreateQueue", QueueName="q", Attributes=same, tags={"b": "2"})
        assert again == {"QueueUrl": f"{URL}/q"}
    assert sqs.tags("q") == {"a": "1"}
    assert sqs.refused("CreateQueue", QueueName="q", Attributes={"DelaySeconds": "0"}) == (
        "QueueNameExists",
        "A queue already exists with the same name and a different value for attribute DelaySeconds",
    )
    sqs.bench.create("http", lease_seconds=45, retention_seconds=60)
    assert sqs.create("http", VisibilityTimeout="45", MessageRetentionPeriod="60")
    assert sqs.refused("CreateQueue", QueueName="http", Attributes={"VisibilityTimeout": "30"})[0] == (
        "QueueNameExists"
    )


def test_of_two_who_make_a_queue_one_makes_it(sqs: Face) -> None:
    """Fails when who comes second at the same moment is told of the engine's settings."""

    async def both() -> list[Any]:
        tasks: list[Any] = [
            sqs.queues.create("q", {"lease_seconds": 7}),
            sqs.ask("CreateQueue", QueueName="q", Attributes={"VisibilityTimeout": "8"}),
            sqs.ask("CreateQueue", QueueName="q", Attributes={"VisibilityTimeout": "8"}),
        ]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    results = sqs.bench.loop.run_until_complete(both())
    made = int(sqs.attributes("q", "VisibilityTimeout")["VisibilityTimeout"])
    words = [str(result) for result in results[1:]]
    assert made in (7, 8)
    if made == 7:
        different = "A queue already exists with the same name and a different value for attribute"
        assert words == [f"{different} VisibilityTimeout"] * 2
    else:
        assert words == [str({"QueueUrl": f"{URL}/q"})] * 2


def test_queues_are_listed_a_page_at_a_time(sqs: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a page skips or repeats a queue, shows one of the product's own, or reads what lies before.

    The planted defect: pages are counted from the beginning.
    """
    names = [f"q{n:02}" for n in range(23)]
    for name in reversed(["other", *names]):
        sqs.create(name)
    sqs.bench.create("windlass.own")
    read: list[int] = []
    queues = sqs.bench.store.queues

    async def counted(*args: Any) -> Sequence[QueueInfo]:
        found = await queues(*args)
        read.append(len(found))
        return found

    monkeypatch.setattr(sqs.bench.store, "queues", counted)
    assert sqs("ListQueues")["QueueUrls"] == [f"{URL}/{name}" for name in ["other", *names]]
    assert sqs("ListQueues", QueueNamePrefix="zzz") == {}
    assert "NextToken" not in sqs("ListQueues", QueueNamePrefix="q")
    read.clear()
    found: list[str] = []
    token: dict[str, Any] = {}
    while True:
        page = sqs("ListQueues", QueueNamePrefix="q", MaxResults=5, **token)
        found += page["QueueUrls"]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert found == [f"{URL}/{name}" for name in names]
    assert max(read) <= 6
    whole = sqs("ListQueues", QueueNamePrefix="q", MaxResults=23)
    assert len(whole["QueueUrls"]) == 23
    assert "NextToken" not in whole


def test_tokens_and_sizes_of_pages(sqs: Face) -> None:
    """Fails when a token is taken for another question, or what is none makes a fault of ours."""
    for name in ("a", "b", "c"):
        sqs.create(name)
    token = sqs("ListQueues", MaxResults=1)["NextToken"]
    assert sqs("ListQueues", NextToken=token)["QueueUrls"] == [f"{URL}/b", f"{URL}/c"]
    for wrong in ("x", "é", "////", "\ud800", "gIE=", "=" * 9):
        assert sqs.refused("ListQueues", NextToken=wrong, MaxResults=1)[0] == "InvalidParameterValue"
    assert sqs.refused("ListQueues", NextToken=token, QueueNamePrefix="b")[0] == "InvalidParameterValue"
    assert sqs.refused("ListDeadLetterSourceQueues", QueueUrl="a", NextToken=token)[0] == (
        "InvalidParameterValue"
    )
    for most in (0, -1, 1001):
        assert sqs.refused("ListQueues", MaxResults=most)[0] == "InvalidParameterValue"
        assert sqs.refused("ListDeadLetterSourceQueues", QueueUrl="a", MaxResults=most)[0] == (
            "InvalidParameterValue"
        )


def test_who_may_do_what(sqs: Face) -> None:
    """Fails when a key opens more than its scopes say; one that opens nothing learns of no queue either."""
    for name in ("mine", "other", "theirs"):
        sqs.create(name)
    admin, receiver, sender = (Principal("", [f"{action}:mine*"]) for action in ("admin", "receive", "send"))
    for principal in (admin, receiver):
        assert sqs("ListQueues", principal) == {"QueueUrls": [f"{URL}/mine"]}
        assert sqs("GetQueueAttributes", principal, QueueUrl="mine", AttributeNames=["QueueArn"])
    assert sqs("ListQueues", sender) == {}
    for principal in (admin, receiver, sender):
        assert sqs("GetQueueUrl", principal, QueueName="mine")
        for name in ("theirs", "nothing"):
            assert sqs.refused("GetQueueUrl", principal, QueueName=name)[0] == "AccessDeniedException"
    changes: dict[str, dict[str, Any]] = {
        "SetQueueAttributes": {"Attributes": {"DelaySeconds": "1"}},
        "TagQueue": {"Tags": {"a": "b"}},
        "UntagQueue": {"TagKeys": ["a"]},
        "AddPermission": {"Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["*"]},
        "RemovePermission": {"Label": "l"},
        "PurgeQueue": {},
        "DeleteQueue": {},
    }
    for action, parameters in changes.items():
        for principal in (receiver, sender):
            assert sqs.refused(action, principal, QueueUrl="mine", **parameters)[0] == "AccessDeniedException"
        sqs.refused(action, admin, QueueUrl="theirs", **parameters)
        assert sqs(action, admin, QueueUrl="mine", **parameters) == {}
    for action in ("GetQueueAttributes", "ListQueueTags", "ListDeadLetterSourceQueues"):
        assert sqs.refused(action, sender, QueueUrl="mine")[0] == "AccessDeniedException"
    assert sqs.refused("CreateQueue", receiver, QueueName="mine")[0] == "AccessDeniedException"
    assert sqs.refused("CreateQueue", admin, QueueName="more")[0] == "AccessDeniedException"
    assert sqs("CreateQueue", admin, QueueName="mine2")


def test_the_products_own_queues_are_only_looked_at(sqs: Face) -> None:
    """Fails when a job's queue can be changed, or be given somebody's dead letters."""
    sqs.bench.create("windlass.jobs")
    changes: dict[str, dict[str, Any]] = {
        "SetQueueAttributes": {"Attributes": {"DelaySeconds": "1"}},
        "TagQueue": {"Tags": {"a": "b"}},
        "PurgeQueue": {},
        "DeleteQueue": {},
    }
    for action, parameters in changes.items():
        assert sqs.refused(action, QueueUrl="windlass.jobs", **parameters)[0] == "AccessDeniedException"
    assert sqs.attributes("windlass.jobs", "DelaySeconds") == {"DelaySeconds": "0"}
    policy = f'{{"deadLetterTargetArn":"{arn_of("windlass.jobs")}","maxReceiveCount":1}}'
    assert sqs.refused("CreateQueue", QueueName="q", Attributes={"RedrivePolicy": policy})[0] == (
        "AccessDeniedException"
    )


def test_a_purge_ends_messages_in_flight_and_comes_once_a_minute(sqs: Face) -> None:
    """Fails when a second purge gets through, the minute never ends, or it is another queue's as well.

    Planted defect: a purge over HTTP begins a minute, too.
    """
    for name in ("q", "other"):
        sqs.create(name)
        sqs.bench.send(name, b'"1"', b'"2"')
        sqs.bench.receive(name, 1, 60_000)
    assert sqs("PurgeQueue", QueueUrl="q") == {}
    counted = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    assert set(sqs.attributes("q", *counted).values()) == {"0"}
    sqs.bench.send("q", b'"3"')
    sqs.bench.clock.advance(59)
    assert sqs.refused("PurgeQueue", QueueUrl="q") == (
        "PurgeQueueInProgress",
        "Only one PurgeQueue operation on q is allowed every 60 seconds.",
    )
    assert sqs.attributes("q", counted[0]) == {counted[0]: "1"}
    sqs.bench.purge("other")
    assert sqs("PurgeQueue", QueueUrl="other") == {}
    sqs.bench.clock.advance(1)
    assert sqs("PurgeQueue", QueueUrl="q") == {}
    assert sqs.bench.counts("q") == {}
    sqs("DeleteQueue", QueueUrl="q")
    sqs.create("q")
    assert sqs("PurgeQueue", QueueUrl="q") == {}


def test_a_deleted_queue_is_gone_and_its_name_is_free(sqs: Face) -> None:
    sqs.create("q", DelaySeconds="5")
    assert sqs("DeleteQueue", QueueUrl="q") == {}
    assert sqs.refused("DeleteQueue", QueueUrl="q")[0] == "QueueDoesNotExist"
    sqs.create("q")
    assert sqs.attributes("q", "DelaySeconds") == {"DelaySeconds": "0"}
    assert sqs.changed == ["q", "q", "q"]
