"""Tables of every age become those of today, with all that is in them; those of tomorrow are left alone."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, select, text
from sqlalchemy.pool import NullPool

from tests.postgresql import PostgreSQL
from windlass import migrations
from windlass.catalogue import tables as catalogue
from windlass.database import Database, sqlite_url
from windlass.errors import JudgeElsewhere, StartError, StoreTooNew
from windlass.judge import tables as judge
from windlass.migrations import Tables

PARTS = {"judge": judge.TABLES, "catalogue": catalogue.TABLES}
BEFORE = Path(__file__).parent / "before_migrations"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "x.db")
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@contextlib.contextmanager
def looking(url: str) -> Iterator[Connection]:
    """A transaction without anything of ours, which finds the judge's tables as if they were in no schema."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL search_path = {judge.SCHEMA}, public")
        yield connection


def open_and_close(url: str, part: str) -> None:
    if part == "judge":
        Database(url, lambda c: judge.migrate(c, "mark"), owner="judge", schema=judge.SCHEMA).close()
    else:
        Database(url, catalogue.migrate, owner="catalogue").close()


def shape(url: str, tables: Tables) -> dict[str, Any]:
    """All that can be seen of the tables."""
    with looking(url) as connection:
        seen = inspect(connection)
        return {
            name: (
                [
                    (each["name"], str(each["type"]), each["nullable"], each["default"])
                    for each in seen.get_columns(name)
                ],
                seen.get_pk_constraint(name)["constrained_columns"],
                sorted((each["name"], *each["column_names"]) for each in seen.get_indexes(name)),
                sorted((each["name"], *each["column_names"]) for each in seen.get_unique_constraints(name)),
                "AUTOINCREMENT" in str(_sql(connection, name)),
            )
            for name in tables.metadata.tables
        }


def _sql(connection: Connection, name: str) -> object:
    if connection.dialect.name != "sqlite":
        return ""
    return connection.execute(
        text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": name}
    ).scalar()


def differences(url: str, tables: Tables) -> list[Any]:
    """What alembic would have to change to get to the metadata."""

    def wanted(name: str | None, kind: str, _: Any) -> bool:
        return kind != "table" or name in tables.metadata.tables

    with looking(url) as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": wanted}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))


def empty_tables(url: str, tables: Tables) -> None:
    """A database in which the scripts have done everything, from the first on."""
    schema = None
    with looking(url) as connection:
        if connection.dialect.name == "postgresql" and tables.schema:
            connection.exec_driver_sql(f"CREATE SCHEMA {tables.schema}")
            schema = tables.schema
        migrations._upgrade(connection, tables, f"windlass_{tables.owner}_version", schema, None)


