"""Which epoch of the servers' journal the products are written in; it is kept beside them.

Servers that use two journals, in two Redis, do not hear of each other. So one enters an epoch only if its
products are written in that one, or in the one that it comes from, or in none.
"""

from __future__ import annotations

import contextlib
from typing import Literal

import structlog
from sqlalchemy import Column, Connection, MetaData, Table, Text, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from windlass.database import Database
from windlass.errors import WindlassError

_epochs = Table(
    "windlass_epochs",
    MetaData(),
    Column("which", Text, primary_key=True),  # the first that there ever was, and the current one
    Column("epoch", Text, nullable=False),
)

log = structlog.get_logger("windlass.catalogue")


class Epochs:
    """Every method blocks, and may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept = True

    def begin(self) -> None:
        """No epoch is the current one any more; for whoever knows that there is no other server.

        It makes the table. Where that is not allowed, every epoch may be entered, and none is the first.
        """

        def step(connection: Connection) -> None:
            _epochs.create(connection, checkfirst=True)
            connection.execute(delete(_epochs).where(_epochs.c.which == "current"))

        try:
            self._database.change(step)
        except (WindlassError, SQLAlchemyError) as error:
            self._kept = False
            log.warning(
                "epochs_not_kept",
                message="Nobody can tell whether other servers of these products use another Redis, as no"
                f" table can be made beside them: {error}",
            )

    def is_first(self, epoch: str) -> bool:
        """Whether no server has written the products in another one."""
        return self._kept and self._database.change(lambda connection: _is(connection, "first", epoch))

    def enter(self, epoch: str, before: str) -> bool:
        """Whether they are written in this one: it becomes the current one after `before`, or after none."""

        def step(connection: Connection) -> bool:
            mine = _epochs.c.which == "current", _epochs.c.epoch == before
            connection.execute(update(_epochs).where(*mine).values(epoch=epoch))
            return _is(connection, "current", epoch)

        return not self._kept or self._database.change(step)

    def take(self, epoch: str) -> None:
        """It is the current one; for whoever knows that there is no other server."""

        def step(connection: Connection) -> None:
            if not _is(connection, "current", epoch):
                connection.execute(update(_epochs).where(_epochs.c.which == "current").values(epoch=epoch))

        self._database.change(step)


def _is(connection: Connection, which: Literal["first", "current"], epoch: str) -> bool:
    """Whether it is this one; it becomes it where there is none."""
    wanted = select(_epochs.c.epoch).where(_epochs.c.which == which)
    if connection.execute(wanted).scalar_one_or_none() is None:
        with contextlib.suppress(IntegrityError), connection.begin_nested():  # another may be faster
            connection.execute(insert(_epochs).values(which=which, epoch=epoch))
    return bool(connection.execute(wanted).scalar_one() == epoch)
