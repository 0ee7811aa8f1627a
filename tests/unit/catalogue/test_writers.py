"""One Windlass alone, or several that tell each other: never both on one database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.harness import until
from tests.postgresql import PostgreSQL
from windlass.catalogue import writers
from windlass.catalogue.writers import Held, Lock
from windlass.database import sqlite_url
from windlass.errors import StartError, StoreUnavailable


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "catalogue.db")
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


def lock_of(url: str, table: str, *, shared: bool) -> Lock:
    lock = writers.lock_of(url, table, shared=shared)
    assert lock is not None
    return lock


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_who_may_write_beside_whom(url: str, first: bool, second: bool, together: bool) -> None:
    """Planted defects: a lock that is always shared; one that is never."""
    holder, other = lock_of(url, "products", shared=first), lock_of(url, "products", shared=second)
    assert holder.held() is True
    assert other.held() is together
    assert holder.held() is True
    holder.close()
    until(other.held)  # a session ends some time after it was closed
    other.close()


def test_a_second_one_is_told_what_to_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a start that takes what `held` says for true."""
    monkeypatch.setattr(writers, "PATIENCE", 0.1)
    first = Held(lock_of(url, "products", shared=False), regained=pytest.fail)
    with pytest.raises(StartError, match="the same --redis"):
        Held(lock_of(url, "products", shared=False), regained=pytest.fail)
    first.close()
    monkeypatch.setattr(writers, "PATIENCE", 60.0)
    Held(lock_of(url, "products", shared=True), regained=pytest.fail).close()


def test_tables_of_one_database_are_locked_apart(postgresql: PostgreSQL) -> None:
    url = postgresql.database()
    locks = [lock_of(url, table, shared=False) for table in ("products", "others")]
    assert [lock.held() for lock in locks] == [True, True]
    for lock in locks:
        lock.close()


def test_a_lock_lost_to_another_is_noticed_and_what_was_written_is_caught_up_with(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defects: a restart after which the lock is taken to be ours; one regained without a word."""
    monkeypatch.setattr(writers, "CHECK", 1e6)
    url = postgresql.database()
    regained: list[bool] = []
    held = Held(lock_of(url, "products", shared=False), regained=lambda: regained.append(held.current()))
    other = lock_of(url, "products", shared=False)
    postgresql.stop()
    held.check()
    assert held.current()  # nobody else can write either
    postgresql.start()
    assert other.held() is True
    held.check()
    assert not held.current()
    with pytest.raises(StoreUnavailable, match="the same --redis"):
        asyncio.run(held.begin(["a"]))
    other.close()
    assert regained == []

    def is_ours() -> bool:
        held.check()
        return held.current()

    until(is_ours)
    assert regained == [False]
    assert other.held() is False
    other.close()
    held.close()


def test_a_lock_that_was_lost_for_a_moment_is_caught_up_with(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have had it. Planted defect: a session that connects anew is taken for the one before."""
    monkeypatch.setattr(writers, "CHECK", 1e6)
    url = postgresql.database()
    for shared in (False, True):
        regained: list[bool] = []
        lock = lock_of(url, "products", shared=shared)
        held = Held(lock, regained=lambda held=regained: held.append(True))  # type: ignore[misc]
        held.check()
        assert regained == []
        postgresql.stop()
        held.check()
        postgresql.start()
        held.check()
        assert (held.current(), regained) == (True, [True])
        held.check()
        assert regained == [True]
        held.close()


def test_who_shares_a_lock_can_tell_whether_he_is_alone(url: str) -> None:
    """Planted defects: `alone` that leaves the lock with nobody, or with him alone."""
    one, two = (lock_of(url, "products", shared=True) for _ in range(2))
    alone: list[bool | None] = []
    assert one.alone(lambda: alone.append(two.held()))
    assert alone == [False]  # nobody comes meanwhile
    assert [one.taken, one.held(), two.held()] == [1, True, True]
    assert [one.alone(), two.alone()] == [False, False]
    stranger = lock_of(url, "products", shared=False)
    assert stranger.held() is False
    two.close()
    until(one.alone)
    assert stranger.held() is False
    one.close()
    until(stranger.held)
    stranger.close()


def test_what_goes_on_in_the_moment_alone_may_fail(url: str) -> None:
    """Planted defect: the lock stays his alone."""
    one, two = (lock_of(url, "products", shared=True) for _ in range(2))

    def fails() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        one.alone(fails)
    assert [two.held(), one.held()] == [True, True]
    one.close()
    two.close()
