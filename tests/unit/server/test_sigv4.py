"""Signatures: botocore makes them, and what is changed afterwards, late or hostile is refused by its name."""

from __future__ import annotations

import base64
from dataclasses import replace
from email.utils import formatdate
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.server.signing import ID, SECRET, TARGET, URL, Arrived, arrived, signed
from windlass.server import sigv4
from windlass.server.sqs.errors import SqsError

QUEUE = "/000000000000/orders.fifo"
BODY = b'{"QueueUrl": "orders", "MessageBody": "rope"}'
FORM = {"Action": "SendMessage", "MessageBody": "a b+c&d=\u00e9", "Version": "2012-11-05"}


def refused(name: str, request: Arrived, words: str | None = None, *, later: float = 0) -> None:
    with pytest.raises(SqsError, match=words) as caught:
        request.verified(later=later)
    assert caught.value.name == name, caught.value.message


# --- what clients send ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        signed("GET"),
        signed("GET", "/", params={"Action": "ListQueues"}),
        signed("POST", "/", body=BODY, headers=TARGET),
        signed("POST", QUEUE, body=BODY, headers=TARGET),
        signed("POST", QUEUE, body=FORM),
        signed("POST", QUEUE + "/", body=FORM, params={"z": "1", "a": "2"}),
        signed("POST", "", body=BODY, headers=TARGET, token="a token/with+signs=="),
        signed(region="us-gov-west-1"),
        signed("GET", "/", params=FORM, expires=60),
        signed("GET", QUEUE, params=FORM, expires=604_800, token="a token/with+signs=="),
        signed("POST", QUEUE, headers=TARGET, expires=1),
    ],
)
def test_what_botocore_signs_is_good(request_: Arrived) -> None:
    assert request_.verified() == ID


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/a%20b/%C3%A9", {}),
        ("/a//b/./c/../d", {}),
        ("/..", {}),
        ("/.hidden/~x/", {}),
        ("/a%2Fb/(x)!'*:@,;=$", {}),
        ("/", {"a b": "c+d", "\u00e9": "\u2603/?#[]@!$&'()*+,;=:%", "empty": "", "tilde": "~-_."}),
        ("/", {"a": "1", "a-b": "2", "a.b": "3", "A": "4", "aa": "5"}),
        ("/", {"%41": "%2B", "+": " "}),
    ],
)
@pytest.mark.parametrize("expires", [None, 60])
def test_odd_characters(path: str, params: dict[str, str], expires: int | None) -> None:
    """Planted defects: a path encoded once; `a-b=` sorted before `a=`; `+` read as a plus."""
    assert signed("GET", path, params=params, expires=expires).verified() == ID


def test_spaces_in_values_count_once() -> None:
    """Planted defect: values signed as they came."""
    request = signed(body=BODY, headers=TARGET | {"X-Amz-Note": "  a    b \t c "})
    assert request.with_header("x-amz-note", "a    b \t c").verified() == ID
    assert request.with_header("x-amz-note", "a b c").verified() == ID
    refused("SignatureDoesNotMatch", request.with_header("x-amz-note", "ab c"))


def test_headers_of_one_name_are_one_list() -> None:
    """Planted defect: only the last of them is looked at."""
    request = signed(headers={"X-Amz-Note": "one,two  words"})
    assert request.with_header("x-amz-note", "one ", "two  words").verified() == ID
    refused("SignatureDoesNotMatch", request.with_header("x-amz-note", "two words", "one"))
    refused("SignatureDoesNotMatch", request.with_header("host", "127.0.0.1:8000", "evil.example"))


@pytest.mark.parametrize("between", [",", ",   ", " , "])
def test_spaces_between_the_parts_of_a_header(between: str) -> None:
    request = signed(body=BODY)
    header = request.header("authorization").decode()
    assert request.with_header("authorization", header.replace(", ", between)).verified() == ID


