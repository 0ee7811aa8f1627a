"""Tables that change with the program: made at once where there are none, else brought up to date by alembic.

Each step is a script of alembic's in a folder `versions`; a table of the database says which one was the
last. A new database gets its tables from the metadata and is said to be at the head, so a start in an empty
directory, as every later one, does without alembic. A test says that both ways come to the same.

All of it is one transaction, and in PostgreSQL one server after the other, so that two that start at the same
moment do not meet, and one that is killed leaves what was there before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, func, insert, inspect, select

from windlass.errors import StoreTooNew

_LOCK = 0x57494E44  # "WIND", of advisory locks


@dataclass(frozen=True)
class Tables:
    """The tables of one part of an installation, and the scripts that bring older ones up to date."""

    owner: str
    """What the part is called."""
    metadata: MetaData
    scripts: Path
    """The folder that has `versions`."""
    head: str
    """The revision that the metadata has."""
    schema: str | None = None
    """PostgreSQL's, in which they are; None: where it finds tables without one."""


def lock(connection: Connection) -> None:
    """Have other servers wait that start at this moment, until this transaction's end."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def migrate(connection: Connection, tables: Tables) -> None:
    """Make the tables, or bring them up to date, in the caller's transaction, which has the `lock`.

    Raises StoreTooNew where a newer Windlass has changed them; nothing is changed then.
    """
    schema = tables.schema if connection.dialect.name == "postgresql" else None
    state = Table(
        f"windlass_{tables.owner}_version", MetaData(), Column("version_num", String(32), primary_key=True)
    )
    there = inspect(connection)
    if there.has_table(state.name, schema=schema):
        found = connection.execute(select(state.c.version_num)).scalar()
        if found != tables.head:
            _upgrade(connection, tables, state.name, schema, found)
    elif any(there.has_table(name, schema=schema) for name in tables.metadata.tables):
        _upgrade(connection, tables, state.name, schema, None)  # they are older than the scripts
    else:
        tables.metadata.create_all(connection)
        state.create(connection)
        connection.execute(insert(state).values(version_num=tables.head))


def _upgrade(
    connection: Connection, tables: Tables, state: str, schema: str | None, found: str | None
) -> None:
    # Here, as it is seldom needed, takes a tenth of a second, and brings PostgreSQL's dialect along.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory
    from alembic.script.revision import RevisionError

    scripts = ScriptDirectory(str(tables.scripts))
    try:
        scripts.revision_map.get_revision(found)
    except RevisionError as error:
        raise StoreTooNew(
            f"The {tables.owner}'s database has tables of version {found}; this Windlass knows up to"
            f" {tables.head}. Install the newer Windlass again. Nothing was changed."
        ) from error
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": state,
            "version_table_schema": schema,
            "fn": lambda at, _: scripts._upgrade_revs(tables.head, at),  # as alembic's own command does
        },
    )
    with Operations.context(context):
        context.run_migrations()
