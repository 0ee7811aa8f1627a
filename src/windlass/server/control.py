"""The Unix socket in the data directory (mode 0600): what only the directory's owner may ask a live server.

One line of JSON each way. `{"do": "create_key", "name": ..., "scopes": [...]}` answers `{"key": ...}`,
`{"do": "list_keys"}` and `{"do": "revoke_key", "id": ...}` likewise; an error is `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from windlass.errors import NotFound, StartError, WindlassError
from windlass.server.app import Windlass
from windlass.server.auth import access_key_of, new_key, secret_access_key

log = structlog.get_logger("windlass.server")

SOCKET = "windlass.sock"
_MOST = 64 * 1024
_KEEP_THE_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""The end of one process is not the end of the socket: from Python 3.13 on it would be."""
_PATIENCE = 5
"""Seconds that a server has to answer."""


@contextlib.contextmanager
def address(data_dir: Path) -> Iterator[str]:
    """The socket's address, short enough for the kernel (108 bytes) however deep the directory is."""
    folder = os.open(data_dir, os.O_RDONLY)
    try:
        path = str(data_dir / SOCKET)
        yield path if len(os.fsencode(path)) < 100 else f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def bound(data_dir: Path) -> Iterator[socket.socket | None]:
    """The socket, in place of one left behind, for one process or several to serve; None where none can be.

    Only the directory's owner may connect to it. Whoever binds it has the directory's lock.
    """
    try:
        with address(data_dir) as path:
            listener = _bind(path)
    except OSError as error:
        log.warning("no_control_socket", message=f"`windlass key` must wait for a stop: {error}")
        yield None
        return
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            (data_dir / SOCKET).unlink()


def _bind(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.setblocking(False)
    return listener


async def serve(app: Windlass, listener: socket.socket) -> asyncio.AbstractServer:
    """Answer commands until the server is closed."""

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError, asyncio.LimitOverrunError):
            answer: dict[str, Any]
            try:
                answer = await act(app, msgspec.json.decode(await reader.readline()))
            except WindlassError as error:
                answer = {"error": error.detail}
            except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
                answer = {"error": f"That is no command: {error}"}
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(answer_one, sock=listener, limit=_MOST, **_KEEP_THE_FILE)


async def act(app: Windlass, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command."""
    store = app.store
    await app.queues.registry.catch_up()  # others may have made keys
    if command["do"] == "create_key":
        key, text = new_key(command.get("name", ""), command["scopes"], app.queues.clock.now())
        await store.add_key(key)
        app.door.load(store.keys())
        return {
            "key": text,
            "id": key.id,
            "name": key.name,
            "scopes": key.scopes,
            "access_key_id": access_key_of(key.id),
            "secret_access_key": secret_access_key(store.secret, key),
        }
    if command["do"] == "list_keys":
        keys = store.keys()
        return {
            "keys": [
                {"id": key.id, "name": key.name, "scopes": key.scopes, "created_at": key.created_at}
                for key in keys
            ]
        }
    if command["do"] == "revoke_key":
        if not await store.remove_key(command["id"]):
            raise NotFound(f"There is no key {command['id']!r}.")
        app.door.load(store.keys())
        return {"revoked": command["id"]}
    raise NotFound(f"There is no command {command['do']!r}.")


def ask(data_dir: Path, command: dict[str, Any]) -> dict[str, Any] | None:
    """Send a command to the server that lives on `data_dir`; None where there is none. Raises StartError."""
    if not (data_dir / SOCKET).exists():
        return None
    try:
        with address(data_dir) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                return None  # left behind by a server that was killed
            connection.sendall(msgspec.json.encode(command) + b"\n")
            with connection.makefile("rb") as answer:
                result: dict[str, Any] = msgspec.json.decode(answer.readline())
                return result
    except TimeoutError:
        raise StartError(f"The server on {data_dir} did not answer within {_PATIENCE} s.") from None
    except (OSError, msgspec.DecodeError) as error:
        raise StartError(f"The server on {data_dir} cannot be asked: {error}.") from error
