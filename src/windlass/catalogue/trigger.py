"""The trigger that keeps the record of keys, as SQL: to be run by us, or printed for the user to run.

Whoever writes the table, with whatever program: the keys that he writes are in `windlass_keys` by the same
commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from windlass.errors import StartError

DIALECTS = ("postgresql", "sqlite")
TABLE = "windlass_keys"
_TRIGGER = "windlass_record"


@dataclass(frozen=True, slots=True)
class Watched:
    """A table and the column of its keys; `schema` is PostgreSQL's, None where there are none."""

    table: str
    key: str
    schema: str | None = None

    @property
    def name(self) -> str:
        """The table in SQL, quoted."""
        return _qualified(self.schema, self.table)

    @property
    def record(self) -> str:
        """The record's table in SQL: beside the one that it is of."""
        return _qualified(self.schema, TABLE)


def located(connection: Connection, watched: Watched) -> Watched:
    """With the schema in which PostgreSQL finds the table, as the trigger's path may be another."""
    if connection.dialect.name != "postgresql" or watched.schema is not None:
        return watched
    schema = text(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = to_regclass(:name)"
    )
    return replace(watched, schema=connection.execute(schema, {"name": watched.name}).scalar_one())


def statements(dialect: str, watched: Watched) -> list[str]:
    """What makes the record anew, to be run in one transaction. Raises StartError for other databases.

    It forgets what was recorded before: nobody knows what was written while there was no trigger.
    """
    if dialect not in DIALECTS:
        raise StartError(f"There is no trigger for {dialect}: only for {' and '.join(DIALECTS)}.")
    made = _postgresql(watched) if dialect == "postgresql" else _sqlite(watched)
    return [
        *made,
        f"DELETE FROM {watched.record}",
        f"INSERT INTO {watched.record} (key) VALUES (NULL)",
    ]


def script(dialect: str, watched: Watched) -> str:
    """The same for people: one transaction, to be run by the owner of the table. Raises StartError."""
    body = "".join(f"{statement};\n" for statement in statements(dialect, watched))
    rights = ""
    if dialect == "postgresql":
        rights = (
            "-- For the user that Windlass is, here windlass; DELETE and UPDATE let it take old rows away:\n"
            f"-- GRANT SELECT, DELETE, UPDATE ON {watched.record} TO windlass;\n"
        )
    return f"BEGIN;\n{body}COMMIT;\n{rights}"


def install(connection: Connection, watched: Watched) -> str | None:
    """Have the record kept from now on, unless it is already. Why not, where it cannot be."""
    needed = statements(connection.dialect.name, watched)
    if installed(connection, watched):
        here = " WHERE cluster = (SELECT system_identifier FROM pg_control_system())"
        where = here if connection.dialect.name == "postgresql" else ""
        row = connection.execute(text(plain(f"SELECT 1 FROM {watched.record}{where} LIMIT 1"))).first()
        if row is not None:
            return None
        # A record that came with a dump is of another cluster; there has to be a row to begin at.
        needed = needed[-1:]
    try:
        with connection.begin_nested():
            for statement in needed:
                connection.execute(text(plain(statement)))
    except DBAPIError as error:
        return str(error.orig).splitlines()[0]
    return None


def installed(connection: Connection, watched: Watched) -> bool:
    """Whether exactly this trigger is there and at work."""
    if connection.dialect.name == "postgresql":
        found = connection.execute(
            text(
                "SELECT p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
                " WHERE t.tgrelid = to_regclass(:table) AND t.tgname IN (:row, :all)"
                " AND t.tgenabled IN ('O', 'A')"
            ),
            {"table": watched.name, "row": _TRIGGER, "all": f"{_TRIGGER}_all"},
        )
        return [*found.scalars()] == [_body(watched)] * 2
    found = connection.execute(
        text(
            "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name LIKE :names AND tbl_name = :table"
        ),
        {"names": f"{_TRIGGER}_%", "table": watched.table},
    )
    return {_words(sql) for sql in found.scalars()} == {_words(sql) for sql in _sqlite_triggers(watched)}


