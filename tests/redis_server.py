"""A Redis of the tests' own: Debian's binary, a temporary directory, a free port."""

from __future__ import annotations

import atexit
import functools
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import redis

from tests.harness import free_port, until


@functools.cache
def shared_redis() -> RedisServer:
    """One for all tests of this process that leave it as it is, or empty it."""
    server = RedisServer()
    atexit.register(server.close)
    return server


class RedisServer:
    """One server that writes every command to disk before it answers, so that a kill loses nothing.

    `arguments` are further options of redis-server, "--maxmemory", "1mb" say.
    """

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-redis-"))
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A patient client of the test's own; close it."""
        return redis.from_url(self.url, socket_timeout=60, socket_connect_timeout=60)

    def start(self) -> None:
        """Start it, with what it held when it ended, and wait until it answers."""
        command = [
            "redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._arguments,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, 60, f"Redis:\n{(self.folder / 'log').read_text(errors='replace')}")

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(30)

    def forget(self) -> None:
        """Start it again without anything that it held."""
        self.stop()
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()

    def hang(self) -> None:
        """Let it answer nothing from now on, with every connection open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Take away all that it holds."""
        with self.client() as client:
            client.flushall()

    def close(self) -> None:
        """Stop it and take everything away."""
        self.stop()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        try:
            with redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
