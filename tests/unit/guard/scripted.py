"""A source and a filter whose every move a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class ExactFilter:
    """A filter without false positives, but for the keys it is told to pass."""

    def __init__(self, keys: Iterable[str] = (), passing: Iterable[str] = ()) -> None:
        self.keys = {*keys, *passing}

    def __contains__(self, key: str, /) -> bool:
        return key in self.keys

    def add(self, key: str, /) -> None:
        self.keys.add(key)

    def update(self, keys: Iterable[str], /) -> None:
        self.keys.update(keys)


class Query:
    """One query at the source: it looks when told to, and answers when told to."""

    def __init__(self, source: Source, key: str) -> None:
        self.key = key
        self._source = source
        self._seen: int | None = None
        self.looked = False
        self.done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def look(self) -> None:
        self._seen, self.looked = self._source.rows.get(self.key), True

    def answer(self) -> None:
        if not self.looked:
            self.look()
        if not self.done.done():
            self.done.set_result(self._seen)

    def fail(self, error: Exception) -> None:
        self.done.set_exception(error)


class Source:
    """Rows, and the queries for them: answered at once, or `held` until they are told to."""

    def __init__(self, rows: dict[str, int] | None = None, *, held: bool = False) -> None:
        self.rows = dict(rows or {})
        self.held = held
        self.queries: list[Query] = []
        """Those that nobody has answered yet."""
        self.calls: list[str] = []

    async def load(self, key: str) -> int | None:
        self.calls.append(key)
        query = Query(self, key)
        if not self.held:
            query.answer()
        else:
            self.queries.append(query)
        return await query.done


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)
