"""What is told of what goes wrong with Redis."""

from __future__ import annotations

import pytest
import redis
from redis.connection import DefaultParser
from redis.exceptions import MaxConnectionsError, RedisError

from windlass.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from windlass.store.redis.faults import Unreached, unavailable


def reply(text: str) -> Exception:
    """What redis-py makes of an error reply."""
    error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (Unreached("Error 111 connecting"), StoreUnavailable, "reached"),
        (redis.TimeoutError("Timeout reading from socket"), OutcomeUnknown, "in time"),
        (redis.ConnectionError("Connection closed by server."), OutcomeUnknown, "broke"),
        (redis.InvalidResponse("what?"), OutcomeUnknown, "understood"),
        (OSError("what?"), OutcomeUnknown, "understood"),
        (MaxConnectionsError("Too many connections"), StoreUnavailable, "max_connections"),
        (reply("OOM command not allowed when used memory > 'maxmemory'."), StoreFull, "maxmemory"),
        (reply("MISCONF Errors writing to the AOF file: No space left on device"), StoreFull, "disk"),
        (reply("READONLY You can't write against a read only replica."), StoreUnavailable, "replica"),
        (reply("LOADING Redis is loading the dataset in memory"), StoreUnavailable, "disk"),
        (reply("BUSY Redis is busy running a script."), StoreUnavailable, "SCRIPT KILL"),
        (reply("MASTERDOWN Link with MASTER is down"), StoreUnavailable, "without its master"),
        (reply("CLUSTERDOWN Hash slot not served"), StoreUnavailable, "--cluster check"),
        (reply("ERR DB index is out of range"), StoreUnavailable, "`databases`"),
        (reply("NOREPLICAS Not enough good replicas to write."), StoreUnavailable, "min-replicas"),
        (reply("NOAUTH Authentication required."), StoreUnavailable, "password"),
        (reply("WRONGPASS invalid username-password pair"), StoreUnavailable, "password"),
        (reply("NOPERM this user has no permissions"), StoreUnavailable, "ACL"),
        (reply("NOSCRIPT No matching script."), StoreUnavailable, "scripts"),
        (reply("MOVED 7 127.0.0.1:1"), StoreUnavailable, "has moved"),
        (reply("ASK 7 127.0.0.1:1"), StoreUnavailable, "is moving"),
        (reply("TRYAGAIN Multiple keys request"), StoreUnavailable, "is moving"),
        (reply("UNBLOCKED force unblock from blocking operation"), OutcomeUnknown, "UNBLOCKED"),
        (reply("ERR user_script:3: what?"), OutcomeUnknown, "user_script"),
    ],
)
def test_each_fault_has_a_sentence(error: Exception, kind: type[StoreUnavailable], word: str) -> None:
    """Planted: "nothing was done" for what was sent and not answered; the base class before its own."""
    told = unavailable(error)
    assert type(told) is kind
    assert word in told.detail
    assert told.retry_after is not None
    assert told.retry_after > 0
    assert told.__cause__ is error
    assert ("Nothing was done" in told.detail) == (kind is not OutcomeUnknown)


def test_a_reply_is_known_in_a_pipelines_words() -> None:
    """Planted: the first word of what redis-py says, and not of what Redis does."""
    error = redis.ResponseError("Command # 1 (SET a b) of pipeline caused error: NOREPLICAS Not enough")
    assert "min-replicas" in unavailable(error).detail


def test_what_is_told_already_stays() -> None:
    told = StoreFull("full")
    assert unavailable(told) is told
    assert issubclass(Unreached, RedisError)
