"""One Windlass alone, or several that tell each other: never both on one database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import until
from tests.postgresql import PostgreSQL
from windlass.catalogue import writers
from windlass.catalogue.writers import Sole, lock_of, take
from windlass.database import sqlite_url
from windlass.errors import StartError


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "catalogue.db")
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_who_may_write_beside_whom(
    url: str, first: bool, second: bool, together: bool, tmp_path: Path
) -> None:
    """Planted defects: a lock that is always shared, or never; a second close that closes another file."""
    holder, other = lock_of(url, "products", shared=first), lock_of(url, "products", shared=second)
    assert holder.held() is True
    assert other.held() is together
    assert holder.held() is True
    holder.close()
    with (tmp_path / "somebody else's").open("w") as file:
        holder.close()
        assert file.write("It is open.") == file.seek(0, os.SEEK_END)
    until(other.held, 60, "the lock")  # its session ends some time later
    other.close()


def test_a_second_one_is_told_what_to_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a start that takes what `held` says for true."""
    monkeypatch.setattr(writers, "PATIENCE", 0.0)
    first = Sole(lock_of(url, "products", shared=False), regained=pytest.fail)
    with pytest.raises(StartError, match="the same --redis"):
        Sole(lock_of(url, "products", shared=False), regained=pytest.fail)
    first.close()
    monkeypatch.setattr(writers, "PATIENCE", 60.0)
    Sole(lock_of(url, "products", shared=True), regained=pytest.fail).close()


def test_one_that_is_just_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a start that looks once."""
    monkeypatch.setattr(writers, "PATIENCE", 60.0)

    class Ending:
        looks = 0

        def held(self) -> bool:
            self.looks += 1
            return self.looks > 3

        def close(self) -> None:
            raise AssertionError

    lock = Ending()
    assert take(lock) is lock
    assert lock.looks == 4


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
    url, regained = postgresql.database(), []
    sole = Sole(lock_of(url, "products", shared=False), regained=lambda: regained.append(sole.current()))
    other = lock_of(url, "products", shared=False)
    postgresql.stop()
    sole.check()
    assert sole.current()  # nobody else can write either
    postgresql.start()
    assert other.held() is True
    sole.check()
    assert not sole.current()
    other.close()
    assert regained == []

    def alone() -> bool:
        sole.check()
        return sole.current()

    until(alone, 60, "the lock")
    assert regained == [False]
    assert other.held() is False
    sole.close()
