"""A table of the user's own as a table of products: found, checked, and never made.

Only the named columns are read and written. What is wrong with them is said at the start, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Connection,
    Enum,
    Float,
    Inspector,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    inspect,
    text,
)
from sqlalchemy.types import NullType, TypeEngine

from windlass.catalogue.keys import IntegerKeys, Kind, TextKeys, UuidKeys
from windlass.catalogue.prices import TheirPrice
from windlass.catalogue.tables import Columns
from windlass.catalogue.trigger import DIALECTS, Watched, install, installed, located
from windlass.errors import StartError

_PART = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


@dataclass(frozen=True, slots=True)
class Existing:
    """Where products are: a table, perhaps with its schema, and the columns of their ids, names and prices.

    A name with a dot in it is put in double quotes. Without a column for names a product is called by its id;
    without one for prices it costs 0. Such a table can only be read.
    """

    table: str
    key: str
    name: str | None = None
    price: str | None = None
    trigger: bool = False
    """Whether Windlass may install the trigger of the record where there is none."""

    def watched(self) -> Watched:
        """Table and key column. Raises StartError for a name that is none."""
        parts = [quoted.replace('""', '"') or plain for quoted, plain in _PART.findall(self.table)]
        if not 1 <= len(parts) <= 2 or _PART.sub("", self.table) != "." * (len(parts) - 1):
            raise StartError(
                f"{self.table!r} is no name of a table. Write table or schema.table; a name with a dot or a"
                ' quote in it in double quotes: "a.b".'
            )
        return Watched(parts[-1], self.key, parts[0] if len(parts) == 2 else None)


def adopt(connection: Connection, existing: Existing, *, read_only: bool) -> tuple[Columns, Watched | None]:
    """The table, and where its record is, None where none is kept. Raises StartError, saying what to do."""
    watched = existing.watched()
    if connection.dialect.name == "sqlite" and watched.schema is not None:
        raise StartError(f"SQLite has no schemas: name the table alone, not {existing.table!r}.")
    found = _columns(connection, existing, watched)
    if connection.dialect.name == "postgresql":
        watched = located(connection, watched)
        _check_rights(connection, existing, watched, read_only)
    if not read_only and (existing.name is None or existing.price is None):
        raise StartError(
            f"Without columns for names and prices {watched.name} can only be read: set products_read_only."
        )
    columns = _described(connection.dialect.name, existing, watched, found)
    return columns, watched if _recorded(connection, existing, watched, read_only) else None


def _columns(connection: Connection, existing: Existing, watched: Watched) -> dict[str, TypeEngine[Any]]:
    """The types of the table's columns, those named in `existing` among them, and the key unique."""
    inspector = inspect(connection)
    if not inspector.has_table(watched.table, watched.schema):
        there = inspector.get_table_names(watched.schema if _has_schema(inspector, watched) else None)
        raise StartError(f"There is no table {watched.name}. There are: {_some(there)}.")
    reflected = inspector.get_columns(watched.table, watched.schema)
    found = {column["name"]: column["type"] for column in reflected}
    for column in (existing.key, existing.name, existing.price):
        if column is not None and column not in found:
            raise StartError(f"The table {watched.name} has no column {column!r}. It has: {_some(found)}.")
    if len({existing.key, existing.name, existing.price} - {None}) < sum(
        column is not None for column in (existing.key, existing.name, existing.price)
    ):
        raise StartError("Ids, names and prices are three columns; one of them is named twice.")
    if [existing.key] not in _unique(inspector, watched):
        raise StartError(
            f"The column {existing.key!r} of {watched.name} names no product for certain: it is not unique."
            f' Add a constraint: ALTER TABLE {watched.name} ADD UNIQUE ("{existing.key}"), or in SQLite'
            f' CREATE UNIQUE INDEX products_key ON {watched.name} ("{existing.key}").'
        )
    return found


def _has_schema(inspector: Inspector, watched: Watched) -> bool:
    return watched.schema in inspector.get_schema_names()


def _unique(inspector: Inspector, watched: Watched) -> Iterable[list[Any]]:
    """Lists of columns that no two rows have in common."""
    where = watched.table, watched.schema
    yield inspector.get_pk_constraint(*where)["constrained_columns"]
    for constraint in inspector.get_unique_constraints(*where):
        yield constraint["column_names"]
    # SQLite's own indexes are of constraints that SQLAlchemy does not always make out.
    auto: Any = {"include_auto_indexes": True} if inspector.dialect.name == "sqlite" else {}
    for index in inspector.get_indexes(*where, **auto):
        if index["unique"] and not any("where" in option for option in index.get("dialect_options", {})):
            yield index["column_names"]


