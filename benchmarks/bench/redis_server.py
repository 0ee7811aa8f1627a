"""A redis-server for measurements: Debian's binary, on the disk that the others write to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from bench.processes import BenchmarkError, Process, free_port, scratch_directory


class Redis:
    """One server."""

    def __init__(self, directory: Path, appendfsync: str, *more: str) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise BenchmarkError("there is no redis-server: apt-get install redis-server")
        self.port = free_port()
        argv = [
            found, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory), "--save", "",
            "--appendonly", "yes", "--appendfsync", appendfsync, *more,
        ]  # fmt: skip
        self.process = Process(argv, directory / "redis.log", env=dict(os.environ))
        self.process.wait_for_port(self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def version(self) -> str:
        with redis.Redis(port=self.port) as client:
            return str(client.info("server")["redis_version"])


@contextmanager
def redis_server(scratch: Path, appendfsync: str) -> Iterator[Redis]:
    """A fresh one. `appendfsync`: always or everysec."""
    with scratch_directory(scratch, "redis") as directory:
        server = Redis(directory, appendfsync)
        try:
            yield server
        finally:
            server.process.stop()
