"""The catalogue: products behind a guard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from windlass.catalogue.product import Product, may_be_an_id
from windlass.catalogue.products import Products
from windlass.database import sqlite_url
from windlass.guard.guard import Answer, Filter, Guard, Limits

DATABASE = "catalogue.db"
_PRODUCT = 200
"""Bytes of a product in memory beside its id and name."""


class Catalogue:
    """Products, looked up through a guard and written past it; this process is the only one that writes."""

    def __init__(
        self,
        products: Products,
        filter: Filter,  # noqa: A002
        *,
        limits: Limits | None = None,
    ) -> None:
        """`filter` holds every id that there is."""
        self.products = products
        self.guard: Guard[Product] = Guard(filter, products.get, weigh=_weight, limits=limits)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        build: Callable[[Iterable[str]], Filter],
        *,
        url: str | None = None,
        synchronous: str = "full",
    ) -> Catalogue:
        """The catalogue of a data directory, or of the database at `url`. Raises StartError; blocks.

        `build` makes a filter of all ids, which come one after the other.
        """
        products = Products(url or sqlite_url(data_dir / DATABASE), synchronous=synchronous)
        try:
            return cls(products, build(products.ids()))
        except BaseException:
            products.close()
            raise

    def close(self) -> None:
        """Finish what is under way in the database, then refuse everything. Blocks."""
        self.products.close()

    async def get(self, product_id: str) -> Answer[Product]:
        """What there is, and who knew. Raises StoreUnavailable."""
        return await self.guard.get(product_id)

    async def insert(self, product: Product) -> None:
        """Add a new product; whoever asks from now on finds it. Raises ProductExists, StoreUnavailable."""
        await self.guard.write([product.product_id], lambda: self.products.insert(product), adding=True)

    async def put(self, several: Sequence[Product]) -> int:
        """Write these whether they are there or not, all or none; how many are new."""
        ids = [product.product_id for product in several]
        return await self.guard.write(ids, lambda: self.products.put(several), adding=True)

    async def add(self, ids: Sequence[str]) -> int:
        """Add a product for each id that is not there, with no more than that; how many were new."""
        return await self.guard.write(ids, lambda: self.products.add(ids), adding=True)

    async def delete(self, product_id: str) -> bool:
        """Take one away; whether it was there. What cannot be there costs no transaction."""
        if product_id not in self.guard.filter or not may_be_an_id(product_id):
            return False
        return await self.guard.write([product_id], lambda: self.products.delete(product_id), adding=False)

    async def page(self, after: str = "", limit: int = 100) -> Sequence[Product]:
        """Up to `limit` products whose ids come after `after`, in the order of their UTF-8."""
        return await self.products.page(after, limit)


def _weight(product: Product) -> int:
    return sys.getsizeof(product.product_id) + sys.getsizeof(product.name) + _PRODUCT
