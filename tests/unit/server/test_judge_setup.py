"""Where the judge is: in the database where that can be, and never in two places without a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.judging import Bench, FakeDispatch
from tests.postgresql import PostgreSQL
from windlass.clock import ManualClock
from windlass.errors import JudgeElsewhere, StartError
from windlass.ids import Ids
from windlass.judge.service import DATABASE, Judge
from windlass.server.judge_setup import open_judge
from windlass.settings import Settings
from windlass.store import Store


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@contextmanager
def opened(
    folder: Path, *, shared: bool = False, secret: bytes = b"k" * 32, **settings: Any
) -> Iterator[Judge]:
    folder.mkdir(exist_ok=True)
    store = cast(Store, SimpleNamespace(shared=shared))
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
