"""A table of the user's behind a server, by settings alone."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.contract.tables.conftest import Program
from tests.harness import ServerProcess, run_cli, until


def test_a_table_that_others_write_is_served(url: str, program: Program, tmp_path: Path) -> None:
    """Planted defects: settings that lead nowhere; a lag that is not told; writes that are not refused."""
    program("CREATE TABLE articles (sku INTEGER PRIMARY KEY, title TEXT, cost NUMERIC(10, 2))")
    program("INSERT INTO articles VALUES (7, 'rope', 19.9)")
    environment = {
        "WINDLASS_DATABASE": url,
        "WINDLASS_PRODUCTS_TABLE": "articles",
        "WINDLASS_PRODUCTS_KEY": "sku",
        "WINDLASS_PRODUCTS_NAME": "title",
        "WINDLASS_PRODUCTS_PRICE": "cost",
        "WINDLASS_PRODUCTS_WRITES": "elsewhere",
        "WINDLASS_PRODUCTS_READ_ONLY": "true",
        "WINDLASS_MAX_LAG_SECONDS": "60",
    }
    dialect = program.engine.dialect.name
    printed = run_cli("products", "trigger", environment=environment)
    assert printed.returncode == 0, printed.stderr
    with program.engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.commit()
        if dialect == "sqlite":
            driver.executescript(printed.stdout)
        else:
            driver.execute(printed.stdout)
            driver.commit()
    with (
        ServerProcess(tmp_path / "data", environment=environment, ready_within=60) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        found = client.get("/products/7")
        assert found.json()["name"] == "rope"
        assert found.json()["price"] == 19.9
        for absent in ["8", "007", "abc", "9" * 30]:
            assert client.get(f"/products/{absent}").status_code == 404
        refused = client.post("/products", json={"product_id": "8", "name": "n", "price": 1})
        assert refused.status_code == 403
        assert "catalogue_read_only" in refused.text
        program("INSERT INTO articles VALUES (8, 'net', 2)")
        until(lambda: client.get("/products/8").status_code == 200, 60)
        until(lambda: client.get("/health").json()["lag_seconds"] is not None, 60)
        assert client.get("/health").json()["filter"] == "ok"
