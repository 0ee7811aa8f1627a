"""A catalogue whose filter is kept, wherever: what the tests of that share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.redis_server import RedisServer
from windlass.catalogue.keeping import Keeper
from windlass.catalogue.product import Product
from windlass.catalogue.products import Products
from windlass.catalogue.service import FILTER, Catalogue
from windlass.guard.redis import connect
from windlass.guard.saved import InRedis, OnDisk, Storage

SECRET = bytes(range(32))
ITEMS = 1000
NEVER = 1e6
"""Seconds between saves, where a test saves by itself."""
KEY = "bloom:filter"

run = asyncio.run


def some(ids: Iterable[str]) -> list[Product]:
    return [Product(each, "name", Decimal(1)) for each in ids]


def numbered(count: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


class House:
    """A database, a storage of its filter, and whoever opens them."""

    def __init__(self, url: str, folder: Path, redis: RedisServer | None) -> None:
        self.url, self.folder, self.redis = url, folder, redis
        self.file = folder / FILTER
        self._closers: list[Callable[[], object]] = []

    def storage(self) -> Storage:
        if self.redis is None:
            return OnDisk(self.file)
        client = connect(self.redis.url)
        self._closers.append(client.close)
        return InRedis(client, KEY)

    def products(self) -> Products:
        opened = Products(self.url, synchronous="off")
        self._closers.append(opened.close)
        return opened

    def keeper(self, products: Products | None = None, storage: Storage | None = None, **more: Any) -> Keeper:
        """One that nobody starts: it saves when it is told to, and ends as in a crash."""
        products = products or self.products()
        options = {"expected_items": ITEMS, "interval": NEVER} | more
        return Keeper(products, products.record, storage or self.storage(), SECRET, **options)

    def catalogue(self, **more: Any) -> Catalogue:
        options: dict[str, Any] = {"expected_items": ITEMS, "interval": NEVER, "synchronous": "off"} | more
        opened = Catalogue.open(self.folder, SECRET, url=self.url, storage=self.storage(), **options)
        self._closers.append(opened.close)
        return opened

    def state(self) -> bytes:
        state = self.storage().load()
        assert state is not None
        return state

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()


def lost(catalogue: Catalogue, ids: Iterable[str]) -> list[str]:
    """Those of these ids that it does not find."""

    async def look() -> list[str]:
        return [each for each in ids if (await catalogue.get(each)).value is None]

    return run(look())


def missing(keeper: Keeper, ids: Iterable[str]) -> list[str]:
    """Those of these ids that its filter denies."""
    return [each for each in ids if each not in keeper.filter]
