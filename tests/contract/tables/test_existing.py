"""Tables of the user's own: found as they are, asked by their own types, and left alone where they wish."""

from __future__ import annotations

import asyncio
import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.contract.tables.conftest import Program
from windlass.catalogue.existing import Existing
from windlass.catalogue.product import product
from windlass.catalogue.products import Products
from windlass.catalogue.trigger import Watched, script
from windlass.errors import CatalogueReadOnly, Invalid, ProductExists, StartError, StoreUnavailable

run = asyncio.run
UUID = "6f1c1f4e-9d3a-4c8b-8f43-0b5d7c9e2a10"
NOTHING = ["", "\0", "a\0", "\ud800", "abc", "007", "+7", "7.0", " 7", "7 ", "-0", "1e3", "\uff17", "9" * 30]
GOODS = Existing("goods", key="id", name="title", price="cost")


def make(program: Program, key: str = "TEXT", price: str = "NUMERIC(10, 2)", rows: str = "") -> None:
    program(f"CREATE TABLE goods (id {key} PRIMARY KEY, title TEXT NOT NULL, cost {price}, other TEXT)")
    if rows:
        program(f"INSERT INTO goods (id, title, cost) VALUES {rows}")


def opened(url: str, table: Existing = GOODS, *, read_only: bool = False) -> Products:
    return Products(url, table=table, read_only=read_only)


# --- what keys are --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_an_integer_is_asked_for_as_one(url: str, program: Program, statements: list[str], bits: int) -> None:
    """Planted defects: text to an integer column, which PostgreSQL refuses; int() takes 007 for 7."""
    most = 2**63 - 1 if program.engine.dialect.name == "sqlite" else 2 ** (bits - 1) - 1
    make(
        program,
        {16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}[bits],
        rows=f"(7, 'rope', 1.5), ({most}, 'l', 2)",
    )
    goods = opened(url)
    assert run(goods.get("7")) == product("7", "rope", Decimal("1.5"))
    assert run(goods.get(str(most))) is not None
    assert run(goods.get("8")) is None
    statements.clear()
    for nothing in [*NOTHING, str(most + 1), str(-most - 2)]:
        assert run(goods.get(nothing)) is None
    assert statements == []
    assert list(goods.ids()) == ["7", str(most)]
    assert [each.product_id for each in run(goods.page("7"))] == [str(most)]
    with pytest.raises(Invalid):
        run(goods.page("abc"))
    assert run(goods.put([product("7", "r", 1), product("8", "n", 2)])) == 1
    assert [run(goods.delete("7")), run(goods.delete("abc"))] == [True, False]
    with pytest.raises(Invalid) as refused:
        run(goods.insert(product("abc", "n", 1)))
    assert refused.value.field == "product_id"
    goods.close()


def test_a_uuid_has_one_form(postgresql_url: str, statements: list[str]) -> None:
    """Planted defect: UUID() takes many forms, of which the filter knows one."""
    make(Program(postgresql_url), "UUID", rows=f"('{UUID}', 'rope', 1)")
    goods = opened(postgresql_url)
    assert run(goods.get(UUID)) == product(UUID, "rope", 1)
    statements.clear()
    for nothing in [*NOTHING, UUID.upper(), f"{{{UUID}}}", UUID.replace("-", "")]:
        assert run(goods.get(nothing)) is None
    assert statements == []
    assert list(goods.ids()) == [UUID]
    goods.close()


@pytest.mark.parametrize("kind", ["TEXT", "VARCHAR(9)", "CHAR(9)"])
def test_text_is_compared_as_it_is(url: str, program: Program, kind: str) -> None:
    """Planted defect: a cast to CHAR(9) cuts what is asked for until it fits something."""
    make(program, kind, rows="('rope', 'r', 1), ('a''b:c', 'odd', 1), ('123456789', 'full', 1)")
    goods = opened(url)
    assert sorted(goods.ids()) == ["123456789", "a'b:c", "rope"]
    for each in goods.ids():
        assert getattr(run(goods.get(each)), "product_id", None) == each
    for nothing in ["Rope", "rope ", "1234567890", "x" * 5000, "\0", "\ud800", ""]:
        assert run(goods.get(nothing)) is None
    goods.close()