def test_a_date_header_is_a_time_too() -> None:
    date = formatdate(1_800_000_000)
    request = signed(headers={"Date": date})
    assert b"x-amz-date" not in dict(request.headers)
    assert request.verified() == ID
    for zone in ("+0000", "GMT"):
        refused("SignatureDoesNotMatch", request.with_header("date", f"Fri, 15 Jan 2027 08:00:00 {zone}"))
    for none in ("", "yesterday", "Fri, 99 Jan 2027 08:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2300"):
        refused("IncompleteSignature", request.with_header("date", none), "Date header")


def test_a_client_of_boto3_is_known() -> None:
    """Each of its ways: JSON in a POST, and what it presigns, whose headers a client sends along."""
    client = boto3.client(
        "sqs",
        region_name="eu-west-1",
        endpoint_url=URL,
        aws_access_key_id=ID,
        aws_secret_access_key=SECRET,
    )
    sent: list[Arrived] = []

    class Nothing:
        def stream(self, **_: Any) -> Any:
            yield b"{}"

    def instead(request: Any, **_: Any) -> AWSResponse:
        sent.append(arrived(request))
        return AWSResponse(request.url, 200, {}, Nothing())

    client.meta.events.register("before-send.sqs.*", instead)
    client.list_queues(QueueNamePrefix="\u00e9 +")
    client.purge_queue(QueueUrl=f"{URL}/000000000000/orders")
    assert [request.verified() for request in sent] == [ID, ID]
    url = client.generate_presigned_url("list_queues", Params={"QueueNamePrefix": "a b+c"}, HttpMethod="GET")
    names = dict(sent[0].headers)
    query = url.partition("?")[2].encode()
    headers = tuple(
        (name, names[name]) for name in (b"host", b"content-type", b"x-amz-target", b"x-amzn-query-mode")
    )
    assert Arrived("GET", b"/", query, headers, b"").verified() == ID


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.lists(texts, max_size=4),
    st.dictionaries(texts.filter(lambda name: not name.startswith("X-Amz-")), texts, max_size=5),
    st.dictionaries(st.from_regex("x-amz-[a-z]{9,12}", fullmatch=True), words, max_size=3),
    st.binary(max_size=50),
)
def test_whatever_botocore_signs_is_good(
    method: str, parts: list[str], params: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    path = "/" + "/".join(quote(part, safe="!*'();:@&=+$,") for part in parts)
    request = signed(method, path, params=params, headers=headers, body=body)
    assert request.verified() == ID
    refused("SignatureDoesNotMatch", replace(request, body=body + b"x"))
    presigned = signed(method, path, params=params, headers=headers, expires=60)
    assert presigned.verified() == ID


# --- what was changed -----------------------------------------------------------------------------------


def changes(request: Arrived) -> dict[str, Arrived]:
    authorization = request.header("authorization").decode()
    stamp = request.header("x-amz-date").decode()
    signature = authorization.rpartition("=")[2]
    other = "0" if signature[-1] != "0" else "1"
    return {
        "body": replace(request, body=request.body + b" "),
        "no body": replace(request, body=b""),
        "path": replace(request, path=b"/000000000000/other"),
        "query": replace(request, query=b"a=2"),
        "query more": replace(request, query=b"a=1&b=2"),
        "no query": replace(request, query=b""),
        "method": replace(request, method="GET"),
        "host": request.with_header("host", "127.0.0.1:8001"),
        "target": request.with_header("x-amz-target", "AmazonSQS.PurgeQueue"),
        "second": request.with_header("x-amz-date", stamp[:-2] + ("1Z" if stamp[-2] == "0" else "0Z")),
        "region": request.with_header("authorization", authorization.replace("eu-west-1", "eu-west-2")),
        "fewer headers": request.with_header("authorization", authorization.replace(";x-amz-date", "")),
        "signature": request.with_header("authorization", authorization[:-1] + other),
        "short signature": request.with_header("authorization", authorization[:-1]),
        "long signature": request.with_header("authorization", authorization + "0"),
        "upper case": request.with_header(
            "authorization", authorization.replace(signature, signature.upper())
        ),
        "odd signature": request.with_header("authorization", authorization[:-1] + "\xe9"),
    }


ORIGINAL = signed("POST", "/000000000000/orders?a=1", body=BODY, headers=TARGET)


@pytest.mark.parametrize("name", changes(ORIGINAL))
def test_what_is_changed_on_the_way_is_refused(name: str) -> None:
    """Planted defects: body, path, query or method left out of what is signed; signatures compared up to the
    shorter one's length."""
    assert ORIGINAL.verified() == ID
    refused("SignatureDoesNotMatch", changes(ORIGINAL)[name])


def test_another_secret_is_refused() -> None:
    with pytest.raises(SqsError) as caught:
        ORIGINAL.verified(secret=SECRET[::-1])
    assert (caught.value.name, caught.value.status) == ("SignatureDoesNotMatch", 403)


def test_an_unknown_access_key_is_refused_before_anything_is_computed() -> None:
    header = ORIGINAL.header("authorization").decode()
    with pytest.raises(sigv4.AccessKeyUnknown) as caught:
        ORIGINAL.with_header("authorization", header.replace(ID, "WINDLASS0")).verified(later=1e9)
    assert (caught.value.name, caught.value.status) == ("InvalidClientTokenId", 403)
    assert caught.value.access_key == "WINDLASS0"
    assert "windlass key create" in caught.value.message


def test_a_plus_means_what_the_form_reads() -> None:
    """Planted defect: `+` and `%2B` are the same to the signature, and not to who reads the query."""
    request = signed("GET", "/", params={"a": "1+1"})
    assert request.query == b"a=1%2B1"
    refused("SignatureDoesNotMatch", replace(request, query=b"a=1+1"))


def test_what_must_be_signed() -> None:
    """Planted defects: the host left out, and the request sent on to another server; the target, and the
    ReceiveMessage of a minute ago becomes a PurgeQueue."""
    refused("IncompleteSignature", signed(left_out=["host"]), "host")
    request = signed(body=BODY, headers=TARGET, left_out=["x-amz-target"])
    refused("IncompleteSignature", request, "x-amz-target")
    assert signed(headers={"Content-Type": "x"}, left_out=["content-type"]).verified() == ID
    presigned = signed("GET", params={"a": "1"}, expires=60)
    refused("IncompleteSignature", presigned.with_header("x-amz-target", "AmazonSQS.PurgeQueue"))


def test_a_header_is_signed_once() -> None:
    """Planted defect: 10,000 times the same long header, all put together before anything is refused."""
    header = ORIGINAL.header("authorization").decode()
    again = header.replace("SignedHeaders=", "SignedHeaders=" + "x-long;" * 10_000)
    request = ORIGINAL.with_header("x-long", "x" * 20_000).with_header("authorization", again)
    refused("IncompleteSignature", request, "once")


def test_a_signed_header_that_did_not_arrive_is_named() -> None:
    gone = replace(ORIGINAL, headers=tuple(pair for pair in ORIGINAL.headers if pair[0] != b"content-type"))
    refused("SignatureDoesNotMatch", gone, "content-type.*proxy")


def test_the_hash_that_a_client_sends() -> None:
    """Planted defect: what the header says is taken for the body's hash, and any body goes with it."""
    right = sha256(BODY).hexdigest()
    request = signed(body=BODY, headers={"X-Amz-Content-SHA256": right})
    assert request.verified() == ID
    refused("SignatureDoesNotMatch", replace(request, body=b"other"), "SHA-256 of the body")
    other = signed(body=BODY, headers={"X-Amz-Content-SHA256": sha256(b"other").hexdigest()})
    refused("SignatureDoesNotMatch", other, "SHA-256 of the body")
    for none in (
        "UNSIGNED-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
    ):
        request = signed(body=BODY, headers={"X-Amz-Content-SHA256": none})
        refused("IncompleteSignature", request, f"{none}.*not accepted")


# --- what is late ---------------------------------------------------------------------------------------


def test_clocks_may_differ_by_a_quarter_of_an_hour() -> None:
    """Planted defect: what was overheard is good for ever."""
    for later in (-900, 0, 900):
        assert ORIGINAL.verified(later=later) == ID
    refused("RequestExpired", ORIGINAL, "expired.*Sign anew", later=901)
    refused("RequestExpired", ORIGINAL, "not yet current.*clock", later=-901)


def test_a_presigned_url_is_good_as_long_as_it_says() -> None:
    """Planted defect: its lifetime is not looked at."""
    request = signed("GET", params={"Action": "ListQueues"}, expires=3600)
    for later in (-900, 0, 3600):
        assert request.verified(later=later) == ID
    refused("RequestExpired", request, "expired", later=3601)
    refused("RequestExpired", request, "not yet", later=-901)
    longer = replace(request, query=request.query.replace(b"Expires=3600", b"Expires=604800"))
    refused("SignatureDoesNotMatch", longer)


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "1.5", "x", "9999999999", "\u0663"])
def test_a_presigned_url_is_good_for_seven_days_at_most(expires: Any) -> None:
    refused("IncompleteSignature", signed("GET", expires=expires), "7 days")


