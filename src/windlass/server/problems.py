"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.errors import Unauthenticated, WindlassError

_encode = msgspec.json.Encoder().encode


def document(error: WindlassError) -> dict[str, Any]:
    """The problem document of an error: type, title, status, detail, code, the field at fault, and more."""
    problem: dict[str, Any] = {
        "type": f"urn:windlass:problem:{error.code}",
        "title": error.title(),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.field is not None:
        problem["field"] = error.field
    return problem | error.members


def response(error: WindlassError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer that tells of `error`."""
    body = _encode(document(error))
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="windlass"'))
    if error.status == 408:
        headers.append((b"connection", b"close"))
    return error.status, headers, body
