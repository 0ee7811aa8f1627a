"""What the two executors share: addresses, headers, and httpx's words put into the client's."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from windlass import __version__
from windlass.client.call import Answer, Call, Form
from windlass.client.errors import AnswerLost, BadAnswer, NotSent, Unreachable, WindlassError

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8000"


def base_url(url: str | None) -> str:
    """The address to use: what was given, else WINDLASS_URL, else the default."""
    chosen = (url or os.environ.get("WINDLASS_URL") or DEFAULT_URL).rstrip("/")
    try:
        parts = urlsplit(chosen)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise NotSent(f"{chosen!r} is not an address; it should look like {DEFAULT_URL}")
    return chosen


def headers(key: str | None) -> dict[str, str]:
    """Headers of every request; the API key is `key`, else WINDLASS_KEY, else none."""
    chosen = (key if key is not None else os.environ.get("WINDLASS_KEY", "")).strip()
    if not (chosen.isascii() and chosen.isprintable()):
        raise NotSent("the API key has characters that no key has; was it copied whole?")
    common = {"accept": "application/json", "user-agent": f"windlass-python/{__version__}"}
    return common | ({"authorization": f"Bearer {chosen}"} if chosen else {})


def request(client: httpx.Client | httpx.AsyncClient, call: Call[Any], timeout: float) -> httpx.Request:
    """The httpx request of `call`; the time it may be held on purpose comes on top of `timeout`."""
    import httpx

    extra: dict[str, str] = {}
    content: bytes | Form | None = None
    if isinstance(call.body, Form):
        content = call.body
        extra |= {"content-type": content.media_type, "content-length": str(len(content))}
    elif call.body is not None:
        content = call.body.encode()
        extra["content-type"] = "application/json"
    if call.key is not None:
        extra["idempotency-key"] = call.key
    try:
        return client.build_request(
            call.method,
            call.path,
            params=call.query or None,
            content=content,
            headers=extra,
            timeout=httpx.Timeout(timeout, read=timeout + call.hold),
        )
    except (UnicodeError, ValueError, TypeError, httpx.InvalidURL) as error:
        raise NotSent(f"this request cannot be sent: {error}") from error


def answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)


def connection_error(error: httpx.HTTPError, url: str) -> WindlassError:
    """What an httpx error means: nothing was sent, or the answer was lost."""
    import httpx

    reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout() | httpx.ProxyError():
            return Unreachable(f"cannot reach {url}: {reason}")
        case httpx.TransportError():
            return AnswerLost(f"no answer from {url}: {reason}")
        case _:
            return BadAnswer(f"{url} answered something that cannot be read: {reason}")