def test_a_presigned_url_that_was_changed_is_refused() -> None:
    request = signed("GET", QUEUE, params={"Action": "ListQueues"}, expires=60)
    refused("SignatureDoesNotMatch", replace(request, query=request.query.replace(b"List", b"Purge")))
    refused("SignatureDoesNotMatch", replace(request, query=request.query + b"&a=1"))
    refused("SignatureDoesNotMatch", replace(request, path=b"/"))
    refused("SignatureDoesNotMatch", replace(request, body=b"a=1"))
    refused("IncompleteSignature", replace(request, query=request.query + b"&X-Amz-Date=1"), "twice")
    for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"):
        without = replace(request, query=request.query.replace(f"X-Amz-{name}=".encode(), b"x="))
        refused("IncompleteSignature", without, name)
    apart = b"&".join(reversed(request.query.split(b"&")))
    assert replace(request, query=apart).verified() == ID


# --- what is no signature -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Basic abc", "must begin with AWS4-HMAC-SHA256"),
        ("AWS WINDLASS1A2B3C4D:abc", "must begin"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a/b/c/d", "must begin"),
        ("", "must begin"),
        ("AWS4-HMAC-SHA256", "cannot be read"),
        ("AWS4-HMAC-SHA256 Credential", "cannot be read"),
        ("AWS4-HMAC-SHA256 Credential=", "parameter Credential"),
        ("AWS4-HMAC-SHA256 Credential=a, Signature=b", "parameter SignedHeaders"),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host", "parameter Signature"),
        ("AWS4-HMAC-SHA256 Credential=a, Credential=a", "cannot be read"),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=b", "after the id is ''"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f, SignedHeaders=host, Signature=b", "after the id is"),
        (
            "AWS4-HMAC-SHA256 Credential=a/1/r\u00e9/sqs/aws4_request, SignedHeaders=host, Signature=b",
            "after the id",
        ),
    ],
)
def test_what_is_no_signature_is_told_so(header: str, words: str) -> None:
    refused("IncompleteSignature", signed().with_header("authorization", header), words)