def test_what_a_column_takes_for_equal_are_two_ids(url: str, program: Program) -> None:
    """Planted defect: the row is taken for the one that was asked for: the cache has it under both names."""
    key = "TEXT COLLATE NOCASE"
    if program.engine.dialect.name == "postgresql":
        program("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        key = "TEXT COLLATE loose"
    make(program, key, rows="('Rope', 'r', 1)")
    goods = opened(url)
    assert run(goods.get("Rope")) is not None
    assert run(goods.get("rope")) is None
    goods.close()


# --- what tables and columns are ------------------------------------------------------------------


def test_odd_names_are_quoted(url: str, program: Program) -> None:
    """Planted defect: names as they stand in SQL."""
    table, key = 'pro.du"cts:%(x)s', 'the "key"; :%s'
    schema = ""
    if program.engine.dialect.name == "postgresql":
        program('CREATE SCHEMA "Sales x"')
        schema = '"Sales x".'
    sql = f'{schema}"{table.replace(chr(34), chr(34) * 2)}"'
    quoted_key = key.replace('"', '""')
    with program.engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f'CREATE TABLE {sql} ("{quoted_key}" TEXT UNIQUE, "select" TEXT, "order" INTEGER)')
    where = Existing(sql, key=key, name="select", price="order", trigger=True)
    goods = opened(url, where)
    assert goods.record is not None
    start = goods.record.position()
    run(goods.put([product("a", "n", 3)]))
    run(goods.insert(product("b", "n", 4)))
    assert run(goods.get("a")) == product("a", "n", 3)
    assert run(goods.put([product("a", "other", 5)])) == 0
    assert run(goods.delete("b"))
    assert set(goods.record.since(start)[0]) == {"a", "b"}
    goods.close()


@pytest.mark.parametrize("name", ["", ".", "a.b.c", "a.", '"a', 'a"b', "a..b"])
def test_what_is_no_name_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(StartError, match="no name of a table"):
        Existing(name, key="id").watched()


def test_names_and_prices_may_be_missing(url: str, program: Program) -> None:
    """Such a table is only read. Planted defect: KeyErrors at the first write."""
    make(program, rows="('a', 'rope', 2)")
    with pytest.raises(StartError, match="products_read_only"):
        opened(url, Existing("goods", key="id"))
    bare = opened(url, Existing("goods", key="id"), read_only=True)
    assert run(bare.get("a")) == product("a", "a", 0)
    bare.close()
    named = opened(url, Existing("goods", key="id", name="title"), read_only=True)
    assert run(named.page()) == [product("a", "rope", 0)]
    named.close()


@pytest.mark.parametrize(
    ("kind", "stored", "read"),
    [
        *(("NUMERIC(10, 2)", "19.90", "19.9"), ("NUMERIC", "0.000001", "0.000001"), ("INTEGER", "7", "7")),
        *(("DOUBLE PRECISION", "19.9", "19.9"), ("REAL", "19.9", "19.9"), ("NUMERIC(10, 2)", "NULL", "0")),
    ],
)
def test_prices_of_any_number(url: str, program: Program, kind: str, stored: str, read: str) -> None:
    """Planted defect: Numeric as it is reflected: SQLite gives 19.9000000000, and a warning."""
    make(program, price=kind, rows=f"('a', 'rope', {stored})")
    goods = opened(url)
    assert str(getattr(run(goods.get("a")), "price", None)) == read
    run(goods.put([product("b", "n", Decimal(read))]))
    assert run(goods.get("b")) == product("b", "n", Decimal(read))
    goods.close()


@pytest.mark.parametrize("stored", ["'NaN'", "'Infinity'"])
def test_what_is_no_price_is_none(postgresql_url: str, stored: str) -> None:
    """Planted defect: NaN in JSON."""
    make(Program(postgresql_url), price="DOUBLE PRECISION", rows=f"('a', 'rope', {stored})")
    goods = opened(postgresql_url)
    assert run(goods.get("a")) == product("a", "rope", 0)
    goods.close()


