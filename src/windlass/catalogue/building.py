"""Filters of all ids in a database: of what size they are, and how they are filled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from windlass.errors import FilterStateRefused, StoreClosed
from windlass.guard.bloom import BloomFilter

_BATCH = 50_000
"""Ids after which a scan looks whether it is still wanted."""


class Ids(Protocol):
    """The ids that there are. Both block, and may raise StoreUnavailable."""

    def ids(self) -> Iterator[str]: ...

    def count(self) -> int: ...


class Builder:
    """Makes filters for `items` ids, or twice, four times, ... as many where there are more."""

    def __init__(self, ids: Ids, secret: bytes, items: int, rate: float, closing: threading.Event) -> None:
        """`closing`: a scan that is under way is given up."""
        self._ids, self._secret, self._items, self._rate = ids, secret, items, rate
        self._closing = closing

    def count(self) -> int:
        """How many ids there are. Raises StoreUnavailable; blocks."""
        return self._ids.count()

    def load(self, state: bytes) -> BloomFilter:
        """The filter of a stored form. Raises FilterStateRefused for one that this would not have made."""
        found = BloomFilter.load(state, self._secret, false_positive_rate=self._rate)
        factor, rest = divmod(found.expected_items, self._items)
        if rest or factor & (factor - 1) or not factor:
            raise FilterStateRefused(f"It was made for items {found.expected_items}, not {self._items}.")
        return found

    def empty(self, count: int) -> BloomFilter:
        """One with room for `count` ids and a tenth."""
        items = self._items
        if count > items:
            while items < 1.1 * count:
                items *= 2
        return BloomFilter(self._secret, expected_items=items, false_positive_rate=self._rate)

    def fill(self, filter: BloomFilter) -> Iterator[int]:  # noqa: A002
        """Add every id there is; how many they are so far, now and then. Raises StoreUnavailable; blocks."""
        ids, done = iter(self._ids.ids()), 0
        while batch := list(islice(ids, _BATCH)):
            if self._closing.is_set():
                raise StoreClosed
            filter.update(batch)
            done += len(batch)
            yield done