def test_a_request_without_a_signature_is_told_what_to_do() -> None:
    bare = Arrived("POST", b"/", b"X-Amz-Datum=1", ((b"host", b"localhost"),), b"")
    refused("MissingAuthenticationToken", bare, "windlass key create")


def test_the_scope_is_that_of_sqs_today() -> None:
    """Planted defect: what a client signed for another service is good here."""
    refused("SignatureDoesNotMatch", signed(service="s3"), "sqs/aws4_request")
    header = ORIGINAL.header("authorization").decode()
    end = ORIGINAL.with_header("authorization", header.replace("aws4_request", "aws5_request"))
    refused("SignatureDoesNotMatch", end, "sqs/aws4_request")
    day = ORIGINAL.header("x-amz-date").decode()[:8]
    other = ORIGINAL.with_header("authorization", header.replace(f"/{day}/", "/20200101/"))
    refused("SignatureDoesNotMatch", other, "date in the credential")


@pytest.mark.parametrize(
    "stamp", ["20260231T000000Z", "20260101T250000Z", "20260101T000000", "00000101T000000Z"]
)
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    header = ORIGINAL.header("authorization").decode()
    day = ORIGINAL.header("x-amz-date").decode()[:8]
    request = ORIGINAL.with_header("authorization", header.replace(f"/{day}/", f"/{stamp[:8]}/"))
    refused("IncompleteSignature", request.with_header("x-amz-date", stamp), "20260102T030405Z")