@pytest.mark.parametrize(("kind", "price"), [("NUMERIC(10, 2)", "1.005"), ("INTEGER", "1.5")])
def test_a_price_that_would_be_rounded_is_refused(url: str, program: Program, kind: str, price: str) -> None:
    """Planted defect: PostgreSQL rounds it: 201 to something else than was sent."""
    make(program, price=kind)
    goods = opened(url)
    with pytest.raises(Invalid) as refused:
        run(goods.insert(product("a", "n", Decimal(price))))
    assert refused.value.field == "price"
    goods.close()


# --- writing --------------------------------------------------------------------------------------


def test_what_the_table_does_not_take_is_a_422(url: str, program: Program) -> None:
    """Planted defect: any IntegrityError is "it exists"; a DataError is a 500."""
    program(
        "CREATE TABLE goods (id VARCHAR(9) PRIMARY KEY, title VARCHAR(5) UNIQUE CHECK (title <> 'x'),"
        " cost NUMERIC(4, 2) NOT NULL)"
    )
    goods = opened(url)
    run(goods.insert(product("a", "rope", 1)))
    with pytest.raises(ProductExists):
        run(goods.insert(product("a", "other", 1)))
    for wrong in [product("b", "x", 1), product("b", "rope", 1)]:
        with pytest.raises(Invalid, match="does not take"):
            run(goods.insert(wrong))
    with pytest.raises(Invalid, match="does not take"):
        run(goods.put([product("b", "rope", 1)]))
    if program.engine.dialect.name == "postgresql":  # SQLite takes them
        for wrong in [product("b", "too long", 1), product("b", "n", 1000), product("b" * 10, "n", 1)]:
            with pytest.raises(Invalid, match="does not take"):
                run(goods.insert(wrong))
            with pytest.raises(Invalid, match="does not take"):
                run(goods.put([wrong]))
    assert list(goods.ids()) == ["a"]
    goods.close()


def test_a_key_that_only_the_database_gives_is_a_422(postgresql_url: str) -> None:
    make(Program(postgresql_url), "INTEGER GENERATED ALWAYS AS IDENTITY")
    goods = opened(postgresql_url)
    with pytest.raises(Invalid, match="does not take"):
        run(goods.insert(product("1", "n", 1)))
    goods.close()


# --- reading only ---------------------------------------------------------------------------------


def test_nothing_is_written_where_nothing_may_be(url: str, program: Program, tmp_path: Path) -> None:
    """Planted defects: the record's table is made; SQLite's journal mode is changed, and its file with it."""
    make(program, rows="('a', 'rope', 1)")
    files = [hashlib.sha256(file.read_bytes()).digest() for file in sorted(tmp_path.iterdir())]
    tables = "SELECT count(*) FROM sqlite_schema"
    if program.engine.dialect.name == "postgresql":
        tables = "SELECT count(*) FROM pg_class"
    before = program(tables)
    goods = opened(url, read_only=True)
    assert run(goods.get("a")) == product("a", "rope", 1)
    assert goods.record is None
    for write in (
        lambda: goods.insert(product("b", "n", 1)),
        lambda: goods.put([product("a", "n", 1)]),
        lambda: goods.delete("a"),
    ):
        with pytest.raises(CatalogueReadOnly):
            run(write())
    with pytest.raises(Exception, match=r"(?i)read-?only"):
        goods._database.change(lambda connection: connection.exec_driver_sql("DELETE FROM goods"))
    goods.close()
    assert program(tables) == before
    assert files == [hashlib.sha256(file.read_bytes()).digest() for file in sorted(tmp_path.iterdir())]


