"""The yardstick: an ASGI application that reads the body and answers a constant of Windlass's size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Answer = tuple[Message, Message]

_ID = "A" * 32
_SENT = b'{"id":"%s","duplicate":false}' % _ID.encode()
_MESSAGE = (
    b'{"id":"%s","content":"%s","enqueued_at":"2026-01-01T00:00:00.000Z","deliveries":1,"priority":0,'
    b'"group":null,"headers":{}' % (_ID.encode(), b"bench ".ljust(100, b"x"))
)
_LEASE = b',"receipt":"%s","lease_until":"2026-01-01T00:00:30.000Z"' % (b"B" * 36)

_PRODUCT = b'{"product_id":"product-000001","name":"product-000001","price":0,"source":"cache"}'
_NO_PRODUCT = (
    b'{"type":"urn:windlass:problem:product_not_found","title":"There is no such product","status":404,'
    b'"detail":"There is no such product","code":"product_not_found","source":"bloom_filter"}'
)


def _answer(status: int, body: bytes, kind: bytes = b"application/json") -> Answer:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))] if body else []
    if body:
        headers.append((b"cache-control", b"no-store"))
    return (
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


_SEND = _answer(201, _SENT)
_RECEIVE = _answer(200, _MESSAGE + b"}")
_LEASED = _answer(200, _MESSAGE + _LEASE + b"}")
_ACKNOWLEDGED = _answer(204, b"")
_FOUND = _answer(200, _PRODUCT)
_MISSING = _answer(404, _NO_PRODUCT, b"application/problem+json")


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    while (await receive()).get("more_body", False):
        pass
    method = scope["method"]
    if method == "POST":
        start, body = _SEND
    elif method == "DELETE":
        start, body = _ACKNOWLEDGED
    elif scope["query_string"]:
        start, body = _LEASED
    elif scope["path"].startswith("/products/"):
        start, body = _MISSING if scope["path"].startswith("/products/missing-") else _FOUND
    else:
        start, body = _RECEIVE
    await send(start)
    await send(body)
