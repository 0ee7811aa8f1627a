"""The catalogue's tables, in whatever database SQLAlchemy reaches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, Text

from windlass import migrations
from windlass.catalogue.keys import Kind, TextKeys
from windlass.catalogue.prices import Price
from windlass.catalogue.product import MAX_ID_BYTES
from windlass.catalogue.trigger import DIALECTS, Watched, install, located

metadata = MetaData()
TABLES = migrations.Tables("catalogue", metadata, Path(__file__).parent / "migrations", head="0001")


@dataclass(frozen=True)
class Columns:
    """A table of products: its columns, and what its keys are. Without name or price it is only read."""

    table: Table
    key: Column[Any]
    kind: Kind
    name: Column[Any] | None
    price: Column[Any] | None


products = Table(
    "products",
    metadata,
    # Pages go by the order of bytes, whatever the language of the database is.
    Column("product_id", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("price", Price, nullable=False),
)

OWN = Columns(
    products,
    key=products.c.product_id,
    kind=TextKeys(MAX_ID_BYTES),
    name=products.c.name,
    price=products.c.price,
)

loaded = Table(
    "windlass_loaded",
    metadata,
    # Of a file of initial ids that are all there, or were.
    Column("sha256", Text, primary_key=True),
)


def migrate(connection: Connection) -> Watched | None:
    """Make the tables where there are none, or bring them up to date; one that is there is taken as it is.

    Where its record is, which is begun if it can be; None where it cannot. Raises StoreTooNew.
    """
    migrations.lock(connection)  # the record is begun by one server, too
    migrations.migrate(connection, TABLES)
    if connection.dialect.name not in DIALECTS:
        return None
    watched = located(connection, Watched(products.name, products.c.product_id.name))
    return watched if install(connection, watched) is None else None
