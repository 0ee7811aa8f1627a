"""The products in SQLite and in PostgreSQL: the same behind either."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql import PostgreSQL
from windlass.catalogue.product import Product, product
from windlass.catalogue.products import Products
from windlass.catalogue.service import DATABASE, Catalogue
from windlass.database import sqlite_url
from windlass.errors import ProductExists, StartError, StoreUnavailable
from windlass.guard.guard import Answer

run = asyncio.run
ODD_IDS = [
    "a",
    "B",
    "b",
    "Z",
    "a/b",
    " ",
    "%",
    "_",
    "é",
    "z\u0301",
    "\U0001f600",
    "\uffff",
    "'",
    "\\",
    "x" * 1024,
]
PRICES = ["0", "0.1", "0.3", "19.9", "0.000001", "123456789012.345678", "999999999999.999999", "100"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / DATABASE)
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def products(url: str) -> Iterator[Products]:
    opened = Products(url, synchronous="off")
    yield opened
    opened.close()


SECRET = b"s" * 16


@pytest.fixture
def catalogue(url: str, tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue.open(tmp_path, SECRET, url=url, synchronous="off", interval=1e6)
    yield opened
    opened.close()


def some(*ids: str, price: str = "1.5") -> list[Product]:
    return [product(each, f"name of {each}"[:1000], Decimal(price)) for each in ids]


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", PRICES)
def test_a_price_comes_back_as_it_was(products: Products, price: str) -> None:
    """Planted defect: Numeric without a type of our own: SQLite gives a float back."""
    (wanted,) = some("a", price=price)
    run(products.insert(wanted))
    found = run(products.get("a"))
    assert found == wanted
    assert str(found and found.price) == price


def test_odd_ids_are_products_of_their_own(products: Products) -> None:
    wanted = some(*ODD_IDS)
    assert run(products.put(wanted)) == len(ODD_IDS)
    for each in wanted:
        assert run(products.get(each.product_id)) == each
    assert sorted(products.ids()) == sorted(ODD_IDS)


@pytest.mark.parametrize("impossible", ["", "\0", "a\0", "\ud800", "x" * 10_000])
def test_an_id_that_cannot_be_is_absent_without_a_query(
    products: Products, statements: list[str], impossible: str
) -> None:
    """Planted defect: it is asked for: PostgreSQL refuses NUL, and no driver encodes half a character."""
    assert run(products.get(impossible)) is None
    assert statements == []


def test_one_that_exists_is_not_inserted(products: Products) -> None:
    run(products.insert(some("a")[0]))
    with pytest.raises(ProductExists):
        run(products.insert(some("a", price="7")[0]))
    assert run(products.get("a")) == some("a")[0]


def test_inserts_that_share_a_commit_fail_alone(products: Products) -> None:
    """Planted defect: the database's error is let through: the whole commit is undone and told as a fault."""

    async def scenario() -> list[Any]:
        return await asyncio.gather(
            *(products.insert(some(each)[0]) for each in "abcabcd"), return_exceptions=True
        )

    told = run(scenario())
    assert [type(each) for each in told] == [type(None)] * 3 + [ProductExists] * 3 + [type(None)]
    assert sorted(products.ids()) == list("abcd")


def test_put_writes_new_ones_and_over_old_ones(products: Products) -> None:
    assert run(products.put(some("a", "b"))) == 2
    assert run(products.put(some("b", "c", "c", price="2"))) == 1
    assert [str(each.price) for each in run(products.page())] == ["1.5", "2", "2"]
    assert run(products.put([])) == 0


def test_deletion_says_whether_it_was_there(products: Products) -> None:
    run(products.insert(some("a")[0]))
    assert [run(products.delete("a")), run(products.delete("a"))] == [True, False]
    assert run(products.get("a")) is None


def test_pages_follow_the_bytes_of_ids(products: Products) -> None:
    """Planted defect: no collation: PostgreSQL's pages go by its language, and other servers' by theirs."""
    run(products.put(some(*ODD_IDS)))
    found: list[str] = []
    while page := run(products.page(found[-1] if found else "", 4)):
        assert len(page) <= 4
        found += [each.product_id for each in page]
    assert found == sorted(ODD_IDS, key=str.encode)


def test_ids_come_page_by_page(products: Products) -> None:
    wanted = [f"p{number:05d}" for number in range(20_001)]
    for start in range(0, len(wanted), 5_000):
        run(products.put(some(*wanted[start : start + 5_000])))
    assert list(products.ids()) == wanted


def test_it_is_all_there_after_a_restart(products: Products, url: str) -> None:
    run(products.put(some("a", "b")))
    products.close()
    again = Products(url)
    assert list(again.ids()) == ["a", "b"]
    again.close()


# --- the catalogue --------------------------------------------------------------------------------


