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
    Executable,
    Insert,
    Row,
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
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from windlass.catalogue.epochs import Epochs
from windlass.catalogue.existing import Existing, adopt
from windlass.catalogue.prices import TheirPrice
from windlass.catalogue.product import MAX_NAME, Product
from windlass.catalogue.record import Record
from windlass.catalogue.tables import OWN, Columns, loaded, migrate, products
from windlass.catalogue.trigger import DIALECTS, Watched
from windlass.database import PATIENCE, Database
from windlass.errors import (
    CatalogueReadOnly,
    Conflict,
    Invalid,
    ProductExists,
    StoreUnavailable,
    WindlassError,
)

_IDS = 10_000
_GENERATED = "428C9"
"""SQLSTATE of a column that only the database fills."""


class Products:
    """One table of products. Every method may raise StoreUnavailable; those that write, CatalogueReadOnly."""

    def __init__(
        self,
        url: str,
        *,
        table: Existing | None = None,
        read_only: bool = False,
        synchronous: str = "full",
        patience: float = PATIENCE,
    ) -> None:
        """Open the database and make the table where there is none; `table` is one that there is.

        `read_only`: no product is changed, and in an existing table's database nothing at all. Raises
        StartError; blocks.
        """
        self.read_only = read_only
        found: tuple[Columns, Watched | None] | None = None

        def prepare(connection: Connection) -> None:
            nonlocal found
            if table is None:
                found = OWN, migrate(connection)
            else:
                found = adopt(connection, table, read_only=read_only)

        self._database = Database(
            url,
            prepare,
            owner="catalogue",
            synchronous=synchronous,
            patience=patience,
            read_only=read_only and table is not None,
        )
        assert found is not None
        self._columns, watched = found
        self.record = None if watched is None else Record(self._database, watched)
        """Which keys were written, by whomever; None where no record is kept."""
        self.epochs = Epochs(self._database)
        key, name, price = self._columns.key, self._columns.name, self._columns.price
        self._select = select(*(column for column in (key, name, price) if column is not None))
        self._count = select(func.count(key))
        self._ids = select(key).where(key.is_not(None)).order_by(key).limit(_IDS)
        mine = key == bindparam("the_key")
        self._one = self._select.where(mine)
        self._insert = _insertion(self._database.dialect, self._columns)
        self._delete = delete(self._columns.table).where(mine)
        if name is not None and price is not None:
            values: dict[Any, Any] = {name: bindparam("the_name"), price: bindparam("the_price")}
            self._update = update(self._columns.table).where(mine).values(values)

    def close(self) -> None:
        """Finish what is under way, then refuse everything. Blocks."""
        self._database.close()

    def check_writable(self) -> None:
        """Raises CatalogueReadOnly where nothing may be written."""
        if self.read_only:
            raise CatalogueReadOnly

    async def get(self, product_id: str) -> Product | None:
        """The product, or None. An id that no product can have does not reach the database."""
        key = self._columns.kind.value(product_id)
        if key is None:
            return None

        def step(connection: Connection) -> Product | None:
            found = map(self._product, connection.execute(self._one, {"the_key": key}))
            # There are columns to which "A" is "a". Here they are two ids.
            return next((product for product in found if product.product_id == product_id), None)

        return await self._database.read(step)

    async def insert(self, product: Product) -> None:
        """Add a new one. Raises ProductExists; Invalid where the table takes no such row."""
        row = self._row(product)
        taken = ProductExists(f"There is a product {product.product_id!r} already.")

        def step(connection: Connection) -> None:
            if not _execute(connection, self._insert, row, taken):
                raise taken

        await self._database.write(step)

    async def put(self, several: Iterable[Product]) -> int:
        """Write these whether they are there or not, in one transaction; how many are new.

        Of several with one id the last one counts. At most some thousands: a statement takes no more.
        Raises Invalid where the table takes no such row.
        """
        # In order, so that two servers that write the same ones wait for each other and never in a ring.
        rows = {product.product_id: self._row(product) for product in sorted(several, key=_id_of)}
        key, name, price = (column.name for column in self._columns.table.columns)
        known = select(self._columns.key).where(self._columns.key.in_([row[key] for row in rows.values()]))
        taken = StoreUnavailable("Somebody else writes these products.", retry_after=1)

        def step(connection: Connection) -> int:
            there = {self._columns.kind.text(each) for each in connection.execute(known).scalars()}
            old = [
                {"the_key": row[key], "the_name": row[name], "the_price": row[price]}
                for product_id, row in rows.items()
                if product_id in there
            ]
            new = [row for product_id, row in rows.items() if product_id not in there]
            if old:
                _execute(connection, self._update, old, taken)
            if new and _execute(connection, self._insert, new, taken) < len(new):
                raise taken
            return len(new)

        return await self._database.write(step)

    async def add(self, ids: Iterable[str]) -> int:
        """Add a product for each id that is not there, in one transaction; how many were new.

        It has its id for a name, and costs nothing. Only for our own table.
        """
        self.check_writable()
        wanted = msgspec.json.encode(sorted(ids)).decode()

        def step(connection: Connection) -> int:
            return connection.execute(_placeholders(connection.dialect.name), {"ids": wanted}).rowcount

        return await self._database.write(step)

    async def delete(self, product_id: str) -> bool:
        """Take one away; whether it was there. Raises Invalid where something else refers to it."""
        self.check_writable()
        key = self._columns.kind.value(product_id)
        if key is None:
            return False
        taken = StoreUnavailable("Somebody else writes this product.", retry_after=1)
        return await self._database.write(
            lambda connection: _execute(connection, self._delete, {"the_key": key}, taken) > 0
        )

    async def page(self, after: str = "", limit: int = 100) -> Sequence[Product]:
        """Up to `limit` products whose ids come after `after`, in the order of their UTF-8.

        A table of the user's has the order of its key column. Raises Invalid for an `after` that is no id.
        """
        key = self._columns.key
        wanted = self._select.where(key.is_not(None)).order_by(key).limit(limit)
        if after:
            last = self._columns.kind.value(after)
            if last is None:
                raise Invalid("after is no id that a product here can have.", field="after")
            wanted = wanted.where(key > last)
        return await self._database.read(
            lambda connection: [self._product(row) for row in connection.execute(wanted)]
        )

    def count(self) -> int:
        """How many there are. Blocks."""
        return self._database.look(lambda connection: connection.execute(self._count).scalar_one())

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
        found = self._database.look(partial(_all, self._ids))
        while found:
            yield from map(self._columns.kind.text, found)
            found = self._database.look(partial(_all, self._ids.where(self._columns.key > found[-1])))

    def _product(self, row: Row[Any]) -> Product:
        values = iter(row)
        product_id = self._columns.kind.text(next(values))
        name = None if self._columns.name is None else next(values)
        return Product(product_id, product_id if name is None else name, next(values, Decimal(0)))

    def _row(self, product: Product) -> dict[str, Any]:
        """The product as its columns. Raises Invalid where they cannot hold it, and CatalogueReadOnly."""
        self.check_writable()
        columns = self._columns
        assert columns.name is not None
        assert columns.price is not None
        key = columns.kind.value(product.product_id)
        if key is None:
            raise Invalid("product_id is none that this table can have.", field="product_id")
        if isinstance(columns.price.type, TheirPrice):
            columns.price.type.check(product.price)
        return {columns.key.name: key, columns.name.name: product.name, columns.price.name: product.price}


