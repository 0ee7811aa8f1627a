"""Bodies in signed chunks: however they are cut they are read, and what was not signed so is refused."""

from __future__ import annotations

import hmac
import re
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.server.signing import ID, TARGET, Arrived, InChunks, in_chunks, signed
from windlass.server import signed_chunks
from windlass.server.signed_chunks import Seed
from windlass.server.sqs.errors import SqsError

CHUNKS = (b'{"QueueUrl": "orders", ', b'"MessageBody": ', b'"rope"}')
BODY = b"".join(CHUNKS)
CHECKSUM = {"x-amz-checksum-crc32": "NhCmhg=="}
TWO = CHECKSUM | {"x-amz-a": "1"}
PLAIN = in_chunks(*CHUNKS, headers=TARGET)
TRAILER = in_chunks(*CHUNKS, headers=TARGET, trailers=CHECKSUM)

unreadable, unsigned = "IncompleteSignature", "SignatureDoesNotMatch"


def refused(name: str, request: Arrived, words: str | None = None) -> None:
    with pytest.raises(SqsError, match=words) as caught:
        request.read()
    assert caught.value.name == name, caught.value.message
    assert caught.value.status in (400, 403)
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()


# --- what is read ---------------------------------------------------------------------------------------


def published(secret: str) -> hmac.HMAC:
    key = ("AWS4" + secret).encode()
    for part in (b"20130524", b"us-east-1", b"s3", b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    return hmac.new(key, digestmod="sha256")


@pytest.mark.parametrize(
    ("seed", "signatures", "trailer"),
    [
        (
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            [
                "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
                "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
                "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
            ],
            "",
        ),
        (
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
            [
                "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
                "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
                "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
            ],
            "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:"
            "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n",
        ),
    ],
    ids=["chunks", "trailer"],
)
def test_the_examples_that_aws_published(seed: str, signatures: list[str], trailer: str) -> None:
    """Of 66,560 times `a`, sent to S3. Planted defects: the hash of nothing left out; a trailer signed
    without its line's end."""
    parts = [b"a" * 65_536 + b"\r\n", b"a" * 1024 + b"\r\n", b""]
    heads = [
        f"{size};chunk-signature={signatures[n]}\r\n".encode() for n, size in enumerate(["10000", "400", "0"])
    ]
    body = b"".join(head + part for head, part in zip(heads, parts, strict=True)) + trailer.encode() + b"\r\n"
    form = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + (b"-TRAILER" if trailer else b"")
    headers = {signed_chunks.HASHED: form, b"x-amz-decoded-content-length": b"66560"}
    if trailer:
        headers[b"x-amz-trailer"] = b"x-amz-checksum-crc32c"
    mac = published("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    begun = Seed(mac, b"20130524T000000Z", b"20130524/us-east-1/s3/aws4_request", seed.encode())
    assert signed_chunks.decode(body, headers, begun) == b"a" * 66_560
    with pytest.raises(SqsError, match="not that of what arrived"):
        signed_chunks.decode(body, headers, begun._replace(signature=signatures[0].encode()))


@pytest.mark.parametrize("trailers", [None, CHECKSUM, TWO])
@pytest.mark.parametrize("chunks", [(), CHUNKS, (BODY,), (b"\r\n", b"0;chunk-signature=", b"\0" * 70_000)])
def test_what_is_signed_is_read(chunks: tuple[bytes, ...], trailers: dict[str, str] | None) -> None:
    request = in_chunks(*chunks, headers=TARGET, trailers=trailers)
    assert request.verified() == ID
    assert request.read() == b"".join(chunks)


def test_a_size_may_be_in_capitals() -> None:
    """Those of the client for .NET are; the size itself is not signed."""
    request = in_chunks(b"x" * 0xAB)
    capitals = request.with_frames(request.frames[0].replace(b"ab;", b"AB;", 1), *request.frames[1:])
    assert capitals.read() == b"x" * 0xAB


def test_an_ordinary_body_is_handed_on_as_it_is() -> None:
    request = signed(body=BODY, headers=TARGET)
    assert request.read() is request.body


# --- what is refused ------------------------------------------------------------------------------------


def hostile(request: InChunks) -> dict[str, tuple[str, InChunks]]:
    """By name: the error that it has to be, and the request."""
    first, second, third, *rest = frames = request.frames
    sized = re.compile(rb"^[0-9a-f]+")
    return {
        "nothing": (unreadable, request.with_frames()),
        "no last chunk": (unreadable, request.with_frames(first, second, third)),
        "left out": (unsigned, request.with_frames(first, third, *rest)),
        "first left out": (unsigned, request.with_frames(second, third, *rest)),
        "all left out": (unsigned, request.with_frames(*rest)),
        "swapped": (unsigned, request.with_frames(second, first, third, *rest)),
        "doubled": (unsigned, request.with_frames(first, first, second, third, *rest)),
        "last doubled": (unreadable, request.with_frames(*frames, rest[0])),
        "twice": (unreadable, request.with_frames(*frames, *frames)),
        "more": (unreadable, request.with_frames(*frames, b"x")),
        "a line more": (unreadable, request.with_frames(*frames, b"\r\n")),
        "before": (unreadable, request.with_frames(b"\r\n", *frames)),
        "less": (unreadable, request.with_frames(*frames[:-1], frames[-1][:-1])),
        "no line's end": (unreadable, request.with_frames(first[:-2], second, third, *rest)),
        "content": (unsigned, request.with_frames(first.replace(b"orders", b"others"), second, third, *rest)),
        "signature": (
            unsigned,
            request.with_frames(re.sub(rb"=[0-9a-f]{64}", b"=" + b"0" * 64, first), second, third, *rest),
        ),
        "no signature": (
            unreadable,
            request.with_frames(first.replace(b";chunk-signature", b";x"), second, third, *rest),
        ),
        "capitals": (
            unreadable,
            request.with_frames(
                re.sub(rb"=[0-9a-f]{64}", lambda found: found[0].upper(), first), second, third, *rest
            ),
        ),
        "no hex": (unreadable, request.with_frames(sized.sub(b"1g", first), second, third, *rest)),
        "minus": (unreadable, request.with_frames(sized.sub(b"-1", first), second, third, *rest)),
        "underscore": (unreadable, request.with_frames(sized.sub(b"1_7", first), second, third, *rest)),
        "no size": (unreadable, request.with_frames(sized.sub(b"", first), second, third, *rest)),
        "unframed": (unreadable, request.with_frames(BODY)),
        "a size of 0": (unsigned, request.with_frames(sized.sub(b"0", first), second, third, *rest)),
        **{
            f"a size of {size}": (
                unreadable,
                request.with_frames(sized.sub(size.encode(), first), second, third, *rest),
            )
            for size in ("1", "16", "18", "ffffffff", "000000017")
        },
    }


@pytest.mark.parametrize("name", hostile(PLAIN))
@pytest.mark.parametrize("request_", [PLAIN, TRAILER], ids=["chunks", "trailer"])
def test_what_was_not_signed_so_is_refused(request_: InChunks, name: str) -> None:
    """Planted defects: chunks without a chain; signatures of chunks not looked at; what comes after the last
    chunk passed over; an end without one."""
    assert request_.read() == BODY
    refused(hostile(request_)[name][0], hostile(request_)[name][1])


def test_every_prefix_is_refused() -> None:
    """Planted defect: a body that breaks off is taken for a short one."""
    for request in (PLAIN, TRAILER):
        for size in range(len(request.body)):
            refused(unreadable, request.with_frames(request.body[:size]))


def test_the_heads_signature_comes_first() -> None:
    """Planted defects: the first chunk is not held against the head; one form taken for the other."""
    other = replace(PLAIN, path=b"/000000000000/other")
    refused(unsigned, other, "request signature we calculated")
    refused(
        unsigned, PLAIN.with_header("x-amz-content-sha256", TRAILER.header("x-amz-content-sha256").decode())
    )
    refused(unsigned, PLAIN.with_header("x-amz-content-sha256", sha256(PLAIN.body).hexdigest()))
    again = in_chunks(*CHUNKS, headers=TARGET | {"X-Amz-Note": "another"})
    refused(unsigned, again.with_frames(*PLAIN.frames), "signature of a chunk")


@pytest.mark.parametrize("size", ["", "x", "-45", "44", "46", "1_0", "0", "9" * 30, "4.5e1", " "])
@pytest.mark.parametrize("trailers", [None, CHECKSUM])
def test_the_size_has_to_be_what_is_said(size: str, trailers: dict[str, str] | None) -> None:
    """Planted defects: the size that is said not looked at; a fault of the server for one that is none."""
    says = {"X-Amz-Decoded-Content-Length": size}
    request = in_chunks(*CHUNKS, headers=TARGET, trailers=trailers, says=says)
    refused(unreadable, request, "decoded-content-length")


@pytest.mark.parametrize("form", ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "\xe9\x01", ""])
def test_a_body_that_nobody_signed_is_refused(form: str) -> None:
    """Planted defect: what a client sent stands in the message as it came, which XML cannot carry."""
    refused(unreadable, PLAIN.with_header("x-amz-content-sha256", form), "Switch the signing of payloads on")


def test_a_size_that_is_not_said_is_asked_for() -> None:
    bare = signed(body=PLAIN.body, headers={"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"})
    refused(unreadable, bare, "decoded-content-length")


def test_the_trailer_is_the_one_that_was_announced() -> None:
    """Planted defects: its signature not looked at; names not compared; one of any size."""
    *chunks, trailer = TRAILER.frames
    for other in (
        trailer.replace(b"NhCmhg", b"NhCmhh"),
        re.sub(rb"signature:.{8}", b"signature:00000000", trailer),
        re.sub(rb"signature:\w+", b"signature:\xff", trailer),
        re.sub(rb"signature:\w+", b"signature:", trailer),
    ):
        refused(unsigned, TRAILER.with_frames(*chunks, other), "trailer")
    for other in (
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n" + trailer,
        trailer[:-2],
        trailer + b"\r\n",
        trailer.partition(b"\r\n")[2],
        trailer.partition(b"\r\n")[0] + b"\r\n\r\n",
        trailer.replace(b"\r\n", b"\n"),
        b"x-amz-checksum-sha1:x\r\n" + trailer,
        trailer.replace(b"x-amz-trailer-signature:", b"x-amz-trailer-signature="),
    ):
        refused(unreadable, TRAILER.with_frames(*chunks, other), "x-amz-trailer names")
    long = in_chunks(b"x", trailers={"x-amz-note": "y" * 9000})
    refused(unreadable, long, "x-amz-trailer names")
    for announced in ("", "x-amz-checksum-sha1", "x-amz-checksum-crc32,x-amz-checksum-crc32"):
        other_name = in_chunks(*CHUNKS, trailers=CHECKSUM, says={"X-Amz-Trailer": announced})
        refused(unreadable, other_name, "x-amz-trailer names")


def test_chunks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a large body in chunks of a byte, a signature for each, while everybody waits."""
    monkeypatch.setattr(signed_chunks, "MOST_CHUNKS", 20)
    assert in_chunks(*[b"x"] * 20).read() == b"x" * 20
    refused(unreadable, in_chunks(*[b"x"] * 21), "20 at most")


class Counted(bytes):
    """A body that counts the bytes that are copied out of it."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.copied += len(found) if isinstance(key, slice) else 1
        return found


def test_cost_grows_with_the_body_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defects: the rest of the body copied for each chunk; what came so far hashed for each."""
    hashed: list[int] = []

    def counting(text: bytes = b"") -> Any:
        hashed.append(len(text))
        return sha256(text)

    monkeypatch.setattr(signed_chunks, "sha256", counting)
    for count in (10, 1000):
        request = in_chunks(*[b"xyz"] * count)
        body = Counted(request.body)
        hashed.clear()
        assert replace(request, body=body).read() == b"xyz" * count
        assert sum(hashed) == 3 * count
        assert body.copied <= 2 * count + 2  # the ends of lines


# --- any body, any cut, any change ----------------------------------------------------------------------

cuts = st.tuples(st.binary(max_size=200), st.lists(st.integers(1, 60), max_size=8))


def cut(body: bytes, sizes: list[int]) -> list[bytes]:
    """`body` in pieces of these sizes, and what is left."""
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    return [piece for piece in (*pieces, body) if piece]


@given(cuts, st.sampled_from([None, CHECKSUM, TWO]), st.integers(0, 10_000), st.integers(0, 255))
@example((b"x" * 0xAB, []), None, 0, ord("A"))
def test_any_body_cut_anywhere_is_read_and_any_byte_changed_refused(
    body_and_sizes: tuple[bytes, list[int]], trailers: dict[str, str] | None, where: int, byte: int
) -> None:
    """Planted defect: the data of a chunk left out of what is signed."""
    body, sizes = body_and_sizes
    request = in_chunks(*cut(body, sizes), headers=TARGET, trailers=trailers)
    assert request.read() == body
    change(request, where % len(request.body), byte)


@pytest.mark.parametrize("request_", [PLAIN, TRAILER], ids=["chunks", "trailer"])
def test_each_byte_counts(request_: InChunks) -> None:
    """Planted defect: the line's end after a chunk passed over."""
    for where, byte in enumerate(request_.body):
        for other in (byte ^ 1, byte ^ 0x20, 0, ord("\n"), ord("0")):
            change(request_, where, other)


def change(request: InChunks, where: int, byte: int) -> None:
    """Put another byte in there, and see it refused."""
    changed = request.body[:where] + bytes([byte]) + request.body[where + 1 :]
    if changed.upper() == request.body.upper() and (changed == request.body or is_of_a_size(request, where)):
        assert request.with_frames(changed).read() == request.read()  # the same number
        return
    with pytest.raises(SqsError) as caught:
        request.with_frames(changed).read()
    assert caught.value.name in (unreadable, unsigned)


def is_of_a_size(request: InChunks, where: int) -> bool:
    """True for a digit of a chunk's size."""
    for frame in request.frames:
        if where < len(frame):
            return where < frame.find(b";chunk-signature=")
        where -= len(frame)
    return False


parts = st.sampled_from(
    [b"1", b"x", b"\r\n", b";chunk-signature=", b"0" * 64, b"\r\nx\r\n"]
    + [b"%d;chunk-signature=%b\r\n" % (size, b"0" * 64) for size in (0, 1, 2)]
    + [b"x-amz-trailer-signature:", b"a:b\r\n"]
)


@given(
    st.lists(parts | st.binary(max_size=9), max_size=9),
    st.sampled_from(sorted(signed_chunks.FORMS)),
    st.sampled_from([b"0", b"1", b"a"]),
    st.booleans(),
)
def test_any_body_is_read_or_refused(pieces: list[bytes], form: bytes, said: bytes, verified: bool) -> None:
    """Planted defect: anything but SqsError, for which a client would be told of a fault of the server."""
    headers = {signed_chunks.HASHED: form, b"x-amz-decoded-content-length": said, b"x-amz-trailer": said}
    seed = Seed(published("x"), b"20130524T000000Z", b"20130524/r/sqs/aws4_request", b"0" * 64)
    error: SqsError | None = None
    try:
        read = signed_chunks.decode(b"".join(pieces), headers, seed if verified else None)
    except SqsError as caught:
        error = caught
    if error is None:
        assert not verified
        assert len(read) == int(said)
    else:
        assert error.name in (unreadable, unsigned)
        assert error.message.isprintable()
