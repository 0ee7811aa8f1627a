"""The catalogue's tables, in whatever database SQLAlchemy reaches."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import Column, Connection, Dialect, MetaData, Numeric, Table, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from windlass.catalogue.product import DIGITS, PLACES, price_text

metadata = MetaData()


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

loaded = Table(
    "windlass_loaded",
    metadata,
    # Of a file of initial ids that are all there, or were.
    Column("sha256", Text, primary_key=True),
)


def migrate(connection: Connection) -> None:
    """Make the tables where there are none; one that is there is taken as it is."""
    metadata.create_all(connection)