_id_of = attrgetter("product_id")


def _insertion(dialect: str, columns: Columns) -> Insert:
    """The statement that adds a row; where its key is taken none, if the database has such a statement."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # here, as a start with SQLite does without

        return postgresql.insert(columns.table).on_conflict_do_nothing(index_elements=[columns.key])
    if dialect == "sqlite":
        return sqlite.insert(columns.table).on_conflict_do_nothing(index_elements=[columns.key])
    return insert(columns.table)


def _placeholders(dialect: str) -> Insert:
    """One statement for many ids, which come as an array in JSON: 20 times as fast as values one by one."""
    into: postgresql.Insert | sqlite.Insert = sqlite.insert(products)
    listed: Any = bindparam("ids", type_=Text)
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        into = postgresql.insert(products)
        listed = func.json_array_elements_text(cast(listed, JSON)).table_valued("value")
    else:
        listed = func.json_each(listed).table_valued("value")
    rows = select(
        listed.c.value, func.substr(listed.c.value, 1, MAX_NAME), literal(Decimal(0), products.c.price.type)
    ).where(true())  # without it, SQLite takes ON CONFLICT for a join
    columns = ["product_id", "name", "price"]
    added = into.from_select(columns, rows).on_conflict_do_nothing()
    return added.execution_options(preserve_rowcount=True)


def _execute(connection: Connection, statement: Executable, values: Any, taken: WindlassError) -> int:
    """Run what writes; the number of rows. Raises Invalid, or `taken` where that cannot be told from it."""
    try:
        counted = {"preserve_rowcount": True}  # of an INSERT, too
        return connection.execute(statement, values, execution_options=counted).rowcount
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if isinstance(error, IntegrityError) and connection.dialect.name not in DIALECTS:
            raise taken from None
        if isinstance(error, (IntegrityError, DataError)) or state == _GENERATED:
            reason = str(error.orig).splitlines()[0]  # on the others is what the row has
            raise Invalid(f"The table does not take this: {reason}.") from None
        raise


def _all(query: Select[Any], connection: Connection) -> Sequence[Any]:
    return connection.execute(query).scalars().all()
