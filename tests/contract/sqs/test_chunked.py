"""Signed bodies that come in pieces, over both protocols and every road: HTTP's chunks, SigV4's, and both."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.contract.http.served import Served
from tests.contract.sqs.test_signing import call, made, pair_of, refused, sent
from tests.contract.sqs.wire import FORM, plain
from tests.unit.server.signing import URL, Arrived, in_chunks, signed
from tests.unit.server.test_protocol import Line
from windlass.server.body import MAX_BODY
from windlass.server.protocol import MAX_SHORT

QUEUE = "/000000000000/orders"
JSON = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
WAYS = ("json", "query")
CHECKSUM = {"x-amz-checksum-crc32": "NhCmhg=="}


@pytest.fixture
def pair(api: Served) -> tuple[str, str]:
    """Of a key that may do everything, and a queue is there."""
    key = pair_of(made(api, "all"))
    answer = sent(api, call("CreateQueue", key, QueueName="orders"))
    assert answer.status_code == 200, answer.text
    return key


def in_pieces(api: Served, request: Arrived, size: int = 7) -> httpx.Response:
    """Send a request in `Transfer-Encoding: chunked`, that many bytes at a time."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(request.body), size):
            yield request.body[start : start + size]

    headers = [pair for pair in request.headers if pair[0] != b"content-length"]
    return api(request.method, request.path.decode(), content=pieces(), headers=headers)


def text_of(way: str, message: str) -> bytes:
    """The body of a SendMessage."""
    if way == "json":
        return json.dumps({"QueueUrl": "orders", "MessageBody": message}).encode()
    return urlencode({"Action": "SendMessage", "MessageBody": message, "Version": "2012-11-05"}).encode()


def headers_of(way: str) -> dict[str, str]:
    return JSON if way == "json" else {"Content-Type": FORM}


def send(way: str, pair: tuple[str, str], message: str) -> Arrived:
    return signed(path=QUEUE, body=text_of(way, message), headers=headers_of(way), pair=pair)


