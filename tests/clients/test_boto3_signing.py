"""Who may come in: boto3's signatures, presigned URLs, and the query protocol's; and without any keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore
import httpx
import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from tests.clients import md5, query
from tests.clients.proofs import BOTO3, proves
from tests.clients.site import Site, attribute, key_of, new_name, new_queue, receive
from tests.harness import ServerProcess, run_cli

pytestmark = pytest.mark.storm


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that wants no keys."""
    with ServerProcess(tmp_path_factory.mktemp("open") / "data") as server:
        yield Site(server.url, "anybody", "any-secret")


def code_of(client: Any, **call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        client.list_queues(**call)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    code: str = caught.value.response["Error"]["Code"]
    return code


@proves(BOTO3, ListQueues="!SignatureDoesNotMatch !InvalidClientTokenId !MissingAuthenticationToken")
def test_a_signature_that_is_none(site: Site) -> None:
    assert "ResponseMetadata" in site.client().list_queues()
    wrong = site.secret[:-1] + ("a" if site.secret[-1] != "a" else "b")
    assert code_of(dataclasses.replace(site, secret=wrong).client()) == "SignatureDoesNotMatch"
    unknown = dataclasses.replace(site, access=site.access[:-4] + "AAAA")
    assert code_of(unknown.client()) == "InvalidClientTokenId"
    assert code_of(site.client(signature_version=UNSIGNED)) == "MissingAuthenticationToken"


@proves(BOTO3, ListQueues="!InvalidClientTokenId")
def test_a_key_that_is_revoked_is_none_at_once(guarded: ServerProcess) -> None:
    site = key_of(guarded, "all")
    client = site.client()
    client.list_queues()
    assert run_cli("key", "revoke", site.key_id, "--data-dir", str(guarded.data_dir)).returncode == 0
    assert code_of(client) == "InvalidClientTokenId"


@proves(BOTO3, SendMessage="!AccessDenied", ReceiveMessage="!AccessDenied")
@proves(BOTO3, CreateQueue="!AccessDenied")
def test_a_keys_scopes_count(guarded: ServerProcess, sqs: Any, queue: str) -> None:
    name = queue.rpartition("/")[2]
    sender = key_of(guarded, f"send:{name}").client()
    receiver = key_of(guarded, f"receive:{name}").client()
    sender.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(receiver, queue)
    receiver.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    other = new_queue(sqs)
    calls: list[Callable[[], Any]] = [
        lambda: sender.receive_message(QueueUrl=queue),
        lambda: receiver.send_message(QueueUrl=queue, MessageBody="x"),
        lambda: sender.send_message(QueueUrl=other, MessageBody="x"),
        lambda: sender.create_queue(QueueName=new_name()),
        lambda: sender.purge_queue(QueueUrl=queue),
    ]
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "AccessDenied"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@proves(BOTO3, CreateQueue="QueueName", SendMessage="MessageBody", ReceiveMessage="", DeleteMessage="")
@pytest.mark.parametrize("signed", [True, False])
def test_without_keys_anybody_may_come_in(open_site: Site, signed: bool) -> None:
    client = open_site.client(**({} if signed else {"signature_version": UNSIGNED}))
    queue = new_queue(client)
    client.send_message(QueueUrl=queue, MessageBody="x")
    [message] = receive(client, queue)
    client.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert attribute(client, queue, "ApproximateNumberOfMessagesNotVisible") == "0"


@proves(BOTO3, SendMessage="MessageBody", ReceiveMessage="MaxNumberOfMessages")
def test_a_presigned_url_of_boto3(sqs: Any, queue: str) -> None:
    send = sqs.generate_presigned_url(
        "send_message", Params={"QueueUrl": queue, "MessageBody": "a b&c"}, ExpiresIn=600
    )
    wrong = send[:-1] + ("0" if send[-1] != "0" else "1")
    assert _opened(wrong, "SendMessage").status_code == 403
    sent = _opened(send, "SendMessage")
    assert sent.status_code == 200, sent.text
    assert sent.json()["MD5OfMessageBody"] == md5.of_body("a b&c")
    look = sqs.generate_presigned_url(
        "receive_message", Params={"QueueUrl": queue, "MaxNumberOfMessages": 1}, ExpiresIn=600
    )
    assert [each["Body"] for each in _opened(look, "ReceiveMessage").json()["Messages"]] == ["a b&c"]


def _opened(url: str, action: str) -> httpx.Response:
    """The URL with the headers that its signature covers, as boto3 would have sent them."""
    known = {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": f"AmazonSQS.{action}",
        "x-amzn-query-mode": "true",
    }
    [covered] = parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"]
    return httpx.post(url, headers={name: known[name] for name in covered.split(";") if name != "host"})


def test_a_presigned_url_of_the_query_protocol(site: Site, queue: str) -> None:
    send = query.presigned(site, "SendMessage", queue, MessageBody="a b&c", DelaySeconds=0)
    assert query.told(httpx.get(send)).one("MD5OfMessageBody") == md5.of_body("a b&c")
    refused = query.told(httpx.get(send.replace("MessageBody=a", "MessageBody=b")))
    assert (refused.status, refused.one("Code")) == (403, "SignatureDoesNotMatch")
    look = query.presigned(site, "ReceiveMessage", queue, MaxNumberOfMessages=10, WaitTimeSeconds=20)
    assert query.told(httpx.get(look)).all("Body") == ["a b&c"]


def test_the_query_protocol_with_its_signature(site: Site, sqs: Any, queue: str) -> None:
    sent = query.call(
        site,
        "SendMessage",
        queue,
        {
            "MessageBody": "größer <&>",
            "MessageAttribute.1.Name": "text",
            "MessageAttribute.1.Value.DataType": "String",
            "MessageAttribute.1.Value.StringValue": "ß",
            "MessageAttribute.2.Name": "picture",
            "MessageAttribute.2.Value.DataType": "Binary",
            "MessageAttribute.2.Value.BinaryValue": "AP8=",
        },
    )
    attributes: dict[str, dict[str, Any]] = {
        "text": {"DataType": "String", "StringValue": "ß"},
        "picture": {"DataType": "Binary", "BinaryValue": b"\0\xff"},
    }
    assert sent.status == 200
    assert sent.one("MD5OfMessageBody") == md5.of_body("größer <&>")
    assert sent.one("MD5OfMessageAttributes") == md5.of_attributes(attributes)
    [message] = receive(sqs, queue, MessageAttributeNames=["All"], VisibilityTimeout=0)
    assert (message["Body"], message["MessageAttributes"]) == ("größer <&>", attributes)
    asked = {"QueueUrl": queue, "AttributeName.1": "All", "MessageAttributeName.1": "All"}
    found = query.call(site, "ReceiveMessage", "", asked | {"WaitTimeSeconds": 20})
    assert found.one("Body") == "größer <&>"
    assert found.one("MessageId") == sent.one("MessageId")
    assert set(found.all("Name")) > {"text", "picture", "SentTimestamp"}
    gone = query.call(site, "DeleteMessage", queue, {"ReceiptHandle": found.one("ReceiptHandle")})
    assert gone.status == 200
    assert gone.one("RequestId")
    assert attribute(sqs, queue, "ApproximateNumberOfMessagesNotVisible") == "0"


def test_errors_of_the_query_protocol(site: Site, queue: str) -> None:
    never = query.call(site, "SendMessage", f"{queue}-never", {"MessageBody": "x"})
    assert (never.status, never.one("Code")) == (400, "AWS.SimpleQueueService.NonExistentQueue")
    assert never.one("Type") == "Sender"
    unknown = query.call(site, "Dance", queue)
    assert (unknown.status, unknown.one("Code")) == (400, "InvalidAction")
    wrong = dataclasses.replace(site, secret="wrong")
    refused = query.call(wrong, "ListQueues")
    assert (refused.status, refused.one("Code")) == (403, "SignatureDoesNotMatch")


def test_the_model_that_is_proved_is_that_of_the_installed_botocore() -> None:
    data = Path(botocore.__file__).parent / "data" / "sqs"
    assert [version.name for version in data.iterdir()] == [query.VERSION]