def test_look_ups_go_through_the_guard(catalogue: Catalogue, statements: list[str]) -> None:
    """Planted defect: the guard is passed by; counted by the database, not by the guard."""
    (wanted,) = some("a")
    run(catalogue.insert(wanted))
    statements.clear()
    assert run(catalogue.get("a")) == Answer(wanted, "database")
    made = len([each for each in statements if "FROM products" in each])
    assert made == 1
    statements.clear()
    assert run(catalogue.get("a")) == Answer(wanted, "cache")
    for number in range(100):
        assert run(catalogue.get(f"absent-{number}")).value is None
    assert run(catalogue.delete("absent")) is False
    assert len(statements) <= 10  # the false positives of one per cent, and what begins their transactions
    assert catalogue.guard.counts().bloom_filter >= 97


def test_whatever_is_written_is_found(catalogue: Catalogue) -> None:
    """Planted defect: a write past `guard.write`."""
    run(catalogue.insert(some("a")[0]))
    assert run(catalogue.get("a")).value == some("a")[0]
    with pytest.raises(ProductExists):
        run(catalogue.insert(some("a")[0]))
    assert run(catalogue.put(some("a", "b", price="2"))) == 1
    assert [run(catalogue.get(each)).value for each in "ab"] == some("a", "b", price="2")
    assert run(catalogue.delete("a")) is True
    assert run(catalogue.get("a")) == Answer(None, "database")
    assert run(catalogue.get("a")) == Answer(None, "negative_cache")
    run(catalogue.insert(some("a")[0]))
    assert run(catalogue.get("a")).value == some("a")[0]
    assert [each.product_id for each in run(catalogue.page())] == ["a", "b"]


def test_the_filter_holds_what_was_there_at_the_start(catalogue: Catalogue, url: str, tmp_path: Path) -> None:
    """Planted defect: an empty filter at the start: every product is denied."""
    run(catalogue.put(some(*ODD_IDS)))
    catalogue.close()
    again = Catalogue.open(tmp_path, SECRET, url=url)
    for each in some(*ODD_IDS):
        assert run(again.get(each.product_id)).value == each
    again.close()


@pytest.mark.parametrize("impossible", ["", "\0", "\ud800", "x" * 10_000])
def test_what_cannot_be_an_id_is_absent_whatever_the_filter_says(
    url: str, tmp_path: Path, impossible: str
) -> None:
    opened = Catalogue.open(tmp_path, SECRET, url=url)
    opened.guard.filter.add(impossible)
    assert run(opened.get(impossible)).value is None
    assert run(opened.delete(impossible)) is False
    opened.close()


# --- a database that is away ----------------------------------------------------------------------


def test_a_database_that_is_away_is_a_503_and_no_404(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """Planted defect: an error is taken for absence. What is in memory is answered meanwhile."""
    url = postgresql.database()
    catalogue = Catalogue.open(tmp_path, SECRET, url=url)
    run(catalogue.put(some("a", "b")))
    run(catalogue.get("a"))
    postgresql.stop()
    try:
        with pytest.raises(StoreUnavailable):
            run(catalogue.get("b"))
        with pytest.raises(StoreUnavailable):
            run(catalogue.put(some("c")))
        with pytest.raises(StartError, match="catalogue's database"):
            Catalogue.open(tmp_path, SECRET, url=url)
        assert run(catalogue.get("a")) == Answer(some("a")[0], "cache")
        assert run(catalogue.get("absent")) == Answer(None, "bloom_filter")
    finally:
        postgresql.start()
    assert run(catalogue.get("b")) == Answer(some("b")[0], "database")
    assert run(catalogue.get("c")).value is None
    catalogue.close()


@pytest.mark.parametrize(
    "wrong",
    ["", "nonsense", "mysql://a:secret@host/b", "postgresql://a:secret@127.0.0.1:1/b", "sqlite:////x/y/z"],
)
def test_a_database_that_there_is_not_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(StartError, match="cannot be opened") as refused:
        Products(wrong)
    assert "secret" not in refused.value.detail


def test_only_the_first_epoch_is_the_first(products: Products, url: str) -> None:
    """Planted defect: each epoch takes the place of the one before."""
    products.epochs.begin()
    assert products.epochs.is_first("one")
    assert not products.epochs.is_first("two")
    assert products.epochs.is_first("one")
    other = Products(url, synchronous="off")
    other.epochs.begin()
    assert not other.epochs.is_first("three")
    assert other.epochs.is_first("one")
    other.close()


def test_an_epoch_is_entered_from_the_one_before_or_from_none(products: Products) -> None:
    """Planted defect: whoever comes is let in."""
    epochs = products.epochs
    epochs.begin()
    assert epochs.enter("one", "")
    assert epochs.enter("one", "one")  # another server
    assert not epochs.enter("elsewhere", "")
    assert epochs.enter("two", "one")
    assert epochs.enter("two", "one")  # who comes later from there, too
    assert not epochs.enter("elsewhere", "one")
    assert not epochs.enter("one", "elsewhere")
    epochs.take("three")
    assert [epochs.enter("two", ""), epochs.enter("three", "")] == [False, True]
    epochs.begin()
    assert epochs.enter("four", "")
