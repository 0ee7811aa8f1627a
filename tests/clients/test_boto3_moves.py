"""boto3: dead letters, and the tasks that move them back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.proofs import BOTO3, proves
from tests.clients.site import arn, attribute, new_name, new_queue, receive, receive_all
from tests.harness import until

pytestmark = pytest.mark.storm


class Pair:
    """A queue and its dead-letter queue."""

    def __init__(self, sqs: Any, count: int = 1, **attributes: str) -> None:
        self.sqs = sqs
        self.dead = new_queue(sqs, **attributes)
        self.dead_arn = arn(sqs, self.dead)
        policy = json.dumps({"deadLetterTargetArn": self.dead_arn, "maxReceiveCount": count})
        self.queue = new_queue(sqs, RedrivePolicy=policy, **attributes)
        self.queue_arn = arn(sqs, self.queue)

    def bury(self, *bodies: str) -> None:
        """Make dead letters of new messages."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)
        for message in receive_all(self.sqs, self.queue, len(bodies)):
            self.sqs.change_message_visibility(
                QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        assert receive(self.sqs, self.queue, wait=0) == []
        until(lambda: attribute(self.sqs, self.dead, "ApproximateNumberOfMessages") == str(len(bodies)))

    def tasks(self, **more: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sqs.list_message_move_tasks(SourceArn=self.dead_arn, **more)[
            "Results"
        ]
        return found


@proves(
    BOTO3,
    CreateQueue="Attributes.RedrivePolicy",
    ReceiveMessage=" ".join(
        f"{parameter}.DeadLetterQueueSourceArn"
        for parameter in ("MessageSystemAttributeNames", "AttributeNames")
    ),
)
@pytest.mark.parametrize("parameter", ["MessageSystemAttributeNames", "AttributeNames"])
def test_a_message_received_too_often_is_a_dead_letter(sqs: Any, parameter: str) -> None:
    pair = Pair(sqs, count=2)
    sent = sqs.send_message(QueueUrl=pair.queue, MessageBody="poison")
    for _ in range(2):
        [message] = receive(sqs, pair.queue, VisibilityTimeout=0)
        assert message["MessageId"] == sent["MessageId"]
    assert receive(sqs, pair.queue, wait=0) == []
    asked: dict[str, Any] = {parameter: ["DeadLetterQueueSourceArn"]}
    [dead] = receive(sqs, pair.dead, **asked)
    assert dead["Body"] == "poison"
    assert dead["MessageId"] == sent["MessageId"]
    assert dead["Attributes"] == {"DeadLetterQueueSourceArn": pair.queue_arn}


@proves(BOTO3, CreateQueue="Attributes.RedrivePolicy Attributes.FifoQueue")
def test_dead_letters_of_a_fifo_queue_keep_their_group(sqs: Any) -> None:
    pair = Pair(sqs, FifoQueue="true", ContentBasedDeduplication="true")
    for body in "ab":
        sqs.send_message(QueueUrl=pair.queue, MessageBody=body, MessageGroupId="g")
    [message] = receive(sqs, pair.queue, MaxNumberOfMessages=1, VisibilityTimeout=0)
    assert message["Body"] == "a"
    assert [each["Body"] for each in receive(sqs, pair.queue)] == ["b"]
    [dead] = receive(sqs, pair.dead, MessageSystemAttributeNames=["MessageGroupId"])
    assert (dead["Body"], dead["Attributes"]) == ("a", {"MessageGroupId": "g"})


@proves(BOTO3, CreateQueue="Attributes.RedriveAllowPolicy")
def test_a_queue_says_whose_dead_letters_it_takes(sqs: Any) -> None:
    denies = new_queue(sqs, RedriveAllowPolicy=json.dumps({"redrivePermission": "denyAll"}))
    policy = json.dumps({"deadLetterTargetArn": arn(sqs, denies), "maxReceiveCount": 1})
    with pytest.raises(sqs.exceptions.ClientError) as caught:
        new_queue(sqs, RedrivePolicy=policy)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
    source = new_queue(sqs)
    allows = json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [arn(sqs, source)]})
    sqs.set_queue_attributes(QueueUrl=denies, Attributes={"RedriveAllowPolicy": allows})
    sqs.set_queue_attributes(QueueUrl=source, Attributes={"RedrivePolicy": policy})
    with pytest.raises(sqs.exceptions.ClientError):
        new_queue(sqs, RedrivePolicy=policy)


@proves(BOTO3, StartMessageMoveTask="SourceArn", ListMessageMoveTasks="SourceArn MaxResults")
def test_dead_letters_move_back_where_they_came_from(sqs: Any) -> None:
    pair = Pair(sqs)
    pair.bury("a", "b", "c")
    assert pair.tasks() == []
    started = sqs.start_message_move_task(SourceArn=pair.dead_arn)
    assert started["TaskHandle"]
    until(lambda: pair.tasks()[0]["Status"] == "COMPLETED", what="the move")
    assert {each["Body"] for each in receive_all(sqs, pair.queue, 3)} == set("abc")
    [task] = pair.tasks()
    assert task["SourceArn"] == pair.dead_arn
    assert task["ApproximateNumberOfMessagesMoved"] == 3
    assert task["StartedTimestamp"] > 0
    assert "TaskHandle" not in task  # it is only of those that run
    sqs.start_message_move_task(SourceArn=pair.dead_arn)
    until(lambda: pair.tasks()[0]["Status"] == "COMPLETED", what="the second move")
    assert len(pair.tasks(MaxResults=1)) == 1
    assert len(pair.tasks(MaxResults=10)) == 2