def _described(
    dialect: str, existing: Existing, watched: Watched, found: dict[str, TypeEngine[Any]]
) -> Columns:
    kind, key_type = _kind(found[existing.key], dialect)
    if kind is None:
        raise StartError(
            f"The column {existing.key!r} of {watched.name} is {_type(found[existing.key])}. Ids can be text,"
            " integers or UUIDs."
        )
    table = Table(watched.table, MetaData(), Column(existing.key, key_type), schema=watched.schema)
    if existing.name is not None:
        if not _is_text(found[existing.name]):
            raise StartError(
                f"The column {existing.name!r} of {watched.name} is {_type(found[existing.name])}, no text."
            )
        table.append_column(Column(existing.name, Text))
    if existing.price is not None:
        price = found[existing.price]
        if not isinstance(price, (Numeric, Float, Integer)):
            raise StartError(
                f"The column {existing.price!r} of {watched.name} is {_type(price)}. Prices can be numeric,"
                " floating or integer."
            )
        table.append_column(Column(existing.price, TheirPrice.like(price)))
    columns = table.columns
    return Columns(
        table,
        key=columns[existing.key],
        kind=kind,
        name=None if existing.name is None else columns[existing.name],
        price=None if existing.price is None else columns[existing.price],
    )


def _kind(found: TypeEngine[Any], dialect: str) -> tuple[Kind | None, TypeEngine[Any]]:
    """What keys of this type are, and the type to ask by."""
    if isinstance(found, Integer):
        bits = 64 if dialect == "sqlite" or isinstance(found, BigInteger) else 32
        return IntegerKeys(16 if isinstance(found, SmallInteger) and bits == 32 else bits), found
    if isinstance(found, Uuid):
        return UuidKeys(), Uuid()
    if _is_text(found):
        # Asked for without a type, so that it is compared as the column is, and never cut to fit by a cast.
        return TextKeys(padded=isinstance(found, CHAR) and dialect == "postgresql"), NullType()
    return None, NullType()


def _is_text(found: TypeEngine[Any]) -> bool:
    return isinstance(found, String) and not isinstance(found, Enum)


def _type(found: TypeEngine[Any]) -> str:
    return "of a type that Windlass does not know" if isinstance(found, NullType) else str(found)


# --- PostgreSQL -----------------------------------------------------------------------------------


def _check_rights(connection: Connection, existing: Existing, watched: Watched, read_only: bool) -> None:
    """Raises StartError, with the GRANT that is missing."""
    user = connection.execute(text("SELECT current_user")).scalar_one()
    usage = text("SELECT has_schema_privilege(:schema, 'USAGE')")
    if not connection.execute(usage, {"schema": watched.schema}).scalar_one():
        raise _denied("look into its schema", f'USAGE ON SCHEMA "{watched.schema}"', user, watched)
    named = [each for each in (existing.key, existing.name, existing.price) if each is not None]
    can = text("SELECT has_column_privilege(:table, :column, :right)")
    for right in ["SELECT"] if read_only else ["SELECT", "INSERT", "UPDATE"]:
        for column in named:
            values = {"table": watched.name, "column": column, "right": right}
            if not connection.execute(can, values).scalar_one():
                what = "read it" if right == "SELECT" else "write it (or set products_read_only)"
                raise _denied(what, f"{right} ON {watched.name}", user, watched)
    delete = text("SELECT has_table_privilege(:table, 'DELETE')")
    if not read_only and not connection.execute(delete, {"table": watched.name}).scalar_one():
        raise _denied("write it (or set products_read_only)", f"DELETE ON {watched.name}", user, watched)


def _denied(what: str, right: str, user: str, watched: Watched) -> StartError:
    return StartError(
        f'{user!r} may not {what}: {watched.name}. Have its owner say: GRANT {right} TO "{user}".'
    )


# --- the record -----------------------------------------------------------------------------------


def _recorded(connection: Connection, existing: Existing, watched: Watched, read_only: bool) -> bool:
    """Whether the record is kept, and may be read; it is begun where we are allowed to."""
    if connection.dialect.name not in DIALECTS:
        return False
    if existing.trigger and not read_only:
        reason = install(connection, watched)
        if reason is not None:
            raise StartError(
                f"The trigger on {watched.name} cannot be installed: {reason}. Have the table's owner run"
                " what `windlass products trigger` prints."
            )
    if not installed(connection, watched):
        return False
    if connection.dialect.name == "postgresql":
        allowed = text("SELECT has_table_privilege(:record, 'SELECT')")
        return bool(connection.execute(allowed, {"record": watched.record}).scalar_one())
    return True


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"
