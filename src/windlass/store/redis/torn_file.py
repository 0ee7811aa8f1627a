"""A file whose end a crash tore, and how nothing is ever written behind it.

What one function writes stands between MULTI and EXEC in the append-only file. A power cut, or a kill in the
middle of a write, may leave the beginning of it. Unless `aof-load-truncated` is `no`, Redis cuts off the
command that is not whole, and leaves the MULTI with the commands before it (all versions known to us do, but
those of Valkey with its pull request 4342, of August 2026). What is written next stands inside of that: the
start after next does half of what was never answered, or cuts off what was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.connection import Connection
from redis.exceptions import NoPermissionError, ResponseError

from windlass.store.redis.faults import TornFile

_SETTING = "aof-load-truncated"


def leave_behind(connection: Connection) -> None:
    """What each connection begins with: a server that may have such a file begins a new one, once.

    Where that is not allowed it goes on; `Persistence.file_may_be_torn` tells. Raises TornFile while it does
    not work, and RedisError.
    """
    connection.on_connect()  # type: ignore[no-untyped-call]
    if not _may_be_torn(connection) or _refuses_torn_files(connection):
        return
    begun = _ask(connection, "BGREWRITEAOF")
    # Begun, the new file takes what is written from now on. While a snapshot is written it is only put off.
    if _may_be_torn(connection) and not _is_forbidden(begun):
        raise TornFile(begun.decode() if isinstance(begun, bytes) else str(begun))


def may_be_torn(info: Mapping[str, str | int], load_truncated: str | None) -> bool:
    """Whether a server may write behind half of a write, by its INFO and its setting.

    Not behind a whole file without any writes; and a replica is sent a whole copy after its start.
    """
    return (
        load_truncated != "no"
        and info.get("role") == "master"
        and int(info.get("aof_enabled", 0)) == 1
        and int(info.get("aof_rewrites", 0)) == 0
        and int(info.get("aof_current_size", 0)) > int(info.get("aof_base_size", 0))
    )


def _may_be_torn(connection: Connection) -> bool:
    told = _ask(connection, "INFO")
    if isinstance(told, ResponseError):  # who may not ask knows nothing
        return False
    lines = (line.partition(":") for line in told.decode().splitlines())
    return may_be_torn({name: value for name, _, value in lines}, None)


def _refuses_torn_files(connection: Connection) -> bool:
    return bool(_ask(connection, "CONFIG", "GET", _SETTING) == [_SETTING.encode(), b"no"])


def _is_forbidden(answer: Any) -> bool:
    """By an ACL, or by a service that does not have the command."""
    return isinstance(answer, NoPermissionError) or "unknown command" in str(answer)


def _ask(connection: Connection, *command: str) -> Any:
    """The answer, which may be an error."""
    connection.send_command(*command)  # type: ignore[no-untyped-call]
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