def test_a_file_that_there_is_not_is_not_made_for_reading(tmp_path: Path) -> None:
    """Planted defect: SQLite makes an empty one."""
    with pytest.raises(StartError):
        opened(f"sqlite:///{tmp_path}/none.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_the_printed_trigger_is_believed(url: str, program: Program) -> None:
    """Planted defect: what is printed is not what is looked for, by a blank or a schema."""
    make(program)
    dialect = program.engine.dialect.name
    sql = script(dialect, Watched("goods", "id", "public" if dialect == "postgresql" else None))
    with program.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.commit()
        if dialect == "sqlite":
            driver.executescript(sql)
        else:
            driver.execute(sql)
            driver.commit()
    goods = opened(url, read_only=True)
    assert goods.record is not None
    start = goods.record.position()
    program("INSERT INTO goods (id, title) VALUES ('new', 'n')")
    assert list(goods.record.since(start)[0]) == ["new"]
    goods.close()


def test_a_trigger_of_another_column_is_not(url: str, program: Program) -> None:
    """Planted defect: any trigger of that name will do."""
    program("CREATE TABLE goods (id TEXT UNIQUE NOT NULL, title TEXT UNIQUE NOT NULL, cost NUMERIC)")
    by_title = Existing("goods", key="title", name="id", price="cost", trigger=True)
    opened(url, by_title).close()
    goods = opened(url)
    assert goods.record is None
    goods.close()


# --- what is said at the start --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (Existing("nowhere", key="id"), "no table .*There are: goods"),
        (Existing("goods", key="sku"), "no column 'sku'.*It has: blob, cost, id, kind, title"),
        (Existing("goods", key="id", name="label"), "no column 'label'"),
        (Existing("goods", key="id", name="title", price="tax"), "no column 'tax'"),
        (Existing("goods", key="title"), "not unique.*ALTER TABLE"),
        (Existing("goods", key="kind"), "not unique"),
        (Existing("goods", key="id", name="cost"), "no text"),
        (Existing("goods", key="id", price="title"), "Prices can be"),
        (Existing("goods", key="cost"), "Ids can be"),
        (Existing("goods", key="id", name="id"), "three columns"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(url: str, program: Program, table: Existing, said: str) -> None:
    """Planted defect: a unique index on some of the rows is taken for one on all."""
    program("CREATE TABLE goods (id TEXT PRIMARY KEY, title TEXT, cost NUMERIC UNIQUE, kind TEXT, blob TEXT)")
    program("CREATE UNIQUE INDEX partly ON goods (kind) WHERE cost > 0")
    with pytest.raises(StartError, match=said):
        opened(url, table, read_only=True)


def test_rights_that_are_missing_are_named(postgresql_url: str) -> None:
    """Planted defect: the first request finds out, with a 500."""
    owner = Program(postgresql_url)
    owner("CREATE SCHEMA sales")
    owner("CREATE TABLE sales.goods (id TEXT PRIMARY KEY, title TEXT, cost NUMERIC)")
    owner("DROP ROLE IF EXISTS guest")
    owner("CREATE ROLE guest LOGIN")
    guest = postgresql_url.replace("windlass@", "guest@")
    goods = Existing("sales.goods", key="id", name="title", price="cost")
    for right in [
        "USAGE ON SCHEMA sales",
        "SELECT ON sales.goods",
        "INSERT ON sales.goods",
        "UPDATE ON sales.goods",
        "DELETE ON sales.goods",
    ]:
        with pytest.raises(StartError, match=f"GRANT {right.split()[0]} ON") as refused:
            opened(guest, goods)
        assert 'TO "guest"' in refused.value.detail
        owner(f"GRANT {right} TO guest")
    opened(guest, goods).close()
    with pytest.raises(StartError, match=r"cannot be installed.*products trigger"):
        opened(guest, Existing("sales.goods", key="id", name="title", price="cost", trigger=True))
    owner("REVOKE ALL ON sales.goods FROM guest")
    owner("GRANT SELECT (id, title) ON sales.goods TO guest")
    opened(guest, Existing("sales.goods", key="id", name="title"), read_only=True).close()
    owner("REVOKE ALL ON SCHEMA sales FROM guest")
    owner("DROP OWNED BY guest")
    owner("DROP ROLE guest")


def test_a_right_that_is_taken_away_later_is_a_503(postgresql_url: str) -> None:
    """Planted defect: ProgrammingErrors are faults of ours."""
    program = Program(postgresql_url)
    make(program, rows="('a', 'n', 1)")
    goods = opened(postgresql_url)
    program("ALTER TABLE goods RENAME TO others")
    with pytest.raises(StoreUnavailable):
        run(goods.get("a"))
    program("ALTER TABLE others RENAME TO goods")
    assert run(goods.get("a")) is not None
    goods.close()
