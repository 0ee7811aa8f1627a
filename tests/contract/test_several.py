"""Servers that share a Redis, in one process and on a fake one: how they are put together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from fakeredis import FakeRedis, FakeServer

from tests.contract.http.served import TestClient
from tests.harness import until
from windlass.catalogue.product import Product
from windlass.catalogue.service import Catalogue
from windlass.database import sqlite_url
from windlass.errors import StartError, StoreUnavailable
from windlass.guard.guard import Answer
from windlass.server.app import Windlass
from windlass.settings import Settings

run = asyncio.run
_numbers = count()

Open = Callable[..., Catalogue]


@pytest.fixture
def fake() -> str:
    """The URL of a Redis that is this test's alone."""
    return f"fakeredis://several-{next(_numbers)}"


@pytest.fixture
def opened(tmp_path: Path, fake: str) -> Iterator[Open]:
    """Opens a server's catalogue of one SQLite; each has a secret and a directory of its own."""
    with ExitStack() as stack:

        def open_one(name: str, **options: Any) -> Catalogue:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            options = {"url": sqlite_url(tmp_path / "shop.db"), "redis_url": fake} | options
            catalogue = Catalogue.open(
                folder, name.encode() * 16, expected_items=1000, interval=1e6, synchronous="off", **options
            )
            stack.callback(catalogue.close)
            return catalogue

        yield open_one


def some(product_id: str, price: int = 1) -> Product:
    return Product(product_id, "name", Decimal(price))


def trusted(*catalogues: Catalogue) -> None:
    for each in catalogues:
        until(lambda each=each: each.bypassed() is None, what=f"trust: {each.bypassed()}")  # type: ignore[misc]


# --- the catalogue --------------------------------------------------------------------------------


def test_what_one_writes_the_other_finds(opened: Open) -> None:
    """Planted defects: the guard is told of no peers; filters under two secrets."""
    one, other = opened("one"), opened("other")
    trusted(one, other)
    assert one.stats().state_key == other.stats().state_key == "bloom:filter"

    async def scenario() -> None:
        for catalogue in (one, other):
            assert (await catalogue.get("a")).value is None
        await one.insert(some("a"))
        assert (await other.get("a")).value == some("a")
        await other.put([some("a", 2)])
        assert (await one.get("a")).value == some("a", 2)
        assert await one.delete("a")
        assert (await other.get("a")).value is None

    run(scenario())
    assert one.keeper._builder._secret == other.keeper._builder._secret


def test_one_that_nobody_hears_of_is_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: no lock where there is a Redis, or where there is none."""
    monkeypatch.setattr("windlass.catalogue.writers.PATIENCE", 0.1)
    one = opened("one")
    with pytest.raises(StartError, match="the same --redis"):
        opened("alone", redis_url=None)
    one.close()
    alone = opened("alone", redis_url=None)
    with pytest.raises(StartError, match="the same --redis"):
        opened("one")
    alone.close()
    opened("one")


@pytest.mark.parametrize(
    "different", [{"redis_url": "fakeredis://elsewhere"}, {"state_key": "bloom:state:x"}]
)
def test_one_that_uses_another_journal_trusts_nothing_and_writes_nothing(
    opened: Open, different: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: every epoch is entered."""
    monkeypatch.setattr("windlass.catalogue.service._PATIENCE", 0.0)
    one = opened("one")
    run(one.insert(some("a")))
    stranger = opened("stranger", **different)
    until(lambda: "another Redis, or another namespace" in (stranger.bypassed() or ""))
    assert run(stranger.get("b")) == Answer(None, "database")
    monkeypatch.setattr("windlass.guard.views.LIMIT", 0.2)
    with pytest.raises(StoreUnavailable):
        run(stranger.insert(some("b")))
    monkeypatch.setattr("windlass.guard.views.LIMIT", 60.0)
    run(one.insert(some("b")))
    assert run(stranger.get("b")).value == some("b")
    trusted(one)
    one.close()
    trusted(stranger)  # it is alone now
    run(stranger.insert(some("c")))


@pytest.fixture
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one server alone: a slow machine keeps its lease, and a start waits until there is one."""
    monkeypatch.setattr("windlass.guard.views.LEASE", 600.0)
    monkeypatch.setattr("windlass.catalogue.service._PATIENCE", 60.0)


@pytest.mark.usefixtures("long_leases")
def test_whoever_is_alone_with_an_empty_redis_trusts_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a start that leaves the epoch of before; `alone` that is not asked."""
    servers: dict[str, FakeServer] = defaultdict(FakeServer)
    monkeypatch.setattr(redis, "from_url", lambda url: FakeRedis(server=servers[url]))
    kept = opened("one", redis_url="redis://shop")
    run(kept.insert(some("a")))
    kept.close()
    again = opened("one", redis_url="redis://empty")
    assert again.bypassed() is None
    assert run(again.get("a")).value == some("a")
    assert run(again.get("b")) == Answer(None, "bloom_filter")


