"""What a client is told when Redis cannot, and whether what it asked for may have been done."""

from __future__ import annotations

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from windlass.errors import OutcomeUnknown, StoreFull, StoreUnavailable

UNDONE = "Nothing was done."


class Unreached(redis.ConnectionError):
    """No connection came about, so that nothing was sent: told apart from one that broke."""


class TornFile(Unreached):
    """The server may have half of a write at the end of its file, and has not begun a new one."""


_RULES: tuple[tuple[type[Exception], type[StoreUnavailable], str, int], ...] = (
    (
        TornFile,
        StoreUnavailable,
        "Redis has to begin a new append-only file after its start (BGREWRITEAOF): wait, or look at its log."
        f" {UNDONE}",
        1,
    ),
    (Unreached, StoreUnavailable, f"Redis cannot be reached: look whether it runs, and how. {UNDONE}", 1),
    (
        MaxConnectionsError,
        StoreUnavailable,
        "All connections to Redis are in use: raise max_connections in the store's URL, or call less at once."
        f" {UNDONE}",
        1,
    ),
    (BusyLoadingError, StoreUnavailable, f"Redis is reading its data from the disk: wait. {UNDONE}", 2),
    (
        AuthenticationError,
        StoreUnavailable,
        f"Redis does not accept the password: correct user and password in the store's URL. {UNDONE}",
        10,
    ),
    (AuthorizationError, StoreUnavailable, f"Redis does not accept this user. {UNDONE}", 10),
    (redis.TimeoutError, OutcomeUnknown, "Redis did not answer in time: this may have been done, or not.", 1),
    (
        redis.ConnectionError,
        OutcomeUnknown,
        "The connection to Redis broke before the answer: this may have been done, or not.",
        1,
    ),
    (
        OutOfMemoryError,
        StoreFull,
        "Redis has no memory left: take messages out, or raise its maxmemory (CONFIG SET maxmemory); then it"
        f" goes on by itself. {UNDONE}",
        5,
    ),
    (
        ReadOnlyError,
        StoreUnavailable,
        f"This Redis is a replica now; its master is looked for. {UNDONE}",
        1,
    ),
    (
        MasterDownError,
        StoreUnavailable,
        f"This Redis is a replica without its master; another is looked for. {UNDONE}",
        1,
    ),
    (
        ClusterDownError,
        StoreUnavailable,
        "The Redis Cluster is down, or a part of it has no master: `redis-cli --cluster check` says which."
        f" {UNDONE}",
        1,
    ),
    (MovedError, StoreUnavailable, f"This queue has moved to another node of the Cluster. {UNDONE}", 1),
    (AskError, StoreUnavailable, f"This queue is moving to another node of the Cluster. {UNDONE}", 1),
    (TryAgainError, StoreUnavailable, f"This queue is moving to another node of the Cluster. {UNDONE}", 1),
    (
        NoPermissionError,
        StoreUnavailable,
        f"The store's user may not do this on Redis: give it the rights (ACL SETUSER). {UNDONE}",
        10,
    ),
    (NoScriptError, StoreUnavailable, f"Redis has lost its scripts; they are loaded anew. {UNDONE}", 1),
)
"""By class, the first that fits: what redis-py makes of a reply or of a connection."""

_REPLIES: dict[str, tuple[type[StoreUnavailable], str, int]] = {
    "BUSY": (
        StoreUnavailable,
        f"Redis is held up by a script of somebody's (SCRIPT KILL ends it). {UNDONE}",
        1,
    ),
    "NOREPLICAS": (
        StoreUnavailable,
        "Fewer replicas are connected than min-replicas-to-write of Redis asks for: bring them back, or lower"
        f" it. {UNDONE}",
        1,
    ),
    "MISCONF": (
        StoreFull,
        "Redis cannot write to its disk: make room there and look at its log; then it goes on by itself."
        f" {UNDONE}",
        5,
    ),
    "DB": (
        StoreUnavailable,
        "Redis has no database of that number: name another in the store's URL, or raise `databases` in"
        f" redis.conf. {UNDONE}",
        10,
    ),
    "NOGOODSLAVE": (StoreUnavailable, f"Sentinel has no replica to go on with. {UNDONE}", 1),
    "NOAUTH": (
        StoreUnavailable,
        f"Redis wants a password: write it in the store's URL. {UNDONE}",
        10,
    ),
}
"""By the first word of an error reply for which redis-py has no class."""


def unavailable(error: Exception) -> StoreUnavailable:
    """What a client is told of an error of redis-py or an error reply; its cause is the error.

    OutcomeUnknown where the command was sent and may have been done; of all others nothing was.
    What is a StoreUnavailable already is given back as it is.
    """
    if isinstance(error, StoreUnavailable):
        return error
    told = _told(error)
    told.__cause__ = error
    return told


def _told(error: Exception) -> StoreUnavailable:
    for kind, told, sentence, seconds in _RULES:
        if isinstance(error, kind):
            return told(sentence, retry_after=seconds)
    if isinstance(error, ResponseError):
        # A pipeline puts its own words before the reply's.
        reply = str(error).rpartition("caused error: ")[2]
        if (found := _REPLIES.get(reply.partition(" ")[0])) is not None:
            told, sentence, seconds = found
            return told(sentence, retry_after=seconds)
        # A script that fails half-way keeps what it wrote before.
        return OutcomeUnknown(
            f"Redis answered with an error that was not foreseen, in the middle perhaps: {reply}",
            retry_after=1,
        )
    return OutcomeUnknown(f"Redis was not understood: {type(error).__name__}: {error}", retry_after=1)