def plain(sql: str) -> str:
    """SQL for `text`, in which a colon is a colon and no parameter."""
    return sql.replace(":", "\\:")


def quoted(name: str) -> str:
    """A name in SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _postgresql(watched: Watched) -> list[str]:
    function = _qualified(watched.schema, f"{_TRIGGER}_{watched.table}"[:50])
    return [
        f"CREATE TABLE IF NOT EXISTS {watched.record} (\n"
        "  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
        "  nonce uuid NOT NULL DEFAULT gen_random_uuid(),\n"
        "  key text,\n"
        # Who wrote it, what he could see, and in which cluster: see record.py.
        "  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),\n"
        "  seen pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),\n"
        "  cluster bigint NOT NULL DEFAULT (pg_control_system()).system_identifier\n"
        ")",
        f"CREATE INDEX IF NOT EXISTS {TABLE}_xid ON {watched.record} (xid, seq)",
        # By the rights of whoever installs it, so that those who write the table need none on the record.
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
        f"SET search_path = pg_catalog, pg_temp AS $windlass${_body(watched)}$windlass$",
        f"DROP TRIGGER IF EXISTS {_TRIGGER} ON {watched.name}",
        f"CREATE TRIGGER {_TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {watched.name}\n"
        f"FOR EACH ROW EXECUTE FUNCTION {function}()",
        f"DROP TRIGGER IF EXISTS {_TRIGGER}_all ON {watched.name}",
        f"CREATE TRIGGER {_TRIGGER}_all AFTER TRUNCATE ON {watched.name}\n"
        f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
        # Also for what arrives by logical replication.
        f"ALTER TABLE {watched.name} ENABLE ALWAYS TRIGGER {_TRIGGER}",
        f"ALTER TABLE {watched.name} ENABLE ALWAYS TRIGGER {_TRIGGER}_all",
    ]


def _body(watched: Watched) -> str:
    """The function's source. AFTER a row it sees what other triggers have made of the key."""
    old, new = (f"CAST({row}.{quoted(watched.key)} AS text)" for row in ("OLD", "NEW"))
    return f"""
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO {watched.record} (key) VALUES (NULL);
    RETURN NULL;
  END IF;
  IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND {old} COLLATE "C" IS DISTINCT FROM {new} COLLATE "C") THEN
    INSERT INTO {watched.record} (key) SELECT {old} WHERE {old} IS NOT NULL;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO {watched.record} (key) SELECT {new} WHERE {new} IS NOT NULL;
  END IF;
  RETURN NULL;
END
"""


def _sqlite(watched: Watched) -> list[str]:
    names = [_name(verb, watched) for verb in ("insert", "update", "delete")]
    return [
        f"CREATE TABLE IF NOT EXISTS {watched.record} (\n"
        "  seq INTEGER PRIMARY KEY AUTOINCREMENT,\n"
        "  nonce TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),\n"
        "  key TEXT\n"
        ")",
        *(f"DROP TRIGGER IF EXISTS {name}" for name in names),
        *_sqlite_triggers(watched),
    ]


def _sqlite_triggers(watched: Watched) -> list[str]:
    old, new = (f"CAST({row}.{quoted(watched.key)} AS TEXT)" for row in ("OLD", "NEW"))
    insert = f"INSERT INTO {watched.record} (key)"
    took = f"  {insert} SELECT {old} WHERE {old} IS NOT NULL"
    put = f"  {insert} SELECT {new} WHERE {new} IS NOT NULL;\n"
    bodies = {
        "insert": put,
        "update": f"{took} AND {old} COLLATE BINARY IS NOT {new};\n{put}",
        "delete": f"{took};\n",
    }
    return [
        f"CREATE TRIGGER {_name(verb, watched)} AFTER {verb.upper()} ON {watched.name}\nBEGIN\n{body}END"
        for verb, body in bodies.items()
    ]


def _name(verb: str, watched: Watched) -> str:
    return quoted(f"{_TRIGGER}_{verb}_{watched.table}")


def _qualified(schema: str | None, name: str) -> str:
    return quoted(name) if schema is None else f"{quoted(schema)}.{quoted(name)}"


def _words(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()