def test_what_another_wrote_while_the_lock_was_lost_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: the filter is brought up to date, and what is remembered stays."""
    monkeypatch.setattr("windlass.catalogue.writers.CHECK", 1e6)
    one = opened("one", redis_url=None)
    run(one.insert(some("a")))
    assert run(one.get("a")).value == some("a")
    one.keeper.filter.add("b")  # so it is asked for, and remembered as absent
    assert run(one.get("b")) == Answer(None, "database")
    assert one._held is not None
    held = one._held

    def lock(is_ours: bool) -> None:
        monkeypatch.setattr(held._lock, "held", lambda: is_ours)
        held.check()

    lock(False)
    assert "does not hear" in (one.bypassed() or "")
    with pytest.raises(StoreUnavailable, match="the same --redis"):
        run(one.insert(some("c")))
    run(one.products.put([some("a", 2), some("b")]))  # as another would
    lock(True)
    assert one.bypassed() is None
    assert run(one.get("a")).value == some("a", 2)
    assert run(one.get("b")).value == some("b")


@pytest.mark.usefixtures("long_leases")
def test_those_who_share_join_anew_where_the_lock_was_lost(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of PostgreSQL, in which one without a Redis may have written.

    Planted defect: a shared lock that nobody looks after.
    """
    monkeypatch.setattr("windlass.catalogue.writers.CHECK", 0.01)
    one = opened("one")
    assert run(one.get("b")) == Answer(None, "bloom_filter")
    assert one._held is not None
    run(one.products.put([some("b")]))
    one._held._lock.taken += 1
    until(lambda: "b" in one.keeper.filter)
    trusted(one)
    assert run(one.get("b")).value == some("b")


def test_a_redis_that_is_away_is_no_reason_not_to_start(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: whatever is asked of Redis at the start ends it."""
    monkeypatch.setattr("windlass.catalogue.service._PATIENCE", 0.0)
    monkeypatch.setattr("windlass.guard.views.LIMIT", 0.2)
    away = opened("one", redis_url="redis://127.0.0.1:1/0")
    until(lambda: "Redis does not answer" in (away.bypassed() or ""))
    assert run(away.get("a")) == Answer(None, "database")
    with pytest.raises(StoreUnavailable):
        run(away.insert(some("a")))


# --- the application ------------------------------------------------------------------------------


@pytest.fixture(params=["fakeredis", "from_url", "one client"])
def url(request: pytest.FixtureRequest, fake: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """REDIS_URL; the client comes from `redis.from_url`, whoever has put another one there."""
    if request.param == "fakeredis":
        return fake
    server = FakeServer()
    one = FakeRedis(server=server)

    def from_url(url: str) -> FakeRedis:
        assert url == "redis://shop:6379/0"
        return one if request.param == "one client" else FakeRedis(server=server)

    monkeypatch.setattr(redis, "from_url", from_url)
    return "redis://shop:6379/0"


def application(folder: Path, url: str, **settings: Any) -> Windlass:
    return Windlass(Settings(data_dir=folder, redis=url, bloom_expected_items=1000, **settings))


def ask(client: TestClient, product_id: str) -> tuple[int, str]:
    answer = client.get(f"/products/{product_id}")
    return answer.status_code, answer.json()["source"]


@pytest.mark.usefixtures("long_leases")
@pytest.mark.parametrize("entered", [False, True], ids=["not entered", "entered"])
def test_the_first_look_up_is_answered_by_the_filter(tmp_path: Path, url: str, entered: bool) -> None:
    """Planted defects: a start that does not wait; an epoch that is trusted only later."""
    for life in range(2):
        app = application(tmp_path, url)
        with ExitStack() as stack:
            client = TestClient(app, base_url="http://localhost")
            if entered:
                stack.enter_context(client)
            assert ask(client, "absent") == (404, "bloom_filter")
            assert client.get("/health").json()["filter"] == "ok"
            for number in range(life):
                assert ask(client, f"p-{number}") == (200, "database")
            product = {"product_id": f"p-{life}", "name": "name", "price": 1}
            assert client.post("/products", json=product).status_code == 201
            assert ask(client, f"p-{life}") == (200, "database")
        if not entered:
            run(app.close())


def test_two_namespaces_of_one_redis_know_nothing_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: one journal, or one filter, for all namespaces."""
    server = FakeServer()
    monkeypatch.setattr(redis, "from_url", lambda _: FakeRedis(server=server))
    names = ["fish", "meat", None]
    with ExitStack() as stack:
        clients = []
        for name in names:
            app = application(tmp_path / str(name), "redis://shop:6379/0", bloom_state_namespace=name)
            clients.append(stack.enter_context(TestClient(app, base_url="http://localhost")))
        for name, client in zip(names, clients, strict=True):
            key = client.get("/bloom/stats").json()["state_key"]
            assert key == (f"bloom:state:{name}" if name else "bloom:filter")
            product = {"product_id": f"a {name}", "name": "name", "price": 1}
            assert client.post("/products", json=product).status_code == 201
            assert client.get("/bloom/stats").json()["items"] == 1
    with ExitStack() as stack:  # each comes back with its own
        for name in names:
            app = application(tmp_path / str(name), "redis://shop:6379/0", bloom_state_namespace=name)
            client = stack.enter_context(TestClient(app, base_url="http://localhost"))
            for other in names:
                assert ask(client, f"a {other}")[0] == (200 if other == name else 404)
    keys = {key.decode() for key in FakeRedis(server=server).scan_iter()}
    states = {"bloom:filter", "bloom:state:fish", "bloom:state:meat"}
    assert keys == states | {f"{{{state}}}:{part}" for state in states for part in ("views", "log")}


def test_health_tells_why_the_filter_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.catalogue.service._PATIENCE", 0.0)
    app = application(tmp_path, "redis://127.0.0.1:1/0")
    with TestClient(app, base_url="http://localhost") as client:
        until(lambda: "Redis does not answer" in client.get("/health").json()["filter"])
        answer = client.get("/health")
        assert answer.status_code == 200
        assert answer.json()["status"] == "healthy"
        assert answer.json()["filter"].startswith("bypassed, so the database is asked: ")
