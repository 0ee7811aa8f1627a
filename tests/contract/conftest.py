"""The store contract's fixtures: every backend, one after the other; and servers for the catalogue's."""

from __future__ import annotations

import atexit
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.contract.bench import Bench, Ground
from tests.contract.keeping import House
from tests.contract.servers import OneSQLite, Several
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer, shared_redis, shared_valkey
from windlass.catalogue.service import DATABASE
from windlass.clock import ManualClock
from windlass.database import sqlite_url
from windlass.store import Store, open_store
from windlass.store.redis.address import parse
from windlass.store.redis.call import REGISTRY
from windlass.store.redis.store import RedisStore


class OnSQLite:
    """A store in a directory. What a power cut leaves is another test's business."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lives = 0

    @property
    def directory(self) -> Path:
        return self._home / str(self._lives)

    def open(self, clock: ManualClock) -> Store:
        return open_store(self.directory, clock=clock, synchronous="off")

    def crash(self, store: Store) -> None:
        """Keep what a kill at this moment would leave on the disk."""
        former = self.directory
        self._lives += 1
        shutil.copytree(former, self.directory)
        store.close()
        shutil.rmtree(former)


class OnRedis:
    """A store on a Redis, or on a Cluster, that is emptied for it."""

    def __init__(self, server: RedisServer | RedisCluster) -> None:
        server.empty()
        self.directory = (server.nodes[0] if isinstance(server, RedisCluster) else server).folder
        self._url = server.url

    def open(self, clock: ManualClock) -> Store:
        return open_store(self.directory, self._url, clock=clock)

    def crash(self, store: Store) -> None:
        """Redis lives on; what this server had in memory is gone."""
        store.close()


BACKENDS = (
    "sqlite",
    "redis",
    *(pytest.param(more, marks=pytest.mark.storm) for more in ("cluster", "valkey")),
)


@functools.cache
def shared_cluster() -> RedisCluster:
    """Three masters for all tests of this process."""
    cluster = RedisCluster()
    atexit.register(cluster.close)
    return cluster


def ground(backend: str, home: Path) -> Ground:
    """Where a backend's store lies."""
    if backend == "sqlite":
        return OnSQLite(home)
    if backend == "cluster":
        return OnRedis(shared_cluster())
    return OnRedis(shared_valkey() if backend == "valkey" else shared_redis())


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(ground(request.param, tmp_path))
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


class OneRedis(Several):
    """One Redis, emptied for it."""

    def __init__(self, home: Path, clock: ManualClock) -> None:
        super().__init__(home, clock)
        shared_redis().empty()
        self._stores: list[RedisStore] = []

    def open(self) -> Store:
        for store in self._stores[:1]:  # it is there, though in a time that stands still nothing shows it
            store._administration._now("beat", REGISTRY)
        self._stores.append(RedisStore(parse(shared_redis().url), clock=self.clock))
        return self._stores[-1]

    def attend_to_nothing(self) -> None:
        """How long a server hears of a queue is counted by its loop: not known here."""

    def listens(self, queue: str) -> bool:
        link = self._stores[0]._link
        number = link.memory.number(queue)
        ((_, listeners),) = shared_redis().do("PUBSUB SHARDNUMSUB", link.channel_of(number))
        return bool(listeners and shared_redis().do("HEXISTS", link.key_of(number)[0], "attended"))

    def close(self) -> None:
        for store in self._stores:
            store.close()


SHARED: dict[str, Callable[[Path, ManualClock], Several]] = {"one-sqlite": OneSQLite, "one-redis": OneRedis}
"""Stores that several servers have open at once."""


@pytest.fixture(params=["one-sqlite", pytest.param("one-redis", marks=pytest.mark.storm)])
def several(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Several]:
    made = SHARED[request.param](tmp_path / "shared", ManualClock())
    yield made
    made.close()
