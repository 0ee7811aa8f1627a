"""A shop as an attack sees it: look-ups over HTTP, and behind them a real guard with a source that counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import unquote

from windlass.guard.bloom import BloomFilter
from windlass.guard.guard import Filter, Guard

SECRET = bytes(range(32))


class Shop:
    """Answers what a server answers for these ids; `calls` is how often its source was asked."""

    def __init__(self, ids: Collection[str], filter: Filter | None = None) -> None:  # noqa: A002
        self.ids = ids
        self.calls = 0
        self.failing: Collection[str] = ()
        """Ids that are answered with 503."""
        self.hidden: Collection[str] = ()
        """Ids that are denied, although they are there."""
        self.key: str | None = None
        self.hang_ups = 0
        """Requests that are not answered: the connection is closed."""
        if filter is None:
            filter = BloomFilter(SECRET, expected_items=max(1000, len(ids)))  # noqa: A001
        for id_ in ids:
            filter.add(id_)
        self.guard = Guard(filter, self._load)

    async def _load(self, id_: str) -> str | None:
        self.calls += 1
        return id_ if id_ in self.ids else None

    async def answer(self, target: str, head: str = "") -> tuple[int, bytes]:
        status, document = await self._answer(target, head)
        return status, json.dumps(document).encode()

    async def _answer(self, target: str, head: str) -> tuple[int, object]:
        if self.key is not None and f"authorization: Bearer {self.key}" not in head:
            return 401, {"code": "unauthenticated", "detail": "No key."}
        if target == "/metrics":
            counts = self.guard.counts()
            return 200, {
                "requests": counts.requests,
                "database_roundtrips_saved": counts.database_roundtrips_saved,
            }
        if target.startswith("/products?"):
            return 200, {"products": [{"product_id": id_} for id_ in self.ids]}
        id_ = unquote(target.removeprefix("/products/"))
        if id_ in self.failing:
            return 503, {"code": "store_unavailable", "detail": "The database is gone."}
        found = await self.guard.get(id_)
        status = 404 if found.value is None or id_ in self.hidden else 200
        return status, {"source": found.source}

    # --- over HTTP --------------------------------------------------------------------------------

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with suppress(*gone), closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if self.hang_ups:
                    self.hang_ups -= 1
                    return
                status, body = await self.answer(head.split(" ")[1], head)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


@contextmanager
def served(shop: Shop) -> Iterator[str]:
    """The address of the shop, which is open meanwhile, in a thread of its own."""
    opened: list[str] = []
    is_open, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(shop._talk, "127.0.0.1", 0)
        opened.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        is_open.set()
        await over.wait()
        server.close()
        talks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the next round

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert is_open.wait(60)
        yield opened[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
