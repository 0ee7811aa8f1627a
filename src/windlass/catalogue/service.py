"""The catalogue: products behind a guard."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from windlass.catalogue.keeping import Keeper, Kept
from windlass.catalogue.product import Product, may_be_an_id
from windlass.catalogue.products import Products
from windlass.database import sqlite_url
from windlass.guard.guard import Answer, Guard, Limits
from windlass.guard.saved import OnDisk, Place

DATABASE = "catalogue.db"
FILTER = "catalogue.filter"
_PRODUCT = 200
"""Bytes of a product in memory beside its id and name."""


class Catalogue:
    """Products, looked up through a guard and written past it; this process is the only one that writes."""

    def __init__(self, products: Products, keeper: Keeper, *, limits: Limits | None = None) -> None:
        """`keeper` has the filter of all ids that there are; it is started here, and closed with this."""
        self._products = products
        self._keeper = keeper
        self.guard: Guard[Product] = Guard(keeper.filter, products.get, weigh=_weight, limits=limits)
        keeper.start(self.guard)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        secret: bytes,
        *,
        url: str | None = None,
        place: Place | None = None,
        synchronous: str = "full",
        limits: Limits | None = None,
        **filter: Any,  # noqa: A002
    ) -> Catalogue:
        """The catalogue of a data directory, or of the database at `url`, its filter kept in `place`.

        `secret` is that of the installation; `filter` are further arguments of `Keeper`. Raises StartError,
        StoreUnavailable; blocks, for seconds where a million ids have to be read.
        """
        products = Products(url or sqlite_url(data_dir / DATABASE), synchronous=synchronous)
        try:
            place = place or OnDisk(data_dir / FILTER)
            keeper = Keeper(products, products.record, place, secret, **filter)
        except BaseException:
            products.close()
            raise
        return cls(products, keeper, limits=limits)

    def close(self) -> None:
        """Save the filter, finish what is under way in the database, then refuse everything. Blocks."""
        self._keeper.close()
        self._products.close()

    def stats(self) -> Kept:
        """The filter's figures."""
        return self._keeper.stats()

    async def rebuild(self) -> None:
        """Make the filter anew while it is in use; see `Keeper.rebuild`."""
        await self._keeper.rebuild()

    async def get(self, product_id: str) -> Answer[Product]:
        """What there is, and who knew. Raises StoreUnavailable."""
        return await self.guard.get(product_id)

    async def insert(self, product: Product) -> None:
        """Add a new product; whoever asks from now on finds it. Raises ProductExists, StoreUnavailable."""
        await self.guard.write([product.product_id], lambda: self._products.insert(product), adding=True)

    async def put(self, several: Sequence[Product]) -> int:
        """Write these whether they are there or not, all or none; how many are new."""
        ids = [product.product_id for product in several]
        return await self.guard.write(ids, lambda: self._products.put(several), adding=True)

    async def delete(self, product_id: str) -> bool:
        """Take one away; whether it was there. What cannot be there costs no transaction."""
        if product_id not in self.guard.filter or not may_be_an_id(product_id):
            return False
        was_there = await self.guard.write(
            [product_id], lambda: self._products.delete(product_id), adding=False
        )
        if was_there:
            self._keeper.deleted()
        return was_there

    async def page(self, after: str = "", limit: int = 100) -> Sequence[Product]:
        """Up to `limit` products whose ids come after `after`, in the order of their UTF-8."""
        return await self._products.page(after, limit)


def _weight(product: Product) -> int:
    return sys.getsizeof(product.product_id) + sys.getsizeof(product.name) + _PRODUCT
