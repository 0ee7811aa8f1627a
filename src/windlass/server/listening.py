"""The address that is listened on."""

from __future__ import annotations

import socket

from windlass.errors import StartError


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is opened, so that a taken one is a plain word. Raises StartError."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a name that is none in the DNS either
        why = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"The host {host!r} is no address of this machine: {why}.") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
    except OSError as error:
        listener.close()
        raise StartError(
            f"Port {port} on {host} cannot be used: {error.strerror}."
            " Stop what runs there, or name another with --port (0 takes a free one)."
        ) from error
    listener.set_inheritable(True)
    return listener


def split(listener: socket.socket, amount: int) -> list[socket.socket]:
    """`amount` sockets on the listener's address, itself the first: the kernel spreads connections over them.

    Only now may the port be shared, so that whoever else wants it, another Windlass as well, was refused it.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listeners = [listener]
    for _ in range(amount - 1):
        another = socket.socket(listener.family, listener.type, listener.proto)
        listeners.append(another)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        another.bind(listener.getsockname())
    return listeners


def address(listener: socket.socket) -> str:
    """Its URL, with the port that it really has."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
