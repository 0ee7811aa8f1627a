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
from redis.exceptions import BusyLoadingError, NoPermissionError, ResponseError

from windlass.store.redis.faults import TornFile

_SETTING = "aof-load-truncated"


def leave_behind(connection: Connection) -> None:
    """What each connection begins with: a server that may have such a file begins a new one, once.

    Where that is not allowed it goes on; `Persistence.file_may_be_torn` tells. Raises TornFile while it does
    not work, BusyLoadingError while a master reads its file, and RedisError.
    """
    connection.on_connect()  # type: ignore[no-untyped-call]
    info = _info(connection)
    # It tells nothing of the file yet, and this connection would be kept.
    if info.get("role") == "master" and info.get("loading", "0") != "0":
        raise BusyLoadingError("Redis is loading its data")
    if not may_be_torn(info, None) or _refuses_torn_files(connection):
        return
    begun = _ask(connection, "BGREWRITEAOF")
    # Begun, the new file takes what is written from now on. While a snapshot is written it is only put off.
    if may_be_torn(_info(connection), None) and not _is_forbidden(begun):
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


def _info(connection: Connection) -> dict[str, str | int]:
    """What INFO tells; nothing to who may not ask."""
    told = _ask(connection, "INFO")
    if isinstance(told, ResponseError):
        return {}
    lines = (line.partition(":") for line in told.decode(errors="replace").splitlines())  # paths are bytes
    return {name: value for name, _, value in lines}


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
