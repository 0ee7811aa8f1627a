"""Signed bodies that come in pieces over a real connection: from boto3, and in signed chunks, without it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.clients import md5, query
from tests.clients.proofs import BOTO3, proves
from tests.clients.site import Site, receive
from tests.contract.sqs.wire import FORM
from tests.unit.server.signing import in_chunks
from windlass.server.body import MAX_BODY

pytestmark = pytest.mark.storm

LARGE = "größer " * 40_000
"""More than a read of a socket has, and than botocore sends at once."""


def chunked(site: Site, sent: list[int]) -> Any:
    """boto3's client, which sends its bodies in pieces; `sent` gets the size of each."""

    class Read(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            sent.append(len(piece))
            return piece

    def before_sign(request: Any, **_: Any) -> None:
        request.headers["Transfer-Encoding"] = "chunked"
        request.data = Read(request.data)

    def before_send(request: Any, **_: Any) -> None:
        assert "Content-Length" not in request.headers
        sent.clear()  # it was read once, to be signed

    client = site.client()
    client.meta.events.register("before-sign.sqs.*", before_sign)
    client.meta.events.register("before-send.sqs.*", before_send)
    return client


@proves(BOTO3, SendMessage="MessageBody !SignatureDoesNotMatch")
def test_boto3_may_send_its_bodies_in_pieces(site: Site, sqs: Any, queue: str) -> None:
    """Planted defect: the signature is held against the first piece."""
    sent: list[int] = []
    client = chunked(site, sent)
    for message in ("rope", LARGE):
        answer = client.send_message(QueueUrl=queue, MessageBody=message)
        assert answer["MD5OfMessageBody"] == md5.of_body(message)
    assert len(sent) > 3
    assert [message["Body"] for message in receive(sqs, queue)] == ["rope", LARGE]
    wrong = chunked(dataclasses.replace(site, secret="wrong"), sent)
    with pytest.raises(ClientError) as caught:
        wrong.send_message(QueueUrl=queue, MessageBody=LARGE)
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    assert len(sent) > 3


@pytest.mark.parametrize("way", ["json", "query"])
@pytest.mark.parametrize("trailers", [None, {"x-amz-checksum-crc32": "NhCmhg=="}])
def test_signed_chunks(site: Site, sqs: Any, queue: str, way: str, trailers: dict[str, str] | None) -> None:
    """Planted defect: what stands around the chunks is handed on."""
    text, headers = _send(way, queue, LARGE)
    pieces = [text[start : start + 8192] for start in range(0, len(text), 8192)]
    more: dict[str, Any] = {"url": queue, "headers": headers, "trailers": trailers}
    request = in_chunks(*pieces, pair=(site.access, site.secret), **more)
    for content in (request.body, iter(request.frames)):  # with its length; and in HTTP's chunks besides
        answer = httpx.post(queue, headers=list(request.headers), content=content)
        assert answer.status_code == 200, answer.text
    assert [message["Body"] for message in receive(sqs, queue)] == [LARGE, LARGE]
    wrong = in_chunks(*pieces, pair=(site.access, "wrong"), **more)
    refused = httpx.post(queue, headers=list(wrong.headers), content=iter(wrong.frames))
    assert (refused.status_code, _code(refused)) == (403, "SignatureDoesNotMatch")
    broken = httpx.post(queue, headers=list(request.headers), content=iter(request.frames[:-1]))
    assert (broken.status_code, _code(broken)) == (400, "IncompleteSignature")


@pytest.mark.parametrize("way", ["json", "query"])
def test_pieces_without_end(site: Site, queue: str, way: str) -> None:
    """Planted defect: only what Content-Length says is held against the limit."""
    text, headers = _send(way, queue, "x" * MAX_BODY)
    request = in_chunks(text, url=queue, headers=headers, pair=(site.access, site.secret))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(request.body), 1_000_000):
            yield request.body[start : start + 1_000_000]

    answer = httpx.post(queue, headers=list(request.headers), content=pieces())
    assert (answer.status_code, _code(answer)) == (400, "InvalidParameterValue")
    assert "A body may have 17,825,792 bytes." in answer.text


def test_a_body_that_breaks_off(site: Site, sqs: Any, queue: str) -> None:
    """Planted defect: the end of the connection is taken for the end of the body."""
    text, headers = _send("json", queue, "rope")
    request = in_chunks(text, url=queue, headers=headers, pair=(site.access, site.secret))
    url = urlsplit(queue)
    lines = [f"POST {url.path} HTTP/1.1".encode(), *(b": ".join(pair) for pair in request.headers)]
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""])
    with socket.create_connection((url.hostname, url.port or 80), timeout=60) as connection:
        connection.sendall(head + b"%x\r\n%b\r\n" % (len(request.body), request.body))
        connection.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", heard) == [b"400"]
    assert receive(sqs, queue, wait=0) == []


def _send(way: str, queue: str, message: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a SendMessage."""
    if way == "json":
        known = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
        return json.dumps({"QueueUrl": queue, "MessageBody": message}).encode(), known
    form = {"Action": "SendMessage", "Version": query.VERSION, "MessageBody": message}
    return urlencode(form).encode(), {"Content-Type": FORM}


def _code(answer: httpx.Response) -> str:
    if answer.headers["content-type"] == "text/xml":
        return query.told(answer).one("Code")
    return answer.headers["x-amzn-query-error"].partition(";")[0]
