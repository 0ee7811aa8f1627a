"""A database of each kind, and another program that writes into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.postgresql import PostgreSQL
from windlass.database import sqlite_url


@pytest.fixture(scope="session")
def _one_database(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@pytest.fixture
def postgresql_url(_one_database: str) -> str:
    """An empty database: the same one, swept, which takes a tenth of the time of a new one."""
    program = Program(_one_database)
    schemas = program("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$'")
    for (schema,) in schemas:
        program(f'DROP SCHEMA "{schema}" CASCADE')
    program("CREATE SCHEMA public")
    return _one_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "shop.db")
    swept: str = request.getfixturevalue("postgresql_url")
    return swept


class Program:
    """Somebody else's program: SQL as it stands, each a transaction of its own."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)

    def __call__(self, sql: str) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.exec_driver_sql(sql)
            return [tuple(row) for row in result] if result.returns_rows else []


@pytest.fixture
def program(url: str) -> Program:
    return Program(url)
