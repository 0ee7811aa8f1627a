"""Products behind a guard: what `client.products` is, blocking and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from windlass.client import product_calls as calls
from windlass.client.product_values import FilterStats, Imported, LookupMetrics, Product, ProductPage

if TYPE_CHECKING:
    from windlass.client.async_client import AsyncClient
    from windlass.client.client import Client


class Products:
    """The products of a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, product_id: str) -> Product:
        """A product. ProductNotFound where there is none."""
        return self._client.run(calls.get(product_id))

    def create(self, product_id: str, name: str, price: Decimal | int) -> Product:
        """Add one. ProductExists where there is one with this id. Never repeated by itself."""
        return self._client.run(calls.create(Product(product_id, name, Decimal(price))))

    def put(self, product_id: str, name: str, price: Decimal | int) -> Product:
        """Add one, or change the one that is there."""
        return self._client.run(calls.put(Product(product_id, name, Decimal(price))))

    def put_many(self, products: Iterable[Product]) -> Imported:
        """Add and change many. Where that ends early, the error's `written` says how many are there."""
        return self._client.follow(calls.put_many(products))

    def delete(self, product_id: str) -> None:
        """Take one away. ProductNotFound where there is none."""
        self._client.run(calls.delete(product_id))

    def page(self, after: str = "", limit: int = 100) -> ProductPage:
        """Up to `limit` (1,000 at most) products whose ids come after `after`."""
        return self._client.run(calls.page(after, limit))

    def __iter__(self) -> Iterator[Product]:
        """All of them by their ids, page after page."""
        after: str | None = ""
        while after is not None:
            page = self.page(after, 1000)
            yield from page.products
            after = page.next

    def stats(self) -> FilterStats:
        """The filter in front of them, and how full it is."""
        return self._client.run(calls.stats())

    def rebuild(self) -> FilterStats:
        """Have the filter made anew; the stats' `rebuilding` tells how far it is, None once that is over."""
        return self._client.run(calls.rebuild())

    def metrics(self) -> LookupMetrics:
        """What look-ups have cost since the server's start."""
        return self._client.run(calls.metrics())


class AsyncProducts:
    """The products of a server, for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self, product_id: str) -> Product:
        """A product. ProductNotFound where there is none."""
        return await self._client.run(calls.get(product_id))

    async def create(self, product_id: str, name: str, price: Decimal | int) -> Product:
        """Add one. ProductExists where there is one with this id. Never repeated by itself."""
        return await self._client.run(calls.create(Product(product_id, name, Decimal(price))))

    async def put(self, product_id: str, name: str, price: Decimal | int) -> Product:
        """Add one, or change the one that is there."""
        return await self._client.run(calls.put(Product(product_id, name, Decimal(price))))

    async def put_many(self, products: Iterable[Product]) -> Imported:
        """Add and change many. Where that ends early, the error's `written` says how many are there."""
        return await self._client.follow(calls.put_many(products))

    async def delete(self, product_id: str) -> None:
        """Take one away. ProductNotFound where there is none."""
        await self._client.run(calls.delete(product_id))

    async def page(self, after: str = "", limit: int = 100) -> ProductPage:
        """Up to `limit` (1,000 at most) products whose ids come after `after`."""
        return await self._client.run(calls.page(after, limit))

    async def __aiter__(self) -> AsyncIterator[Product]:
        """All of them by their ids, page after page."""
        after: str | None = ""
        while after is not None:
            page = await self.page(after, 1000)
            for product in page.products:
                yield product
            after = page.next

    async def stats(self) -> FilterStats:
        """The filter in front of them, and how full it is."""
        return await self._client.run(calls.stats())

    async def rebuild(self) -> FilterStats:
        """Have the filter made anew; the stats' `rebuilding` tells how far it is, None once that is over."""
        return await self._client.run(calls.rebuild())

    async def metrics(self) -> LookupMetrics:
        """What look-ups have cost since the server's start."""
        return await self._client.run(calls.metrics())