@pytest.mark.parametrize("part", PARTS)
def test_new_tables_migrated_ones_and_the_metadata_are_the_same(
    url: str, part: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Planted defects: a column in the metadata that no script adds; an index that only a script makes; a
    head that is not the last script."""
    open_and_close(url, part)
    assert differences(url, PARTS[part]) == []
    other = (
        sqlite_url(tmp_path / "other.db")
        if url.startswith("sqlite")
        else request.getfixturevalue("postgresql").database()
    )
    empty_tables(other, PARTS[part])
    assert differences(other, PARTS[part]) == []
    assert shape(other, PARTS[part]) == shape(url, PARTS[part])
    versions = []
    for each in (url, other):
        with looking(each) as connection:
            versions.append(connection.execute(text(f"SELECT * FROM windlass_{part}_version")).all())
    assert versions == [[(PARTS[part].head,)]] * 2


def before(url: str, name: str, *more: str) -> None:
    """A database as it was made before there were migrations, with `more` in it."""
    with looking(url) as connection:
        for statement in [*(BEFORE / f"{name}.sql").read_text().split(";\n"), *more]:
            if statement.strip():
                connection.exec_driver_sql(statement)


def test_a_judge_from_before_is_taken_over_without_loss(tmp_path: Path) -> None:
    """Planted defects: tables that are made anew; one that is said to be at the head without being so."""
    url = sqlite_url(tmp_path / "judge.db")
    before(
        url,
        "judge",
        "INSERT INTO judge_schema VALUES (1)",
        "INSERT INTO problems VALUES (1, 2, 3)",
        "INSERT INTO outbox VALUES (7, 5, 1, x'00', NULL, 0)",
        "DELETE FROM outbox",
    )
    for _ in range(2):
        open_and_close(url, "judge")
    assert differences(url, judge.TABLES) == []
    open_and_close(new := sqlite_url(tmp_path / "new.db"), "judge")
    assert shape(url, judge.TABLES) == shape(new, judge.TABLES)
    with looking(url) as connection:
        assert connection.execute(select(judge.problems)).all() == [(1, 2, 3)]
        values = {"submission": 1, "generation": 1, "spec": b"", "superseded": False}
        assert connection.execute(judge.outbox.insert().values(values)).inserted_primary_key == (8,)
        for each in (url, new):  # by which a Windlass from before refuses it
            with looking(each) as other:
                assert other.execute(text("SELECT version FROM judge_schema")).all() == [(2,)]


@pytest.mark.parametrize("lacks", ["", "windlass_loaded"])
def test_a_catalogue_from_before_is_taken_over_without_loss(url: str, lacks: str) -> None:
    """Also one whose products somebody else had made. Planted defect: a script that makes what is there."""
    more = [f"DROP TABLE {lacks}"] if lacks else []
    name = f"catalogue_{url.partition(':')[0]}"
    before(url, name, "INSERT INTO products VALUES ('rope', 'Rope', '19.9')", *more)
    for _ in range(2):
        open_and_close(url, "catalogue")
    assert differences(url, catalogue.TABLES) == []
    with looking(url) as connection:
        assert connection.execute(select(catalogue.products)).all() == [("rope", "Rope", Decimal("19.9"))]


@pytest.mark.parametrize("part", PARTS)
def test_what_a_newer_windlass_has_changed_is_refused_unchanged(url: str, part: str) -> None:
    """Planted defect: opening it all the same; or changing what can be changed before it is noticed."""
    open_and_close(url, part)
    with looking(url) as connection:
        connection.exec_driver_sql(f"UPDATE windlass_{part}_version SET version_num = '9999'")
    seen = shape(url, PARTS[part])
    for _ in range(2):
        with pytest.raises(StoreTooNew, match="version 9999"):
            open_and_close(url, part)
    assert shape(url, PARTS[part]) == seen


@pytest.mark.parametrize("old", [False, True])
def test_servers_that_start_at_the_same_moment_do_not_meet(postgresql: PostgreSQL, old: bool) -> None:
    """Planted defect: no lock, so that two make the same table, and one of them ends."""
    url = postgresql.database()
    if old:
        before(url, "catalogue_postgresql")
    ready, errors = threading.Barrier(4), list[BaseException]()

    def start() -> None:
        ready.wait(60)
        try:
            for part in PARTS:
                open_and_close(url, part)
        except BaseException as error:  # noqa: BLE001 - it is for the test
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert differences(url, judge.TABLES) == differences(url, catalogue.TABLES) == []


def test_a_judge_of_another_installation_is_refused(postgresql: PostgreSQL) -> None:
    """And is told how to have it where the other's queues are lost. Planted defects: two that share it, whose
    ids and jobs are not each other's; a way that leads nowhere."""
    url = postgresql.database()

    def open_as_other() -> None:
        Database(url, lambda c: judge.migrate(c, "other"), owner="judge", schema=judge.SCHEMA).close()

    open_and_close(url, "judge")
    with pytest.raises(JudgeElsewhere, match="another installation") as told:
        open_as_other()
    open_and_close(url, "judge")
    found = re.search(r"run (DELETE FROM .+?);", str(told.value))
    assert found is not None
    with looking(url) as connection:
        connection.exec_driver_sql(found[1])
    open_as_other()
    with pytest.raises(JudgeElsewhere):
        open_and_close(url, "judge")


def test_who_may_make_no_tables_is_told_what_to_do(postgresql: PostgreSQL) -> None:
    """And needs no right to make a schema that is there. Planted defect: CREATE SCHEMA IF NOT EXISTS, which
    asks for the right first."""
    url = postgresql.database()
    with looking(url) as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS guest")
        connection.exec_driver_sql("CREATE ROLE guest LOGIN")
    guest = url.replace("windlass@", "guest@")
    with pytest.raises(JudgeElsewhere, match="CREATE SCHEMA windlass_judge AUTHORIZATION"):
        open_and_close(guest, "judge")
    with looking(url) as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {judge.SCHEMA} AUTHORIZATION guest")
    for _ in range(2):
        open_and_close(guest, "judge")
    with looking(url) as connection:
        connection.exec_driver_sql("DROP OWNED BY guest")


def test_a_database_that_is_read_only_is_told_as_that(postgresql: PostgreSQL) -> None:
    """A replica, say. Planted defect: its owner is sent for."""
    url = postgresql.database()
    with looking(url) as connection:
        name = connection.engine.url.database
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(JudgeElsewhere, match="It is read-only: name the server"):
        open_and_close(url, "judge")


def test_a_database_that_is_away_is_not_taken_for_one_without_rights(postgresql: PostgreSQL) -> None:
    with pytest.raises(StartError) as told:
        open_and_close(postgresql.database().replace("test_", "gone_"), "judge")
    assert not isinstance(told.value, JudgeElsewhere)
