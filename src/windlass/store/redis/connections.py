"""Connections of redis-py that tell whether anything was sent, and that follow Sentinel's master."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ReadOnlyError
from redis.sentinel import MasterNotFoundError, SentinelManagedConnection, SentinelManagedSSLConnection

from windlass.store.redis.faults import Unreached

# What says why by its class (a wrong password, LOADING) keeps it.
_PLAIN = (redis.ConnectionError, redis.TimeoutError, MasterNotFoundError)


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        if type(error) in _PLAIN:
            raise Unreached(str(error)) from error
        raise


class _Telling:
    """Raises Unreached for what fails before the first command is sent."""

    def connect(self) -> None:
        with _reaching():
            super().connect()  # type: ignore[misc]

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        with _reaching():
            super().connect_check_health(*args, **kwargs)  # type: ignore[misc]


class _Following(_Telling):
    """Connects to the master that Sentinel names at that moment, and asks again after READONLY.

    redis-py's own drops the connection in the middle of a pipeline, at the first READONLY, so that nobody
    knows of the rest whether it was done.
    """

    _demoted = False

    def connect(self) -> None:
        if self._demoted:
            self._demoted = False
            self.disconnect()  # type: ignore[attr-defined]
        super().connect()

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return Connection.read_response(self, *args, **kwargs)  # type: ignore[arg-type]
        except ReadOnlyError:
            self._demoted = True
            raise


class TcpConnection(_Telling, Connection):
    """To a host and a port."""


class TlsConnection(_Telling, SSLConnection):
    """To a host and a port, with TLS."""


class UnixConnection(_Telling, UnixDomainSocketConnection):
    """To a unix socket."""


class MasterConnection(_Following, SentinelManagedConnection):
    """To the master that Sentinel names."""


class TlsMasterConnection(_Following, SentinelManagedSSLConnection):
    """To the master that Sentinel names, with TLS."""
