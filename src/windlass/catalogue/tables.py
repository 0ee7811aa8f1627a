"""The catalogue's table, in whatever database SQLAlchemy reaches."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import Column, Connection, Dialect, MetaData, Numeric, Table, Text, func, select, text
from sqlalchemy.types import TypeDecorator, TypeEngine

from windlass.catalogue.product import DIGITS, PLACES, price_text
from windlass.catalogue.trigger import DIALECTS, Watched, install

metadata = MetaData()
_LOCK = 0x57494E44  # "WIND", of advisory locks


class Price(TypeDecorator[Decimal]):
    """An exact decimal number. SQLite has none, and would make a float of it: there it is text."""

    impl = Numeric(DIGITS, PLACES)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Decimal]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else self.impl_instance)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> object:
        return price_text(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: object, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(price_text(Decimal(str(value))))


products = Table(
    "products",
    metadata,
    # Pages go by the order of bytes, whatever the language of the database is.
    Column("product_id", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("price", Price, nullable=False),
)


def migrate(connection: Connection) -> None:
    """Make the table where there is none, and the record of its keys; what is there is taken as it is."""
    if connection.dialect.name == "postgresql":  # several servers that start at once
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    metadata.create_all(connection)
    if connection.dialect.name in DIALECTS:
        install(connection, watched(connection))


def watched(connection: Connection) -> Watched:
    """Our own table, with the schema in which PostgreSQL has made or found it."""
    schema = None
    if connection.dialect.name == "postgresql":
        schema = connection.execute(
            text(
                "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.oid = to_regclass(:table)"
            ),
            {"table": products.name},
        ).scalar_one()
    return Watched(products.name, products.c.product_id.name, schema)