@proves(BOTO3, StartMessageMoveTask="DestinationArn")
def test_dead_letters_move_to_a_queue_of_choice(sqs: Any) -> None:
    pair, other = Pair(sqs), new_queue(sqs)
    pair.bury("a")
    sqs.start_message_move_task(SourceArn=pair.dead_arn, DestinationArn=arn(sqs, other))
    assert [each["Body"] for each in receive(sqs, other)] == ["a"]
    until(lambda: pair.tasks()[0]["Status"] == "COMPLETED", what="the move")
    assert pair.tasks()[0]["DestinationArn"] == arn(sqs, other)


@proves(
    BOTO3,
    StartMessageMoveTask="MaxNumberOfMessagesPerSecond !InvalidParameterValue",
    CancelMessageMoveTask="TaskHandle !UnsupportedOperation",
    ListMessageMoveTasks="",
)
def test_a_slow_move_is_cancelled_in_the_middle(sqs: Any) -> None:
    pair = Pair(sqs)
    pair.bury(*(str(n) for n in range(10)), *(str(n) for n in range(10, 100)))
    handle = sqs.start_message_move_task(SourceArn=pair.dead_arn, MaxNumberOfMessagesPerSecond=1)[
        "TaskHandle"
    ]
    with pytest.raises(sqs.exceptions.ClientError) as caught:
        sqs.start_message_move_task(SourceArn=pair.dead_arn)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
    [running] = pair.tasks()
    assert running["Status"] == "RUNNING"
    assert running["TaskHandle"] == handle
    assert running["MaxNumberOfMessagesPerSecond"] == 1
    assert running["ApproximateNumberOfMessagesToMove"] == 100
    moved = sqs.cancel_message_move_task(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"]
    assert 0 <= moved < 100
    until(lambda: pair.tasks()[0]["Status"] == "CANCELLED", what="the cancelling")
    with pytest.raises(sqs.exceptions.UnsupportedOperation):
        sqs.cancel_message_move_task(TaskHandle=handle)
    left = int(attribute(sqs, pair.dead, "ApproximateNumberOfMessages") or 0)
    assert left + int(attribute(sqs, pair.queue, "ApproximateNumberOfMessages") or 0) == 100
    assert left > 0


NO_ARN = f"arn:aws:sqs:us-east-1:000000000000:{new_name('never')}"


@proves(
    BOTO3,
    StartMessageMoveTask="!ResourceNotFoundException !InvalidParameterValue",
    ListMessageMoveTasks="!ResourceNotFoundException !InvalidParameterValue",
    CancelMessageMoveTask="!InvalidParameterValue",
)
def test_moves_of_what_is_not_there(sqs: Any, queue: str) -> None:
    with pytest.raises(sqs.exceptions.ResourceNotFoundException):
        sqs.start_message_move_task(SourceArn=NO_ARN)
    with pytest.raises(sqs.exceptions.ResourceNotFoundException):
        sqs.start_message_move_task(SourceArn=Pair(sqs).dead_arn, DestinationArn=NO_ARN)
    with pytest.raises(sqs.exceptions.ResourceNotFoundException):
        sqs.list_message_move_tasks(SourceArn=NO_ARN)
    no_dead_letter_queue, pair = arn(sqs, queue), Pair(sqs)
    calls: list[Callable[[], Any]] = [
        lambda: sqs.start_message_move_task(SourceArn=no_dead_letter_queue),
        lambda: sqs.start_message_move_task(SourceArn="here"),
        lambda: sqs.start_message_move_task(SourceArn=pair.dead_arn, MaxNumberOfMessagesPerSecond=501),
        lambda: sqs.start_message_move_task(SourceArn=pair.dead_arn, MaxNumberOfMessagesPerSecond=0),
        lambda: sqs.list_message_move_tasks(SourceArn=pair.dead_arn, MaxResults=11),
        lambda: sqs.cancel_message_move_task(TaskHandle="AAAA"),
    ]
    for call in calls:
        with pytest.raises(sqs.exceptions.ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"


@proves(BOTO3, CancelMessageMoveTask="!ResourceNotFoundException")
def test_a_move_out_of_a_queue_that_is_gone(sqs: Any) -> None:
    pair = Pair(sqs)
    pair.bury("a")
    handle = sqs.start_message_move_task(SourceArn=pair.dead_arn)["TaskHandle"]
    until(lambda: pair.tasks()[0]["Status"] == "COMPLETED", what="the move")
    for queue in (pair.queue, pair.dead):
        sqs.delete_queue(QueueUrl=queue)
    with pytest.raises(sqs.exceptions.ResourceNotFoundException):
        sqs.cancel_message_move_task(TaskHandle=handle)


@proves(BOTO3, DeleteQueue="!UnsupportedOperation")
def test_a_dead_letter_queue_in_use_stays(sqs: Any) -> None:
    pair = Pair(sqs)
    with pytest.raises(sqs.exceptions.UnsupportedOperation):
        sqs.delete_queue(QueueUrl=pair.dead)
    sqs.delete_queue(QueueUrl=pair.queue)
    sqs.delete_queue(QueueUrl=pair.dead)
