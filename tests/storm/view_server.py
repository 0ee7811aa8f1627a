"""A server of the tests' own around a guard with views: rows in SQLite, lines of text over TCP.

    python -m tests.storm.view_server PORT DATABASE REDIS_URL

`write KEY`, `look KEY`, `status` are answered by one line each, in the order in which they come in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from pathlib import Path

import structlog

from windlass.errors import StoreUnavailable
from windlass.guard.bloom import BloomFilter
from windlass.guard.guard import Guard
from windlass.guard.redis import connect
from windlass.guard.views import Views

SETTLE = 6.0
"""Longer than a test stops anybody."""


class Rows:
    """The source: one table, which several processes write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY)")

    async def load(self, key: str) -> str | None:
        return key if await asyncio.to_thread(self._has, key) else None

    async def insert(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._insert, key)
        except sqlite3.Error as error:
            raise StoreUnavailable(str(error)) from error

    def keys(self) -> list[str]:
        with self._connection() as connection:
            return [key for (key,) in connection.execute("SELECT key FROM rows")]

    def _has(self, key: str) -> bool:
        with self._connection() as connection:
            return connection.execute("SELECT 1 FROM rows WHERE key = ?", (key,)).fetchone() is not None

    def _insert(self, key: str) -> None:
        with self._connection() as connection, connection:
            connection.execute("INSERT INTO rows VALUES (?)", (key,))

    def _connection(self) -> contextlib.closing[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=30)
        connection.execute("PRAGMA synchronous = OFF")  # nobody cuts the power here
        return contextlib.closing(connection)


async def serve(port: int, rows: Rows, redis_url: str) -> None:
    bloom = BloomFilter(b"0123456789abcdef", expected_items=100_000)
    guard = Guard(bloom, rows.load)
    guard.peers = views = Views(
        guard, connect(redis_url), lambda: bloom.update(rows.keys()), settle=SETTLE
    )  # fmt: skip
    views.start()

    async def answer(line: str) -> str:
        verb, _, key = line.partition(" ")
        try:
            match verb:
                case "write":
                    await guard.write([key], lambda: rows.insert(key), adding=True)
                    return "written"
                case "look":
                    return json.dumps(await guard.get(key))
                case _:
                    return json.dumps(views.status())
        except StoreUnavailable as error:
            return f"unavailable {error}"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write((await answer(line.decode().rstrip("\n"))).encode() + b"\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(serve(int(sys.argv[1]), Rows(Path(sys.argv[2])), sys.argv[3]))
