"""The store contract's fixtures: every backend, one after the other; and servers for the catalogue's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.contract.bench import Bench, Opener
from tests.contract.keeping import House
from tests.redis_server import RedisServer
from windlass.catalogue.service import DATABASE
from windlass.clock import ManualClock
from windlass.database import sqlite_url
from windlass.store import Store, open_store


def open_sqlite(directory: Path, clock: ManualClock) -> Store:
    # What a power cut leaves is another test's business; this one has thousands of commits.
    return open_store(directory, clock=clock, synchronous="off")


BACKENDS: dict[str, Opener] = {"sqlite": open_sqlite}


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(params=sorted(BACKENDS))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(BACKENDS[request.param], tmp_path)
    yield made
    made.close()


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that any database is given, heard at the driver."""
    heard: list[str] = []

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        heard.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    yield heard
    event.remove(Engine, "before_cursor_execute", hear)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[House]:
    """A catalogue in SQLite, its filter in a file beside it."""
    made = House(sqlite_url(tmp_path / DATABASE), tmp_path, None)
    yield made
    made.close()
