"""Requests signed by botocore, as they arrive here: what sigv4.py is judged by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
        return sigv4.verify(
            self.method, self.path, self.query, self.headers, self.body, self.made + later, {ID: secret}.get
        )

    @property
    def made(self) -> float:
        """When it was made, in seconds."""
        stamp = dict(self.headers).get(b"x-amz-date") or self.query.partition(b"X-Amz-Date=")[2][:16]
        return sigv4._moment(stamp) or time.time()


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
