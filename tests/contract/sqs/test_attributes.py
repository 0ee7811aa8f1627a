"""Attributes, policies and tags of queues, as they are kept."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.bench import Bench
from tests.contract.moving import QUIET, Spot, copied
from tests.contract.sqs.face import BASE, Face
from windlass.errors import Conflict
from windlass.server.sqs.names import arn_of

EVERYTHING = {
    "VisibilityTimeout": "0",
    "MessageRetentionPeriod": "61",
    "MaximumMessageSize": "2048",
    "DelaySeconds": "7",
    "ReceiveMessageWaitTimeSeconds": "20",
    "Policy": '{"Version": "2012-10-17", "Statement": []}',
    "RedriveAllowPolicy": '{"redrivePermission": "denyAll"}',
    "KmsMasterKeyId": "alias/ключ",
    "KmsDataKeyReusePeriodSeconds": "60",
    "ContentBasedDeduplication": "true",
    "DeduplicationScope": "messageGroup",
    "FifoThroughputLimit": "perMessageGroupId",
}


def redrive(queue: str, count: int | str = 2) -> str:
    return json.dumps({"deadLetterTargetArn": arn_of(queue), "maxReceiveCount": count})


def test_attributes_and_tags_are_kept(sqs: Face) -> None:
    """Fails when a backend forgets one of them, or an attribute is kept as another one."""
    sqs.create("dlq.fifo", FifoQueue="true")
    given = {**EVERYTHING, "FifoQueue": "true", "RedrivePolicy": redrive("dlq.fifo")}
    sqs("CreateQueue", QueueName="q.fifo", Attributes=given, tags={"team": "späti"})

    def check(face: Face) -> None:
        found = face.attributes("q.fifo")
        assert json.loads(found["RedrivePolicy"]) == json.loads(given["RedrivePolicy"])
        assert {name: found[name] for name in EVERYTHING} == EVERYTHING
        assert found["SqsManagedSseEnabled"] == "false"
        assert face.tags("q.fifo") == {"team": "späti"}
        assert face.create("q.fifo", **given)

    check(sqs)
    sqs.bench.reopen()
    check(Face(sqs.bench))


def test_nothing_is_shown_unless_it_is_asked_for(sqs: Face) -> None:
    sqs.create("q")
    assert sqs("GetQueueAttributes", QueueUrl="q") == {}
    assert sqs("GetQueueAttributes", QueueUrl="q", AttributeNames=[]) == {}
    assert sqs("GetQueueAttributes", QueueUrl="q", AttributeNames=["Policy"]) == {}
    assert sqs.refused("GetQueueAttributes", QueueUrl="q", AttributeNames=["All", "Nothing"]) == (
        "InvalidAttributeName",
        "Unknown Attribute Nothing.",
    )
    assert sqs.refused("GetQueueAttributes", QueueUrl="q", AttributeNames=["FifoQueue"])[0] == (
        "InvalidAttributeName"
    )


def test_a_new_queue_has_the_defaults_of_sqs(sqs: Face) -> None:
    """Fails when it keeps messages for ever, as one that is made over HTTP does."""
    sqs.create("q")
    settings = sqs.bench.info("q").settings
    assert (settings.retention_seconds, settings.lease_seconds, settings.sqs) == (345_600, 30, {})
    assert settings.max_message_bytes >= 2 * 1024 * 1024 + 2
    sqs.bench.create("http")
    assert sqs.attributes("http", "MessageRetentionPeriod") == {"MessageRetentionPeriod": "1209600"}


def test_counts_are_those_of_the_queue(sqs: Face) -> None:
    sqs.create("q")
    sqs.bench.send("q", b'"1"', group="g")
    sqs.bench.send("q", b'"2"', group="g")
    sqs.bench.send("q", b'"3"', b'"4"')
    sqs.bench.send("q", b'"5"', delay=60_000)
    sqs.bench.receive("q", 1, 60_000)
    assert [
        sqs.attributes("q")[f"ApproximateNumberOfMessages{which}"] for which in ("", "NotVisible", "Delayed")
    ] == ["3", "1", "1"]


def test_a_change_leaves_the_rest_and_says_when_it_was(sqs: Face) -> None:
    """Fails when what is not named goes back to its default, or a tag is a modification."""
    sqs("CreateQueue", QueueName="q", Attributes={"DelaySeconds": "5"}, tags={"a": "1"})
    made = sqs.attributes("q")
    assert made["LastModifiedTimestamp"] == made["CreatedTimestamp"]
    sqs.bench.clock.advance(10)
    sqs("TagQueue", QueueUrl="q", Tags={"b": "2"})
    assert sqs.attributes("q") == made
    sqs.set("q", VisibilityTimeout="0", MessageRetentionPeriod="60")
    assert sqs.attributes("q") == {
        **made,
        "VisibilityTimeout": "0",
        "MessageRetentionPeriod": "60",
        "LastModifiedTimestamp": str(int(made["CreatedTimestamp"]) + 10),
    }
    assert sqs.tags("q") == {"a": "1", "b": "2"}
    assert sqs.refused("SetQueueAttributes", QueueUrl="q", Attributes={})[0] == "MissingParameter"
    wrong = {"DelaySeconds": "6", "VisibilityTimeout": "-1"}
    assert sqs.refused("SetQueueAttributes", QueueUrl="q", Attributes=wrong)[0] == "InvalidAttributeValue"
    assert sqs.attributes("q", "DelaySeconds") == {"DelaySeconds": "5"}


def test_dead_letters_go_where_the_redrive_policy_says(sqs: Face) -> None:
    """Fails when a message moves before it was received maxReceiveCount times, or later."""
    sqs.create("dlq")
    sqs.create("q", RedrivePolicy=redrive("dlq", 2))
    sqs.bench.send("q", b'"1"')
    for _ in range(2):
        assert sqs.attributes("dlq", "ApproximateNumberOfMessages") == {"ApproximateNumberOfMessages": "0"}
        sqs.bench.receive("q", 1, 1_000)
        sqs.bench.advance(2)
    assert sqs.attributes("dlq", "ApproximateNumberOfMessages") == {"ApproximateNumberOfMessages": "1"}
    assert sqs.bench.counts("q") == {}


@pytest.mark.parametrize("action", ["CreateQueue", "SetQueueAttributes"])
def test_a_dead_letter_queue_is_there_alike_and_willing(sqs: Face, action: str) -> None:
    """Fails when messages would be sent to a queue that is not there, of another type, or that forbids it."""
    if action == "SetQueueAttributes":
        sqs.create("q")
    sqs.create("dlq.fifo", FifoQueue="true")
    sqs.create("closed", RedriveAllowPolicy='{"redrivePermission":"denyAll"}')
    only = {"redrivePermission": "byQueue", "sourceQueueArns": [arn_of("q")]}
    sqs.create("mine", RedriveAllowPolicy=json.dumps(only))
    only["sourceQueueArns"] = [arn_of("another")]
    sqs.create("theirs", RedriveAllowPolicy=json.dumps(only))
    which: dict[str, Any] = {"QueueName": "q"} if action == "CreateQueue" else {"QueueUrl": "q"}
    for target, reason in (
        ("nothing", "Dead letter target does not exist."),
        ("dlq.fifo", "Dead-letter queue must be same type of queue as the source."),
        ("closed", "The redrive allow policy of the dead-letter queue does not allow this queue."),
        ("theirs", "The redrive allow policy of the dead-letter queue does not allow this queue."),
    ):
        policy = redrive(target)
        assert sqs.refused(action, **which, Attributes={"RedrivePolicy": policy}) == (
            "InvalidParameterValue",
            f"Value {policy} for parameter RedrivePolicy is invalid. Reason: {reason}",
        )
    assert sqs.refused(action, **which, Attributes={"RedrivePolicy": redrive("q")})[0] == (
        "InvalidParameterValue"
    )
    sqs(action, **which, Attributes={"RedrivePolicy": redrive("mine")})
    assert sqs.bench.info("q").settings.dead_letter == "mine"


def test_whose_dead_letters_come_here(sqs: Face) -> None:
    """Fails when a source is missing on a page, or a queue is one that only names it without a count."""
    dlq = sqs.create("dlq")
    for n in range(5):
        sqs.create(f"q{n}", RedrivePolicy=redrive("dlq"))
    sqs.create("between")
    sqs.bench.create("never", dead_letter="dlq")
    sources = [f"{BASE}/000000000000/q{n}" for n in range(5)]
    assert sqs("ListDeadLetterSourceQueues", QueueUrl=dlq) == {"queueUrls": sources}
    first = sqs("ListDeadLetterSourceQueues", QueueUrl=dlq, MaxResults=3)
    assert first["queueUrls"] == sources[:3]
    token = first["NextToken"]
    rest = sqs("ListDeadLetterSourceQueues", QueueUrl=dlq, MaxResults=3, NextToken=token)
    assert rest == {"queueUrls": sources[3:]}
    assert sqs("ListDeadLetterSourceQueues", QueueUrl="q1") == {"queueUrls": []}


def test_a_dead_letter_queue_in_use_stays(sqs: Face) -> None:
    """Fails when a queue's letters are left without a place, or the refusal is a fault."""
    sqs.create("dlq")
    sqs.create("q", RedrivePolicy=redrive("dlq"))
    name, message = sqs.refused("DeleteQueue", QueueUrl="dlq")
    assert name == "UnsupportedOperation"
    assert "'q'" in message
    sqs.set("q", RedrivePolicy="")
    assert sqs.attributes("q", "RedrivePolicy") == {}
    assert sqs("DeleteQueue", QueueUrl="dlq") == {}


