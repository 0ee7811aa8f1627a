"""The products in their database. What can be said of one that is not there is the guard's part."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    Connection,
    Insert,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from windlass.catalogue.product import MAX_NAME, Product, may_be_an_id
from windlass.catalogue.tables import loaded, migrate, products
from windlass.database import Database
from windlass.errors import Conflict, ProductExists, StoreUnavailable

MAX_PAGE = 1000
_IDS = 10_000
_id = products.c.product_id

_one = select(products).where(_id == bindparam("key"))
_ids = select(_id).order_by(_id).limit(_IDS)
_delete = delete(products).where(_id == bindparam("key"))
_update = (
    update(products)
    .where(_id == bindparam("key"))
    .values(name=bindparam("new_name"), price=bindparam("new_price"))
)


class Products:
    """One table of products. Every method may raise StoreUnavailable."""

    def __init__(self, url: str, *, synchronous: str = "full") -> None:
        """Open the database and make the table where there is none. Raises StartError; blocks."""
        self._database = Database(url, migrate, owner="catalogue", synchronous=synchronous)

    def close(self) -> None:
        """Finish what is under way, then refuse everything. Blocks."""
        self._database.close()

    async def get(self, product_id: str) -> Product | None:
        """The product, or None. An id that no product can have does not reach the database."""
        if not may_be_an_id(product_id):
            return None

        def step(connection: Connection) -> Product | None:
            row = connection.execute(_one, {"key": product_id}).one_or_none()
            return None if row is None else Product(*row)

        return await self._database.read(step)

    async def insert(self, product: Product) -> None:
        """Add a new one. Raises ProductExists."""

        def step(connection: Connection) -> None:
            try:
                connection.execute(insert(products).values(_row(product)))
            except IntegrityError:
                raise ProductExists(f"There is a product {product.product_id!r} already.") from None

        await self._database.write(step)

    async def put(self, several: Iterable[Product]) -> int:
        """Write these whether they are there or not, in one transaction; how many are new.

        Of several with one id the last one counts. At most some thousands: a statement takes no more.
        """
        # In order, so that two servers that write the same ones wait for each other and never in a ring.
        wanted = {product.product_id: product for product in sorted(several, key=_id_of)}

        def step(connection: Connection) -> int:
            known = set(connection.execute(select(_id).where(_id.in_(wanted))).scalars())
            old = [product for product in wanted.values() if product.product_id in known]
            new = [product for product in wanted.values() if product.product_id not in known]
            if old:
                values = [{"key": p.product_id, "new_name": p.name, "new_price": p.price} for p in old]
                connection.execute(_update, values)
            if new:
                try:
                    connection.execute(insert(products), [_row(product) for product in new])
                except IntegrityError:  # another server was faster
                    raise StoreUnavailable("Somebody else writes these products.", retry_after=1) from None
            return len(new)

        return await self._database.write(step)

    async def add(self, ids: Iterable[str]) -> int:
        """Add a product for each id that is not there, in one transaction; how many were new.

        It has its id for a name, and costs nothing.
        """
        wanted = msgspec.json.encode(sorted(ids)).decode()

        def step(connection: Connection) -> int:
            return connection.execute(_placeholders(connection.dialect.name), {"ids": wanted}).rowcount

        return await self._database.write(step)

    async def delete(self, product_id: str) -> bool:
        """Take one away; whether it was there."""
        return await self._database.write(
            lambda connection: connection.execute(_delete, {"key": product_id}).rowcount > 0
        )

    async def page(self, after: str = "", limit: int = 100) -> Sequence[Product]:
        """Up to `limit` products whose ids come after `after`, in the order of their UTF-8."""
        wanted = select(products).where(_id > after).order_by(_id).limit(limit)
        return await self._database.read(
            lambda connection: [Product(*row) for row in connection.execute(wanted)]
        )

    async def has_loaded(self, digest: str) -> bool:
        """Whether the initial ids in a file of this SHA-256 were loaded to their end."""
        wanted = select(loaded).where(loaded.c.sha256 == digest)
        return await self._database.read(lambda connection: connection.execute(wanted).first() is not None)

    async def loaded(self, digest: str) -> None:
        """Note that those of this one were."""

        def step(connection: Connection) -> None:
            try:
                connection.execute(insert(loaded).values(sha256=digest))
            except IntegrityError:
                raise Conflict from None  # another server did the same

        with contextlib.suppress(Conflict):
            await self._database.write(step)

    async def ping(self) -> None:
        """Ask the table for something."""
        await self.page(limit=1)

    def ids(self) -> Iterator[str]:
        """Every id there is while nobody writes, page by page, so that many do not fill memory. Blocks."""
        found = self._database.look(partial(_all, _ids))
        while found:
            yield from found
            after = _ids.where(_id > found[-1])
            found = self._database.look(partial(_all, after))


_id_of = attrgetter("product_id")


def _placeholders(dialect: str) -> Insert:
    """One statement for many ids, which come as an array in JSON: 20 times as fast as values one by one."""
    into = postgresql.insert(products) if dialect == "postgresql" else sqlite.insert(products)
    listed: Any = bindparam("ids", type_=Text)
    if dialect == "postgresql":
        listed = func.json_array_elements_text(cast(listed, JSON)).table_valued("value")
    else:
        listed = func.json_each(listed).table_valued("value")
    rows = select(
        listed.c.value, func.substr(listed.c.value, 1, MAX_NAME), literal(Decimal(0), products.c.price.type)
    ).where(true())  # without it, SQLite takes ON CONFLICT for a join
    columns = ["product_id", "name", "price"]
    added = into.from_select(columns, rows).on_conflict_do_nothing()
    return added.execution_options(preserve_rowcount=True)


def _row(product: Product) -> dict[str, object]:
    return {"product_id": product.product_id, "name": product.name, "price": product.price}


def _all(query: Select[str], connection: Connection) -> Sequence[str]:
    return connection.execute(query).scalars().all()
