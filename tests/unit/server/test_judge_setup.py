"""Where the judge is: in the database where that can be, and never in two places without a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.judging import Bench, FakeDispatch, once
from tests.postgresql import PostgreSQL
from windlass.clock import ManualClock
from windlass.errors import JudgeElsewhere, StartError, StoreUnavailable
from windlass.ids import Ids
from windlass.judge.service import DATABASE, Judge
from windlass.server.judge_setup import open_judge
from windlass.settings import Settings
from windlass.store import Store


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


class Kept:
    """What is asked of a store. One that is shared remembers the judge for all servers."""

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.settled: dict[str, str] = {}

    def settle(self, name: str, value: str, *, anew: bool = False) -> str:
        if anew or not self.shared:
            self.settled[name] = value
        return self.settled.setdefault(name, value)


@contextmanager
def opened(
    folder: Path,
    *,
    shared: bool = False,
    secret: bytes = b"k" * 32,
    kept: Kept | None = None,
    **settings: Any,
) -> Iterator[Judge]:
    folder.mkdir(exist_ok=True)
    store = cast(Store, kept or Kept(shared=shared))
    wanted = Settings(data_dir=folder, synchronous="off", **settings)
    judge = open_judge(wanted, store, Ids(secret), ManualClock(), FakeDispatch())
    yield judge
    judge.close()


def in_database(judge: Judge) -> bool:
    return judge._database.dialect == "postgresql"


def test_without_a_database_it_is_in_the_data_directory(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as judge:
        assert not in_database(judge)
    assert {each.name for each in (tmp_path / "data").iterdir()} >= {DATABASE, "files"}
    with opened(tmp_path / "data", database=f"sqlite:///{tmp_path}/shop.db") as judge:
        assert not in_database(judge)
    with opened(tmp_path / "data", database="nonsense") as judge:  # of which the catalogue will tell
        assert not in_database(judge)


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_in_postgresql_and_leaves_nothing_in_the_data_directory(
    url: str, tmp_path: Path, shared: bool
) -> None:
    for _ in range(2):
        with opened(tmp_path / "data", database=url, shared=shared) as judge:
            assert in_database(judge)
    assert [*(tmp_path / "data").iterdir()] == []


def test_one_that_was_never_used_is_not_missed(url: str, tmp_path: Path) -> None:
    with opened(tmp_path / "data"):
        pass
    with opened(tmp_path / "data", database=url) as judge:
        assert in_database(judge)


def test_one_that_has_problems_stays_where_it_is(url: str, tmp_path: Path) -> None:
    """Planted defect: an empty one takes its place when a database is named for the products."""
    with Bench(tmp_path / "data") as bench:
        bench.problem()
        bench.run(bench.judge.problems.delete(1))  # its submissions would stay
    for _ in range(2):
        with opened(tmp_path / "data", database=url) as judge:
            assert not in_database(judge)
        with (
            pytest.raises(JudgeElsewhere, match="problems there already"),
            opened(tmp_path / "data", database=url, shared=True),
        ):
            pass


def test_two_installations_of_one_database_have_a_judge_each(url: str, tmp_path: Path) -> None:
    """As servers of one catalogue do, each with its own queues. Planted defect: they share one, whose ids and
    jobs are not each other's."""
    for _ in range(2):
        for name, secret in (("one", b"1" * 32), ("two", b"2" * 32)):
            with opened(tmp_path / name, database=url, secret=secret) as judge:
                assert in_database(judge) == (name == "one")
    with (
        pytest.raises(JudgeElsewhere, match="share their queues"),
        opened(tmp_path / "three", database=url, secret=b"3" * 32, shared=True),
    ):
        pass


def test_nothing_is_changed_in_a_database_that_is_only_read(url: str, tmp_path: Path) -> None:
    with opened(tmp_path / "data", database=url, products_read_only=True) as judge:
        assert not in_database(judge)


def test_a_database_that_is_away_at_the_start_ends_it(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Planted defect: a judge without any problems in its place."""
    away = postgresql.database().replace("test_", "gone_")
    with pytest.raises(StartError) as told, opened(tmp_path / "data", database=away):
        pass
    assert not isinstance(told.value, JudgeElsewhere)
    assert [*(tmp_path / "data").iterdir()] == []


def test_the_first_of_several_servers_has_the_judge(tmp_path: Path) -> None:
    """Planted defects: each has one; or which judge it is is another with each start."""
    kept = Kept(shared=True)
    for _ in range(2):
        for name, on in (("one", True), ("two", False)):
            with opened(tmp_path / name, kept=kept) as judge:
                assert (judge.elsewhere is None) == on
    (tmp_path / "one").rename(tmp_path / "moved")
    with opened(tmp_path / "moved", kept=kept) as judge:
        assert judge.elsewhere is None


def test_one_in_postgresql_takes_the_place_of_others(url: str, tmp_path: Path) -> None:
    """Planted defects: it is off after a server was alone once; or one without a database has a judge beside
    it."""
    kept = Kept(shared=True)
    with opened(tmp_path / "one", kept=kept) as judge:
        assert judge.elsewhere is None
    for name in ("one", "two"):
        with opened(tmp_path / name, kept=kept, database=url) as judge:
            assert in_database(judge)
            assert judge.elsewhere is None
    with opened(tmp_path / "one", kept=kept) as judge:
        assert judge.elsewhere is not None


def test_a_store_that_does_not_tell_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted defect: a judge without the store's word."""

    def away(*_: object, **__: object) -> str:
        raise StoreUnavailable

    monkeypatch.setattr(Kept, "settle", away)
    with pytest.raises(StoreUnavailable), opened(tmp_path / "one", shared=True):
        pass


def test_one_that_is_off_sends_nothing(tmp_path: Path) -> None:
    """Planted defect: its sweeper goes on, with jobs that are those of the other's submissions."""
    with Bench(tmp_path / "one") as bench:
        bench.problem()
        bench.dispatch.before = once("submit", ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            bench.submit()
        bench.run(bench.judge.sweeper.stop())
        sent = len(bench.dispatch.calls)
        bench.judge.elsewhere = "there"

        async def start() -> None:
            bench.judge.start()
            assert bench.judge.sweeper._background._task is None

        bench.run(start())
        bench.sweep()
        assert len(bench.dispatch.calls) > sent  # there was something to send
