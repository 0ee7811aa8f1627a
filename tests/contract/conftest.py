"""The store contract's fixtures: every backend, one after the other; and servers for the catalogue's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bench import Bench, Opener
from tests.postgresql import PostgreSQL
from tests.redis_server import RedisServer
from windlass.clock import ManualClock
from windlass.store import Store, open_store


def open_sqlite(directory: Path, clock: ManualClock) -> Store:
    # What a power cut leaves is another test's business; this one has thousands of commits.
    return open_store(directory, clock=clock, synchronous="off")


BACKENDS: dict[str, Opener] = {"sqlite": open_sqlite}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    yield server
    server.close()


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
