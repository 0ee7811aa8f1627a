"""Dead letters over SQS, and what they tell once they went back."""

from __future__ import annotations

from tests.contract.http.served import settled
from tests.contract.sqs.wire import Wire
from windlass.server.sqs.names import arn_of


def test_a_dead_letter_tells_where_it_came_from(wire: Wire) -> None:
    """Planted: the source left out; a message that is received once too often."""
    letters = wire.create("letters")
    policy = '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:letters","maxReceiveCount":"2"}'
    url = wire.create("q", RedrivePolicy=policy)
    sent = wire.send(url, "x")
    for _ in range(2):
        assert len(wire.receive(url, VisibilityTimeout=1)) == 1
        wire.api.advance(2)
    assert wire.receive(url) == []
    (letter,) = wire.receive(letters, AttributeNames=["All"])
    assert letter["MessageId"] == sent["MessageId"]
    source = "arn:aws:sqs:us-east-1:000000000000:q"
    assert letter["Attributes"]["DeadLetterQueueSourceArn"] == source


def test_one_that_was_moved_back_is_as_if_it_were_new(wire: Wire) -> None:
    """Planted: at its second receive, the first of its life before, and a queue that it did not come from."""
    letters = wire.create("letters")
    policy = f'{{"deadLetterTargetArn":"{arn_of("letters")}","maxReceiveCount":"2"}}'
    url = wire.create("q", RedrivePolicy=policy)
    wire.api.run(wire.api.app.sqs.start())
    wire.send(url, "x")
    for _ in range(2):
        assert wire.bodies(url, VisibilityTimeout=1) == ["x"]
        wire.api.advance(2)
    assert wire.bodies(letters, VisibilityTimeout=1) == ["x"]
    wire.api.advance(2)
    wire("StartMessageMoveTask", SourceArn=arn_of("letters"))
    wire.api.run(settled(lambda: not wire.api.app.sqs._moves.moving.running))
    sent = str(wire.api.clock.now())
    wire.api.advance(1)
    received = str(wire.api.clock.now())
    for count in ("1", "2"):
        (message,) = wire.receive(url, AttributeNames=["All"], VisibilityTimeout=1)
        assert message["Attributes"] == {
            "SenderId": "000000000000",
            "SentTimestamp": sent,
            "ApproximateReceiveCount": count,
            "ApproximateFirstReceiveTimestamp": received,
        }
        wire.api.advance(2)