def test_permissions_edit_the_policy(sqs: Face) -> None:
    sqs.create("q")
    grant: dict[str, Any] = {"QueueUrl": "q", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
    assert sqs("AddPermission", Label="one", **grant) == {}
    assert sqs.refused("AddPermission", Label="one", **grant)[0] == "InvalidParameterValue"
    sqs("AddPermission", Label="two", **grant)
    policy = json.loads(sqs.attributes("q", "Policy")["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == ["one", "two"]
    assert policy["Statement"][0]["Resource"] == arn_of("q")
    for label in ("one", "two"):
        assert sqs("RemovePermission", QueueUrl="q", Label=label) == {}
    assert sqs.attributes("q", "Policy") == {}
    assert sqs.refused("RemovePermission", QueueUrl="q", Label="one")[0] == "InvalidParameterValue"


def test_tags_come_and_go(sqs: Face) -> None:
    sqs.create("q", DelaySeconds="5")
    assert sqs.tags("q") == {}
    sqs("TagQueue", QueueUrl="q", Tags={"a": "1", "b": ""})
    sqs("TagQueue", QueueUrl="q", Tags={"a": "2", "c": "3"})
    assert sqs.tags("q") == {"a": "2", "b": "", "c": "3"}
    sqs("UntagQueue", QueueUrl="q", TagKeys=["a", "c", "unknown"])
    assert sqs.tags("q") == {"b": ""}
    assert sqs.refused("TagQueue", QueueUrl="q", Tags={})[0] == "MissingParameter"
    assert sqs.refused("UntagQueue", QueueUrl="q", TagKeys=[])[0] == "InvalidParameterValue"
    assert sqs.refused("CreateQueue", QueueName="new", tags={"aws:x": "1"})[0] == "InvalidParameterValue"
    assert sqs.attributes("q", "DelaySeconds") == {"DelaySeconds": "5"}


def test_changes_at_the_same_moment_are_all_made(sqs: Face) -> None:
    """Planted defect: who writes settings does not ask whether they are still those that it read."""
    sqs.create("q")

    async def all_at_once() -> None:
        changes: list[Any] = [sqs.ask("TagQueue", QueueUrl="q", Tags={f"k{n}": "v"}) for n in range(40)]
        changes += [
            sqs.ask("SetQueueAttributes", QueueUrl="q", Attributes={name: "1"})
            for name in ("DelaySeconds", "VisibilityTimeout", "ReceiveMessageWaitTimeSeconds")
        ]
        changes += [sqs.queues.update("q", {"history_seconds": n}) for n in range(10)]
        await asyncio.gather(*changes)

    sqs.bench.loop.run_until_complete(all_at_once())
    assert sqs.tags("q") == {f"k{n}": "v" for n in range(40)}
    found = sqs.attributes("q", "DelaySeconds", "VisibilityTimeout", "ReceiveMessageWaitTimeSeconds")
    assert set(found.values()) == {"1"}


def test_a_queue_that_is_never_the_same_is_given_up(sqs: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a change is tried for ever, or is taken for made."""
    sqs.create("q")

    async def update(*_: Any, **__: Any) -> None:
        raise Conflict

    monkeypatch.setattr(sqs.bench.store, "update_queue", update)
    assert sqs.refused("TagQueue", QueueUrl="q", Tags={"a": "1"})[0] == "ServiceUnavailable"


def test_a_change_on_condition(bench: Bench) -> None:
    """Fails when a store changes a queue that has other settings by now, or keeps some of what it refuses."""
    bench.create("letters")
    bench.create("q", max_deliveries=1)
    was = bench.info("q").settings
    change = {"dead_letter": "letters", "sqs": {"DelaySeconds": "1"}}
    bench.update("q", lease_seconds=5)
    with pytest.raises(Conflict):
        bench.run(lambda s: s.update_queue("q", change, was=was))
    assert bench.info("q").settings.sqs == {}
    now = bench.info("q").settings
    bench.run(lambda s: s.update_queue("q", change, was=now))
    assert bench.info("q").settings.dead_letter == "letters"
    with pytest.raises(Conflict):
        bench.run(lambda s: s.update_queue("q", {"dead_letter": None}, was=now))
    bench.update("q", dead_letter=None)
    bench.delete("letters")
    bench.reopen()
    assert bench.info("q").settings.sqs == {"DelaySeconds": "1"}


@pytest.fixture
def spots(tmp_path: Path) -> Iterator[list[Spot]]:
    made = [Spot(backend, tmp_path) for backend in ("sqlite", "redis", "sqlite")]
    yield made
    for spot in made:
        spot.clear()


def test_a_copy_of_a_store_has_all_of_it(spots: list[Spot]) -> None:
    """Fails when `windlass store copy` loses attributes or tags on its way to Redis or back."""
    bench = Bench(spots[0])
    sqs = Face(bench)
    sqs(
        "CreateQueue",
        QueueName="q",
        Attributes={"DelaySeconds": "5", "VisibilityTimeout": "0"},
        tags={"a": "ä"},
    )
    before = sqs.attributes("q")
    for source, target in itertools.pairwise(spots):
        bench.store.close()
        bench.clock.advance(QUIET)
        copied(source, target, bench.clock)
        bench.store, bench.ground = target.open(bench.clock), target
        there = Face(bench)
        assert there.attributes("q") == before
        assert there.tags("q") == {"a": "ä"}
    bench.close()
