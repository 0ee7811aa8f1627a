"""The judge's tests run on a database of each kind."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from tests.postgresql import PostgreSQL
from windlass.judge.tables import SCHEMA, metadata


@pytest.fixture(scope="session")
def _one_database(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@pytest.fixture
def postgresql_url(_one_database: str) -> str:
    """A PostgreSQL without a judge's rows: the same one, swept, which takes a tenth of a new one's time."""
    engine = create_engine(_one_database.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.begin() as connection:
        if inspect(connection).has_schema(SCHEMA):
            swept = ", ".join(f"{SCHEMA}.{name}" for name in metadata.tables if name != "judge_schema")
            connection.execute(text(f"TRUNCATE {swept} RESTART IDENTITY"))
    return _one_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where the judge is: PostgreSQL, or (None) SQLite in its directory."""
    if request.param == "sqlite":
        return None
    swept: str = request.getfixturevalue("postgresql_url")
    return swept
