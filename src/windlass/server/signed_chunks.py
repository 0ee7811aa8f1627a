"""Bodies in signed chunks: what SigV4 calls aws-chunked, for who sends before all of the body is there.

The request's own signature is over its head, and the first of a chain: that of each chunk is over the chunk
and the signature before it, so none can be changed, left out, moved or doubled. The last chunk is empty, and
no body ends without it. After it may come headers (trailers, checksums mostly) with a signature of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from hmac import HMAC, compare_digest
from typing import NamedTuple

from windlass.server.sqs.errors import SqsError

HASHED = b"x-amz-content-sha256"
"""The header that says which form a body has."""
_CHUNKS = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_WITH_TRAILER = _CHUNKS + b"-TRAILER"
FORMS = frozenset({_CHUNKS, _WITH_TRAILER})
"""What it says of a body in signed chunks."""
MOST_CHUNKS = 5000
"""The largest body has 2,200 of the 8 KiB that S3 demands at least. Each costs a signature; others wait."""
LONGEST_TRAILER = 8 * 1024
"""Bytes of the headers after the last chunk, with their signature."""

_DECODED, _TRAILER = b"x-amz-decoded-content-length", b"x-amz-trailer"
_NUMBER = re.compile(rb"[0-9]{1,9}\Z")
_HEAD = re.compile(rb"([0-9A-Fa-f]{1,8});chunk-signature=([0-9a-f]{64})\r\n")
_TRAILER_SIGNATURE = b"x-amz-trailer-signature:"
_END = b"\r\n"
_OF_NOTHING = sha256().hexdigest().encode()


class Seed(NamedTuple):
    """What the chain of signatures begins with."""

    mac: HMAC
    """Under the day's signing key; to be copied."""
    stamp: bytes
    scope: bytes
    signature: bytes
    """The request's own, verified."""


def decode(body: bytes, headers: Mapping[bytes, bytes], seed: Seed | None) -> bytes:
    """The body without what stands around its chunks, each verified. Takes time in proportion to its size.

    `headers` are the request's, names in lower case. Without a `seed` no signature is looked at. Raises
    SqsError: IncompleteSignature for what cannot be read, SignatureDoesNotMatch for what was not signed so.
    """
    form = headers.get(HASHED, b"")
    if form not in FORMS:
        raise unsigned(form)
    size = headers.get(_DECODED, b"")
    if not _NUMBER.match(size):
        raise _incomplete("A body in signed chunks needs the header x-amz-decoded-content-length, its size.")
    view, chunks, at = memoryview(body), list[memoryview](), 0
    signature = b"" if seed is None else seed.signature
    while True:
        head = _HEAD.match(body, at)
        if head is None or len(chunks) > MOST_CHUNKS:
            raise _incomplete(
                f"The body cannot be read at byte {at}: there must be a chunk, as in"
                " `400;chunk-signature=` and 64 hexadecimal digits, of"
                f" {MOST_CHUNKS:,} at most, and the last one must be empty."
            )
        start, end = head.end(), head.end() + int(head[1], 16)
        chunk, last = view[start:end], start == end
        if not last and body[end : end + 2] != _END:
            raise _incomplete(f"The chunk at byte {at} has another size than it says.")
        if seed is not None:
            of_chunk = sha256(chunk).hexdigest().encode()
            _check(seed, head[2], b"PAYLOAD", signature, _OF_NOTHING, of_chunk)
            signature = head[2]
        if last:
            break
        chunks.append(chunk)
        at = end + 2

    if form == _WITH_TRAILER:
        _check_trailer(body[end : end + LONGEST_TRAILER + 1], headers, seed, signature)
    elif body[end:] != _END:
        raise _incomplete(f"After the last chunk, at byte {end}, there must be a line's end and no more.")
    decoded = b"".join(chunks)
    if len(decoded) != int(size):
        raise _incomplete(
            f"The chunks have {len(decoded)} bytes; the header x-amz-decoded-content-length says {int(size)}."
        )
    return decoded


def unsigned(form: bytes) -> SqsError:
    """The error for a body of another form, which nobody signed."""
    return _incomplete(
        "The header x-amz-content-sha256 must be the SHA-256 of the body or say that its chunks are signed"
        f" ({_CHUNKS.decode()}), but is {form[:100].decode('latin-1')!a}:"
        " unsigned payloads are not accepted. Switch the signing of payloads on."
    )


def _check_trailer(text: bytes, headers: Mapping[bytes, bytes], seed: Seed | None, signature: bytes) -> None:
    """Refuse other headers after the last chunk than were announced, or not so signed."""
    *trailers, signed = text[:-4].split(_END)
    trailers.sort()
    announced = sorted(name.strip().lower() for name in headers.get(_TRAILER, b"").split(b","))
    if (
        len(text) > LONGEST_TRAILER
        or text[-4:] != _END + _END
        or not signed.startswith(_TRAILER_SIGNATURE)
        or [line.partition(b":")[0] for line in trailers] != announced
    ):
        raise _incomplete(
            "After the last chunk there must be the headers that x-amz-trailer names, and no others, then"
            " x-amz-trailer-signature, each as `name:value`, and an empty line."
        )
    if seed is not None:
        of_trailers = sha256(b"".join(line + b"\n" for line in trailers)).hexdigest().encode()
        _check(seed, signed.removeprefix(_TRAILER_SIGNATURE), b"TRAILER", signature, of_trailers)


def _check(seed: Seed, given: bytes, kind: bytes, *parts: bytes) -> None:
    """Compare a signature of the chain, the one before it and hashes in `parts`, in constant time."""
    mac = seed.mac.copy()
    mac.update(b"\n".join((b"AWS4-HMAC-SHA256-" + kind, seed.stamp, seed.scope, *parts)))
    if not compare_digest(mac.hexdigest().encode(), given):
        raise SqsError(
            "SignatureDoesNotMatch",
            f"The signature of a chunk ({kind.decode().lower()}) is not that of what arrived. Check that"
            " nothing on the way changes the body.",
        )


def _incomplete(message: str) -> SqsError:
    return SqsError("IncompleteSignature", message)
