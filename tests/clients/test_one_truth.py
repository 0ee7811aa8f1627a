"""One queue with two faces: what is sent over one is received over the other, and means the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.clients import query
from tests.clients.proofs import BOTO3, proves
from tests.clients.site import Site, attribute, new_name, new_queue, receive

pytestmark = pytest.mark.storm


@pytest.fixture
def plain(site: Site) -> Iterator[httpx.Client]:
    """What curl would be."""
    with httpx.Client(base_url=site.url, headers={"authorization": f"Bearer {site.bearer}"}) as client:
        yield client


def name_of(queue: str) -> str:
    return queue.rpartition("/")[2]


@proves(BOTO3, ReceiveMessage="", DeleteMessage="")
@pytest.mark.parametrize(
    ("content", "body"),
    [
        ("hello", "hello"),
        ("größer 𝄞", "größer 𝄞"),
        ({"order": [1, 2.5, None]}, {"order": [1, 2.5, None]}),
        (7, 7),
        (True, True),
        ('{"a": "string"}', '{"a": "string"}'),
    ],
)
def test_what_curl_sends_boto3_receives(
    sqs: Any, plain: httpx.Client, queue: str, content: Any, body: Any
) -> None:
    sent = plain.post(f"/queues/{name_of(queue)}/messages", json={"content": content})
    assert sent.status_code == 201, sent.text
    [message] = receive(sqs, queue)
    assert (message["Body"] if isinstance(body, str) else json.loads(message["Body"])) == body
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert plain.get(f"/queues/{name_of(queue)}").json()["leased"] == 0


@proves(BOTO3, SendMessage="")
@pytest.mark.parametrize("body", ["hello", "größer 𝄞", '{"a": 1}'])
def test_what_boto3_sends_curl_receives(sqs: Any, plain: httpx.Client, queue: str, body: str) -> None:
    sent = sqs.send_message(QueueUrl=queue, MessageBody=body)
    path = f"/queues/{name_of(queue)}"
    message = plain.post(path + "/receive", json={"lease": 60, "wait": 20}).json()
    assert message["content"] == body
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "1"
    assert plain.delete(f"{path}/receipts/{message['receipt']}").status_code == 204
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "0"
    assert sent["MessageId"]


@proves(BOTO3, GetQueueUrl="", CreateQueue="", ListQueues="", DeleteQueue="")
def test_queues_are_the_same(sqs: Any, plain: httpx.Client) -> None:
    name = new_name("both")
    assert plain.post("/queues", json={"name": name}).status_code == 201
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    assert sqs.list_queues(QueueNamePrefix=name)["QueueUrls"] == [url]
    sqs.delete_queue(QueueUrl=url)
    assert plain.get(f"/queues/{name}").status_code == 404
    made = new_queue(sqs)
    assert plain.get(f"/queues/{name_of(made)}").status_code == 200
    assert plain.delete(f"/queues/{name_of(made)}").status_code == 204
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=name_of(made))


def test_what_xml_cannot_carry_stays(site: Site, plain: httpx.Client, queue: str) -> None:
    """Planted: a message that is leased although its answer was an error."""
    assert plain.post(f"/queues/{name_of(queue)}/messages", json={"content": "a\0b"}).status_code == 201
    refused = query.call(site, "ReceiveMessage", queue)
    assert 400 <= refused.status < 500
    stats = plain.get(f"/queues/{name_of(queue)}").json()
    assert (stats["ready"], stats["leased"]) == (1, 0)
    message = plain.post(f"/queues/{name_of(queue)}/receive", json={"lease": 60, "wait": 20}).json()
    assert message["content"] == "a\0b"
