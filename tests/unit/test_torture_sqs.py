"""How the storm reads what a server says over SQS. An answer read too kindly would hide what it shows."""

from __future__ import annotations

import json
from hashlib import md5
from typing import Any

import pytest

from windlass.torture.content import content
from windlass.torture.sqs_face import SqsFace
from windlass.torture.wire import Answer, Asked

FIFO = "q.fifo"


@pytest.fixture
def face() -> SqsFace:
    return SqsFace()


def answer(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode())


def error(name: str, status: int = 400) -> Answer:
    return answer({"__type": f"com.amazonaws.sqs#{name}", "message": "No."}, status)


def message(body: str, total: str | None = None) -> dict[str, Any]:
    return {
        "MessageId": "id",
        "ReceiptHandle": "r",
        "MD5OfBody": total or md5(body.encode(), usedforsecurity=False).hexdigest(),
        "Body": body,
        "Attributes": {"ApproximateReceiveCount": "3"},
    }


def body_of(asked: Asked) -> dict[str, Any]:
    assert isinstance(asked.body, dict)
    return asked.body


def test_only_what_has_an_id_or_is_one_is_sent_again(face: SqsFace) -> None:
    """Planted: sends to a standard queue that are repeated, and stored twice."""
    assert face.ways("q") == ("none",)
    assert set(face.ways(FIFO)) == {"content", "dedup_id", "none"}
    sent = {way: body_of(face.send(FIFO, {"t": "x"}, "g", way, batch=False)) for way in face.ways(FIFO)}
    assert [way for way, each in sent.items() if "MessageDeduplicationId" in each] == ["dedup_id"]
    assert all(each["MessageGroupId"] == "g" for each in sent.values())


def test_the_ids_of_a_batch_are_in_the_order_of_its_messages(face: SqsFace) -> None:
    asked = body_of(face.send("q", {f"t{n}": f"{n}" for n in range(10)}, "", "none", batch=True))
    done = [{"Id": each["Id"], "MessageId": f"id-{each['MessageBody']}"} for each in asked["Entries"]]
    told = {"Successful": [*reversed(done)], "Failed": []}
    assert face.sent(answer(told)) == [f"id-{n}" for n in range(10)]
    assert face.sent(answer({"MessageId": "id"})) == ["id"]


@pytest.mark.parametrize("told", [error("ServiceUnavailable", 503), error("InvalidMessageContents")])
def test_an_error_is_no_success(face: SqsFace, told: Answer) -> None:
    assert face.sent(told) is None
    assert face.received(told) is None
    assert face.acknowledged(told) is None
    assert face.all_acknowledged(told) is None
    assert face.extended(told) is None
    assert face.counted(told) is None
    assert not face.created(told)


def test_a_batch_of_which_a_part_failed_is_no_success(face: SqsFace) -> None:
    told = answer({"Successful": [{"Id": "0", "MessageId": "id"}], "Failed": [{"Id": "1"}]})
    assert face.sent(told) is None
    assert face.all_acknowledged(told) is None


def test_a_message_says_what_it_is_and_which_delivery(face: SqsFace) -> None:
    (received,) = face.received(answer({"Messages": [message(content("t", 5))]})) or ()
    assert (received.token, received.id, received.deliveries, received.receipt) == ("t", "id", 3, "r")
    assert face.received(answer({})) == []


def test_a_message_whose_sum_is_another_is_damaged(face: SqsFace) -> None:
    (received,) = face.received(answer({"Messages": [message(content("t", 5), "0" * 32)]})) or ()
    assert received.token.startswith("another sum")


def test_a_delete_says_nothing_and_a_change_of_visibility_all(face: SqsFace) -> None:
    assert face.acknowledged(answer({})) == "deleted"
    assert face.all_acknowledged(answer({"Successful": [{"Id": "0"}, {"Id": "1"}], "Failed": []})) == [
        "deleted",
        "deleted",
    ]
    assert face.extended(answer({})) == "extended"
    assert face.extended(error("MessageNotInflight")) == "stale"
    assert face.extended(error("InvalidParameterValueException")) == "gone"
    assert face.extended(error("ReceiptHandleIsInvalid", 404)) is None


def test_a_fault_is_known_by_its_name(face: SqsFace) -> None:
    assert face.fault(error("ServiceUnavailable", 503)) == "ServiceUnavailable"