def send_in_chunks(way: str, pair: tuple[str, str], message: str, *, size: int = 10, **more: Any) -> Arrived:
    text = text_of(way, message)
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    return in_chunks(*chunks, url=URL + QUEUE, headers=headers_of(way), pair=pair, **more)


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error in either protocol."""
    if answer.headers["content-type"] == "text/xml":
        return answer.status_code, str(plain(answer.text).findtext("Error/Code"))
    return answer.status_code, answer.headers["x-amzn-query-error"].partition(";")[0]


def received(api: Served, pair: tuple[str, str]) -> list[str]:
    answer = in_pieces(api, call("ReceiveMessage", pair, QueueUrl="orders", MaxNumberOfMessages=10))
    return [message["Body"] for message in answer.json().get("Messages", [])]


# --- HTTP's chunks: the body is signed whole -----------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_signed_body_may_come_in_pieces(api: Served, pair: tuple[str, str], way: str) -> None:
    """Planted defect: the signature is held against the first piece."""
    for size in (1, 7, 10_000):
        answer = in_pieces(api, send(way, pair, f"größer {size}"), size)
        assert answer.status_code == 200, answer.text
    assert received(api, pair) == ["größer 1", "größer 7", "größer 10000"]
    large = "x" * (MAX_SHORT + 100)
    assert in_pieces(api, send(way, pair, large), 65_536).status_code == 200
    assert received(api, pair) == [large]


@pytest.mark.parametrize("way", WAYS)
def test_pieces_that_were_not_signed_so_are_refused(api: Served, pair: tuple[str, str], way: str) -> None:
    """Planted defect: a body that comes in pieces is not held against its signature."""
    good = send(way, pair, "rope")
    for body in (good.body.replace(b"rope", b"ruin"), good.body[:-1], good.body + b" ", b""):
        assert told(in_pieces(api, replace(good, body=body))) == (403, "SignatureDoesNotMatch")
    wrong = send(way, (pair[0], "wrong"), "rope")
    assert told(in_pieces(api, wrong)) == (403, "SignatureDoesNotMatch")
    hashed = good.with_header("x-amz-content-sha256", "0" * 64)
    assert told(in_pieces(api, hashed)) == (403, "SignatureDoesNotMatch")
    assert received(api, pair) == []


@pytest.mark.parametrize("way", WAYS)
def test_pieces_without_end_are_refused(api: Served, pair: tuple[str, str], way: str) -> None:
    """Planted defect: only what Content-Length says is held against the limit."""
    for request in (
        send(way, pair, "x" * MAX_BODY),
        send_in_chunks(way, pair, "x" * MAX_BODY, size=1_000_000),
    ):
        answer = in_pieces(api, request, 1_000_000)
        assert told(answer) == (400, "InvalidParameterValue")
        assert "A body may have 17,825,792 bytes." in answer.text
    assert received(api, pair) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_body_that_breaks_off_is_refused(api: Served, pair: tuple[str, str], way: str) -> None:
    """Planted defect: the end of the connection is taken for the end of the body."""
    for request in (send(way, pair, "rope"), send_in_chunks(way, pair, "rope")):
        headers = [b"%b: %b\r\n" % header for header in request.headers if header[0] != b"content-length"]
        head = b"POST " + QUEUE.encode() + b" HTTP/1.1\r\n" + b"".join(headers)
        framed = b"%x\r\n%b\r\n" % (len(request.body), request.body)
        for stop in (b"", framed[:20], framed, framed + b"0\r\n"):

            async def scenario(*said: bytes) -> bytes:
                line = Line(api)
                line.say(*said)
                line.protocol.eof_received()
                return await line.hear(lambda heard: heard.endswith(b"}"))

            answer = api.run(scenario(head + b"Transfer-Encoding: chunked\r\n\r\n", stop))
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"The body ended before its end." in answer
    assert received(api, pair) == []


# --- SigV4's chunks: each is signed --------------------------------------------------------------------


@pytest.mark.parametrize("trailers", [None, CHECKSUM])
@pytest.mark.parametrize("way", WAYS)
def test_a_body_may_come_in_signed_chunks(
    api: Served, pair: tuple[str, str], way: str, trailers: dict[str, str] | None
) -> None:
    """Planted defect: what is verified is handed on as it came, with what stands around the chunks."""
    for size, message in ((1, "größer"), (10_000, "rope"), (65_536, "x" * (MAX_SHORT + 100))):
        request = send_in_chunks(way, pair, message, size=size, trailers=trailers)
        whole = api("POST", QUEUE, request.body, headers=list(request.headers))
        assert whole.status_code == 200, whole.text
        within = in_pieces(api, request, 65_536 if size > 1 else 3)
        assert within.status_code == 200, within.text
        assert received(api, pair) == [message, message]


@pytest.mark.parametrize("way", WAYS)
def test_chunks_that_were_not_signed_so_are_refused(api: Served, pair: tuple[str, str], way: str) -> None:
    """Planted defect: a fault of the server for what cannot be read."""
    good = in_chunks(text_of(way, "rope"), url=URL + QUEUE, headers=headers_of(way), pair=pair)
    first, last = good.frames
    mismatch, incomplete = (403, "SignatureDoesNotMatch"), (400, "IncompleteSignature")
    for frames, expected in (
        ((first.replace(b"rope", b"ruin"), last), mismatch),
        ((last,), mismatch),
        ((first, first, last), mismatch),
        ((first,), incomplete),
        ((first, last, b"0"), incomplete),
        ((b"g" + first[1:], last), incomplete),
        ((text_of(way, "rope"),), incomplete),
        ((), incomplete),
    ):
        assert told(in_pieces(api, good.with_frames(*frames))) == expected
    wrong = send_in_chunks(way, (pair[0], "wrong"), "rope")
    assert told(in_pieces(api, wrong)) == mismatch
    short = send_in_chunks(way, pair, "rope", says={"X-Amz-Decoded-Content-Length": "1"})
    assert told(in_pieces(api, short)) == incomplete
    for form in ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
        unsigned = send_in_chunks(way, pair, "rope", says={"X-Amz-Content-SHA256": form})
        answer = in_pieces(api, unsigned)
        assert told(answer) == incomplete
        assert "Switch the signing of payloads on" in answer.text
    assert received(api, pair) == []


def test_who_signs_chunks_is_let_in_as_far_as_the_key_reaches(api: Served, pair: tuple[str, str]) -> None:
    other = pair_of(made(api, "send:other"))
    refused(in_pieces(api, send_in_chunks("json", other, "rope")), 403, "AccessDeniedException")
    assert in_pieces(api, send_in_chunks("json", pair, "rope")).status_code == 200


@pytest.mark.parametrize("way", WAYS)
def test_without_keys_chunks_are_read_and_signatures_not_looked_at(api: Served, way: str) -> None:
    """Planted defect: without keys the chunks are handed on as they came."""
    assert api("GET", "/health").status_code == 200
    anybody = ("any", "any")
    create = call("CreateQueue", anybody, QueueName="orders").with_header("host", "localhost")
    assert in_pieces(api, create).status_code == 200
    for trailers in (None, CHECKSUM):
        request = send_in_chunks(way, anybody, "rope", trailers=trailers).with_header("host", "localhost")
        assert in_pieces(api, request).status_code == 200
        broken = replace(request, body=request.body[:-1])
        assert told(in_pieces(api, broken)) == (400, "IncompleteSignature")
    unsigned = request.with_header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    assert told(in_pieces(api, unsigned)) == (400, "IncompleteSignature")
    receive = call("ReceiveMessage", anybody, QueueUrl="orders", MaxNumberOfMessages=10)
    answer = in_pieces(api, receive.with_header("host", "localhost"))
    assert [message["Body"] for message in answer.json()["Messages"]] == ["rope", "rope"]
