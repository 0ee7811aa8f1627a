"""The first epoch of the servers' journal in which anybody wrote the products; it is kept beside them."""

from __future__ import annotations

import contextlib

from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, insert, select
from sqlalchemy.exc import IntegrityError

from windlass.database import Database

_epoch = Table(
    "windlass_epoch",
    MetaData(),
    Column("one", Integer, primary_key=True, autoincrement=False),  # it has one row
    Column("epoch", Text, nullable=False),
)


def is_first(database: Database, epoch: str) -> bool:
    """Whether no server has written the products in another epoch. Raises StoreUnavailable; blocks."""

    def step(connection: Connection) -> bool:
        _epoch.create(connection, checkfirst=True)
        if connection.execute(select(_epoch.c.epoch)).scalar_one_or_none() is None:
            with contextlib.suppress(IntegrityError), connection.begin_nested():  # another may be faster
                connection.execute(insert(_epoch).values(one=1, epoch=epoch))
        return bool(connection.execute(select(_epoch.c.epoch)).scalar_one() == epoch)

    return database.change(step)
