"""The Redis of an installation: one URL, one way to connect to it."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from windlass.errors import StartError

FAKE = "fakeredis://"
TIMEOUT = 2.0
"""Seconds until a Redis that does not answer counts as away."""


def connect(url: str, *, timeout: float = TIMEOUT) -> redis.Redis:
    """A client for `url`, which gives bytes; it connects when it is first asked something.

    What breaks with the connection is tried a second time, so it may be done twice; what times out is not.
    `fakeredis://NAME` is one in this process, the same for all who give that name. Raises StartError for what
    is no URL of a Redis.
    """
    if url.startswith(FAKE):
        return _fake(url)
    try:
        client = redis.from_url(url)  # with the URL alone: whoever puts another client here is told no more
    except ValueError as error:
        raise StartError(f"This is no URL of a Redis (--redis, REDIS_URL): {error}") from None
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    for name in ("socket_timeout", "socket_connect_timeout"):
        options.setdefault(name, timeout)
    # A connection that idled may have been closed by the other side.
    client.set_retry(Retry(NoBackoff(), 1, (redis.ConnectionError,)))
    if client.get_encoder().decode_responses:
        raise StartError("REDIS_URL wants decode_responses, and a filter is no text: leave it out.")
    return client


def _fake(url: str) -> redis.Redis:
    try:
        from fakeredis import FakeRedis
    except ImportError:
        raise StartError(
            f"REDIS_URL is {FAKE}, and the package fakeredis, made for tests, is not installed: "
            "install it, or give the URL of a Redis."
        ) from None
    return FakeRedis(server=_fake_server(url))


@cache
def _fake_server(url: str) -> Any:  # noqa: ARG001 - one for each
    from fakeredis import FakeServer

    return FakeServer()