def parts_or(valid: str) -> st.SearchStrategy[str]:
    return st.one_of(st.just(valid), st.text(st.characters(max_codepoint=255), max_size=30))


hostile_headers = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.builds(
        "AWS4-HMAC-SHA256 Credential={}/{}/{}/{}/aws4_request,SignedHeaders={},Signature={}".format,
        parts_or(ID),
        parts_or("20270115"),
        parts_or("eu-west-1"),
        parts_or("sqs"),
        parts_or("host"),
        parts_or("0" * 64),
    ),
)
hostile_queries = st.builds(
    "X-Amz-Algorithm={}&X-Amz-Credential={}/{}/r/sqs/aws4_request&X-Amz-Date={}&X-Amz-Expires={}"
    "&X-Amz-SignedHeaders={}&X-Amz-Signature={}".format,
    parts_or("AWS4-HMAC-SHA256"),
    parts_or(ID),
    parts_or("20270115"),
    parts_or("20270115T080000Z"),
    parts_or("60"),
    parts_or("host"),
    parts_or("0" * 64),
)


@given(
    st.none() | hostile_headers,
    st.one_of(st.text(st.characters(max_codepoint=255), max_size=40), hostile_queries),
    st.binary(max_size=30),
    st.none() | parts_or("20270115T080000Z"),
    st.none() | parts_or("Fri, 15 Jan 2027 08:00:00 GMT"),
    st.none() | parts_or("UNSIGNED-PAYLOAD") | parts_or("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
)
def test_hostile_input_gets_an_error_of_sqs(
    authorization: str | None,
    query: str,
    path: bytes,
    stamp: str | None,
    date: str | None,
    hashed: str | None,
) -> None:
    """Planted defect: anything but SqsError, for which a client would be told of a fault of the server."""
    named = {
        "host": "localhost",
        "authorization": authorization,
        "x-amz-date": stamp,
        "date": date,
        "x-amz-content-sha256": hashed,
    }
    headers = [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value is not None]
    with pytest.raises(SqsError) as caught:
        sigv4.verify("POST", path, query.encode("latin-1"), headers, b"", 1_800_000_000, {ID: SECRET}.get)
    assert caught.value.status in (400, 403)
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()


# --- what is remembered ---------------------------------------------------------------------------------


def test_signing_keys_are_remembered_and_their_memory_is_bounded() -> None:
    """Planted defects: a key derived for each request; one remembered by its date and region alone."""
    before = sigv4._begun.cache_info()
    for _ in range(10):
        ORIGINAL.verified()
    after = sigv4._begun.cache_info()
    assert after.misses - before.misses <= 1
    assert after.maxsize == 1000
    assert sigv4._moment.cache_info().maxsize == 1000
    with pytest.raises(SqsError):
        ORIGINAL.verified(secret=base64.b64encode(b"x" * 30).decode())
