"""How the storm writes and reads the query protocol; what it makes of it is SqsFace's."""

from __future__ import annotations

from hashlib import md5
from urllib.parse import parse_qsl

import pytest

from windlass.torture.content import content
from windlass.torture.query_face import QueryFace
from windlass.torture.wire import Answer, Asked


@pytest.fixture
def face() -> QueryFace:
    return QueryFace()


def answer(action: str, result: str = "") -> Answer:
    told = f"<{action}Result>{result}</{action}Result>" if result else ""
    metadata = "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
    text = f'<{action}Response xmlns="http://queue.amazonaws.com/doc/2012-11-05/">{told}{metadata}</{action}Response>'
    return Answer(200, text.encode())


def error(code: str, status: int = 400) -> Answer:
    text = f'<ErrorResponse xmlns="x:"><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>'
    return Answer(status, text.encode())


def form_of(asked: Asked) -> dict[str, str]:
    assert isinstance(asked.body, bytes)
    return dict(parse_qsl(asked.body.decode()))


def test_lists_and_maps_are_numbered(face: QueryFace) -> None:
    form = form_of(face.send("q.fifo", {"a": "x", "b": "y"}, "g", "dedup_id", batch=True))
    assert form["Action"] == "SendMessageBatch"
    second = {name: value for name, value in form.items() if ".2." in name}
    assert second == {
        "SendMessageBatchRequestEntry.2.Id": "1",
        "SendMessageBatchRequestEntry.2.MessageBody": "y",
        "SendMessageBatchRequestEntry.2.MessageGroupId": "g",
        "SendMessageBatchRequestEntry.2.MessageDeduplicationId": "b",
    }
    form = form_of(face.create("q.fifo", 2))
    assert (form["Attribute.2.Name"], form["Attribute.2.Value"]) == ("FifoQueue", "true")
    form = form_of(face.receive("q", None, None, 1, otherwise=True))
    assert form["MessageSystemAttributeName.1"] == "ApproximateReceiveCount"
    assert "VisibilityTimeout" not in form


def test_a_message_is_read(face: QueryFace) -> None:
    body = content("t", 5)
    total = md5(body.encode(), usedforsecurity=False).hexdigest()
    count = "<Attribute><Name>ApproximateReceiveCount</Name><Value>3</Value></Attribute>"
    message = f"<MessageId>id</MessageId><ReceiptHandle>r</ReceiptHandle><MD5OfBody>{total}</MD5OfBody>"
    told = answer("ReceiveMessage", f"<Message>{message}<Body>{body}</Body>{count}</Message>")
    (received,) = face.received(told) or ()
    assert (received.token, received.id, received.deliveries, received.receipt) == ("t", "id", 3, "r")
    assert face.received(answer("ReceiveMessage")) == []


def test_a_batch_of_which_a_part_failed_is_no_success(face: QueryFace) -> None:
    """Planted: one whose entries have all failed, read as a send of one message."""
    done = "".join(
        f"<SendMessageBatchResultEntry><Id>{n}</Id><MessageId>id-{n}</MessageId></SendMessageBatchResultEntry>"
        for n in (1, 0)
    )
    bad = "<BatchResultErrorEntry><Id>2</Id><Code>InternalFailure</Code></BatchResultErrorEntry>"
    assert face.sent(answer("SendMessageBatch", done)) == ["id-0", "id-1"]
    assert face.sent(answer("SendMessageBatch", done + bad)) is None
    assert face.sent(answer("SendMessageBatch", bad)) is None


def test_an_error_is_known_by_its_code(face: QueryFace) -> None:
    assert face.extended(answer("ChangeMessageVisibility")) == "extended"
    assert face.extended(error("AWS.SimpleQueueService.MessageNotInflight")) == "stale"
    assert face.extended(error("InvalidParameterValue")) == "gone"
    assert face.extended(error("ServiceUnavailable", 503)) is None
    assert face.acknowledged(error("ServiceUnavailable", 503)) is None
