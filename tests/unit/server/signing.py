"""Requests signed by botocore, as they arrive here: what sigv4.py is judged by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from windlass.server import sigv4

ID, SECRET = "WINDLASS1A2B3C4D", "abcdefghij_ABCDEFGHIJ-0123456789abcdefgh"
URL = "http://127.0.0.1:8000"
TARGET = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}


@dataclass(frozen=True)
class Arrived:
    """A request as a server has it."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> bytes:
        return dict(self.headers)[name.encode()]

    def with_header(self, name: str, *values: str) -> Arrived:
        """With these in place of the headers of that name."""
        others = [pair for pair in self.headers if pair[0] != name.encode()]
        return replace(
            self, headers=(*others, *((name.encode(), value.encode("latin-1")) for value in values))
        )

    def verified(self, *, later: float = 0, secret: str = SECRET) -> str:
        """Who signed it, asked so many seconds after it was made."""
        return self._verify(later, secret)[0]

    def read(self) -> bytes:
        """The body that is handed on, once it is verified."""
        return self._verify(0, SECRET)[1]

    def _verify(self, later: float, secret: str) -> tuple[str, bytes]:
        return sigv4.verify(
            self.method, self.path, self.query, self.headers, self.body, self.made + later, {ID: secret}.get
        )

    @property
    def made(self) -> float:
        """When it was made, in seconds."""
        stamp = dict(self.headers).get(b"x-amz-date") or self.query.partition(b"X-Amz-Date=")[2][:16]
        return sigv4._moment(stamp) or time.time()


@dataclass(frozen=True)
class InChunks(Arrived):
    """One whose body is in signed chunks."""

    frames: tuple[bytes, ...] = ()
    """Each chunk as it came, and where there is a trailer, that."""

    def with_frames(self, *frames: bytes) -> InChunks:
        """With another body in place of this one."""
        return replace(self, frames=frames, body=b"".join(frames))


class _Without(SigV4Auth):  # type: ignore[misc]
    """A signer that leaves headers out of what it signs."""

    def __init__(self, credentials: Credentials, service: str, region: str, left_out: Iterable[str]) -> None:
        super().__init__(credentials, service, region)
        self._left_out = set(left_out)

    def headers_to_sign(self, request: AWSRequest) -> Any:
        signed = super().headers_to_sign(request)
        for name in self._left_out:
            del signed[name]
        return signed


def signed(
    method: str = "POST",
    path: str = "/",
    *,
    params: Mapping[str, str] | None = None,
    body: bytes | dict[str, str] = b"",
    headers: Mapping[str, str] | None = None,
    expires: int | None = None,
    region: str = "eu-west-1",
    service: str = "sqs",
    token: str | None = None,
    left_out: Iterable[str] = (),
    pair: tuple[str, str] = (ID, SECRET),
) -> Arrived:
    """A request that botocore has signed now: in its header, or in its URL where it `expires`.

    `pair`: access key id and secret.
    """
    credentials = Credentials(*pair, token)
    request = AWSRequest(method=method, url=URL + path, data=body, params=params, headers=headers or {})
    if expires is None:
        _Without(credentials, service, region, left_out).add_auth(request)
    else:
        SigV4QueryAuth(credentials, service, region, expires).add_auth(request)
    return arrived(request.prepare())


def in_chunks(
    *chunks: bytes,
    url: str = URL + "/",
    headers: Mapping[str, str] | None = None,
    trailers: Mapping[str, str] | None = None,
    says: Mapping[str, str] | None = None,
    pair: tuple[str, str] = (ID, SECRET),
) -> InChunks:
    """A request in signed chunks. botocore has no such, but what it signs with; the chain is written anew.

    `says`: headers in place of those that belong to such a body.
    """
    auth = SigV4Auth(Credentials(*pair), "sqs", "eu-west-1")
    about = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailers else ""),
        "X-Amz-Decoded-Content-Length": str(sum(map(len, chunks))),
    }
    if trailers:
        about["X-Amz-Trailer"] = ",".join(trailers)
    request = AWSRequest("POST", url, headers={**(headers or {}), **about, **(says or {})})
    auth.add_auth(request)
    signature = request.headers["Authorization"].rpartition("=")[2]

    def follow(kind: str, *hashed: bytes) -> None:
        nonlocal signature
        hashes = [sha256(each).hexdigest() for each in hashed]
        head = ["AWS4-HMAC-SHA256-" + kind, request.context["timestamp"], auth.credential_scope(request)]
        signature = auth.signature("\n".join([*head, signature, *hashes]), request)

    frames = []
    for chunk in (*chunks, b""):
        follow("PAYLOAD", b"", chunk)
        end = b"" if trailers and not chunk else b"\r\n"
        frames.append(f"{len(chunk):x};chunk-signature={signature}\r\n".encode() + chunk + end)
    if trailers:
        lines = [f"{name}:{value}" for name, value in sorted(trailers.items())]
        follow("TRAILER", "".join(line + "\n" for line in lines).encode())
        lines.append(f"x-amz-trailer-signature:{signature}")
        frames.append("".join(line + "\r\n" for line in [*lines, ""]).encode())
    made = arrived(request.prepare())
    kept = tuple(pair for pair in made.headers if pair[0] != b"content-length")  # whoever sends it says it
    return InChunks(made.method, made.path, made.query, kept, b"".join(frames), tuple(frames))


def arrived(prepared: Any) -> Arrived:
    """What urllib3 makes of one of botocore's requests."""
    url = urlsplit(prepared.url)
    headers = {"host": url.netloc} | {
        name.lower(): value if isinstance(value, str) else value.decode()
        for name, value in prepared.headers.items()
    }
    body = prepared.body or b""
    return Arrived(
        prepared.method,
        url.path.encode(),
        url.query.encode(),
        tuple((name.encode(), value.strip().encode("latin-1")) for name, value in headers.items()),
        body if isinstance(body, bytes) else body.encode(),
    )
