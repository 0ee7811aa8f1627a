"""Products over HTTP: who is asked, whatever ids and prices there are, imports, metrics, health."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.contract.http.served import PROBLEM, Caller, Served, TestClient, refused, settled
from tests.contract.http.test_doors import key
from tests.harness import until
from windlass.catalogue import initial
from windlass.errors import StartError, StoreUnavailable

ROPE: dict[str, Any] = {"product_id": "rope-30", "name": "Rope, 30 m", "price": 19.9}


@contextmanager
def listening() -> Iterator[list[str]]:
    """Every statement that the products' database is given, heard at the driver, not at our counters."""
    heard: list[str] = []

    def hear(connection: Any, _: Any, statement: str, *__: Any) -> None:
        # The filter's keeper reads and trims the record, whoever asks for what.
        its_own = threading.current_thread().name == "windlass-filter" or "windlass_keys" in statement
        if "catalogue.db" in str(connection.engine.url) and not its_own:
            heard.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def add(api: Served, product_id: str, **more: Any) -> None:
    answer = api("POST", "/products", ROPE | {"product_id": product_id} | more)
    assert answer.status_code == 201, answer.text


def absent(answer: httpx.Response, *sources: str) -> None:
    refused(answer, 404, "product_not_found")
    assert answer.json()["source"] in sources


# --- look-ups ---------------------------------------------------------------------------------------


def test_a_product_is_found_in_the_database_and_then_in_the_cache(api: Served) -> None:
    """Planted defect: an answer that says `cache` where the database was asked."""
    created = api("POST", "/products", ROPE)
    assert (created.status_code, created.json()) == (201, ROPE)
    with listening() as heard:
        first = api("GET", "/products/rope-30")
        assert [each for each in heard if "FROM products" in each] != []
        heard.clear()
        second = api("GET", "/products/rope-30")
        assert heard == []
    assert (first.status_code, first.json()) == (200, ROPE | {"source": "database"})
    assert (second.status_code, second.json()) == (200, ROPE | {"source": "cache"})
    assert list(first.json()) == ["product_id", "name", "price", "source"]
    assert first.headers["content-type"] == "application/json"


def test_what_the_filter_denies_reaches_no_database(api: Served) -> None:
    """Planted defect: the database is asked as well, while our own counter says that it was not."""
    add(api, "there")
    with listening() as heard:
        for number in range(200):
            absent(api("GET", f"/products/absent-{number}"), "bloom_filter")
    assert heard == []
    metrics = api("GET", "/metrics").json()
    assert (metrics["requests"], metrics["bloom_filter"], metrics["database_calls"]) == (200, 200, 0)
    assert (metrics["database_roundtrips_saved"], metrics["roundtrip_reduction"]) == (200, 1.0)


def test_what_the_filter_lets_pass_is_looked_up_once(api: Served) -> None:
    """Planted defect: an absence that is not remembered. The id passes as a false positive would."""
    api("GET", "/health")
    api.app.catalogue.guard.filter.add("a false positive")
    with listening() as heard:
        absent(api("GET", "/products/a%20false%20positive"), "database")
        assert len([each for each in heard if "FROM products" in each]) == 1
        heard.clear()
        absent(api("GET", "/products/a%20false%20positive"), "negative_cache")
        assert heard == []
    add(api, "a false positive")
    assert api("GET", "/products/a%20false%20positive").json()["source"] == "database"


def test_many_who_want_one_cold_product_make_one_call(api: Served) -> None:
    """Planted defect: each of them asks the database."""
    add(api, "cold")

    async def all_at_once() -> list[httpx.Response]:
        return await asyncio.gather(*(api.ask("GET", "/products/cold") for _ in range(20)))

    with listening() as heard:
        answers = api.run(all_at_once())
    assert {answer.status_code for answer in answers} == {200}
    assert len([each for each in heard if "FROM products" in each]) == 1


ODD = [
    "a/b", "/", "//", "a/", "?", "#", "%", "%2F", "+", " ", "a b", "é", "z\u0301", "\U0001f600", "\uffff",
    "'; DROP TABLE products", "\\", '"', ":import", "../x", "x" * 1024, "\x01", "\n", "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("product_id", ODD)
def test_odd_ids_are_reached_in_every_way(same: Served, product_id: str) -> None:
    """Planted defect: a path that is cut at its slashes, ends at a newline, or is unquoted twice."""
    path = f"/products/{quote(product_id, safe='')}"
    absent(same("GET", path), "bloom_filter")
    add(same, product_id)
    found = same("GET", path)
    assert (found.status_code, found.json()["product_id"]) == (200, product_id)
    refused(same("POST", "/products", ROPE | {"product_id": product_id}), 409, "product_exists")
    assert same("PUT", path, {"name": "n", "price": 1}).status_code == 200
    assert same("GET", path).json() == {
        "product_id": product_id, "name": "n", "price": 1, "source": "database",
    }  # fmt: skip
    assert same("DELETE", path).status_code == 204
    refused(same("GET", path), 404, "product_not_found")
    refused(same("DELETE", path), 404, "product_not_found")
    assert same("PUT", path, {"name": "n", "price": 1}).status_code == 201
    assert same("DELETE", path).status_code == 204


def test_slashes_may_come_as_they_are(same: Served) -> None:
    add(same, "a/b/c/d/e/f/g")
    assert same("GET", "/products/a/b/c/d/e/f/g").json()["product_id"] == "a/b/c/d/e/f/g"
    assert same("DELETE", "/products/a/b/c/d/e/f/g").status_code == 204


IMPOSSIBLE = ["", "%00", "a%00", "%ff", "%ed%a0%80", "%c0%af", "x" * 1025, "x" * 10_000, "%F0%9F%98"]


@pytest.mark.parametrize("quoted", IMPOSSIBLE)
def test_an_id_that_none_can_have_is_absent_and_is_not_written(same: Served, quoted: str) -> None:
    """Planted defects: U+FFFD for what is no UTF-8, so that many paths are one product; a 500."""
    with listening() as heard:
        absent(same("GET", f"/products/{quoted}"), "bloom_filter", "database")
        refused(same("DELETE", f"/products/{quoted}"), 404, "product_not_found")
    assert heard == []
    refused(same("PUT", f"/products/{quoted}", {"name": "n", "price": 1}), 422, "invalid", "product_id")


def test_a_query_is_refused(same: Served) -> None:
    refused(same("GET", "/products/x?y=1"), 422, "invalid", "query")


def test_replacement_characters_are_not_what_is_no_utf8(same: Served) -> None:
    add(same, "\ufffd")
    absent(same("GET", "/products/%ff"), "bloom_filter")
    assert same("GET", "/products/%EF%BF%BD").status_code == 200


# --- writes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "price",
    [
        "-1", "-0.000001", "1e400", "1E+999999999", "1e99999999999999999999", "1e-99999999999999999999",
        "1000000000000", "0.0000001", '"19.9"', '"NaN"', "true", "null", "[]", "{}", "1" * 5000,
    ],
)  # fmt: skip
def test_a_price_that_is_none_is_422(same: Served, price: str) -> None:
    """Planted defects: text that is taken for a number; 10^400 becoming infinite."""
    body = b'{"product_id":"p","name":"n","price":%b}' % price.encode()
    refused(same("POST", "/products", body), 422, "invalid", "price")
    refused(same("PUT", "/products/none", body.replace(b'"p"', b'"none"')), 422, "invalid", "price")
    absent(same("GET", "/products/none"), "bloom_filter")


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-Infinity", "+1", ".5", "01", "1.", "0x1"])
def test_what_is_no_json_number_is_400(same: Served, price: str) -> None:
    body = b'{"product_id":"p","name":"n","price":%b}' % price.encode()
    refused(same("POST", "/products", body), 400, "broken_json")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("0.1", "0.1"), ("19.90", "19.9"), ("123456789012.345678", "123456789012.345678"), ("0", "0"),
        ("-0", "0"), ("1e2", "100"), ("1.5E-3", "0.0015"), ("999999999999.999999", "999999999999.999999"),
    ],
)  # fmt: skip
def test_a_price_is_kept_to_its_last_digit(same: Served, sent: str, kept: str) -> None:
    """Planted defect: a float on its way, to which 123456789012.345678 is 123456789012.34567."""
    body = b'{"name":"n","price":%b}' % sent.encode()
    assert same("PUT", "/products/exact", body).is_success
    for _ in range(2):
        found = json.loads(same("GET", "/products/exact").text, parse_float=Decimal, parse_int=Decimal)
        assert str(found["price"]) == kept


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"product_id": "p", "price": 1}, "name"),
        ({"product_id": "p", "name": "", "price": 1}, "name"),
        ({"product_id": "p", "name": "x" * 1001, "price": 1}, "name"),
        ({"product_id": "p", "name": "a\0b", "price": 1}, "name"),
        ({"product_id": "p", "name": 5, "price": 1}, "name"),
        ({"product_id": "p", "name": "n"}, "price"),
        ({"name": "n", "price": 1}, "product_id"),
        ({"product_id": "", "name": "n", "price": 1}, "product_id"),
        ({"product_id": "x" * 10_000, "name": "n", "price": 1}, "product_id"),
        ({"product_id": "\U0001f600" * 300, "name": "n", "price": 1}, "product_id"),
        ({"product_id": "a\0", "name": "n", "price": 1}, "product_id"),
        ({"product_id": "p", "name": "n", "price": 1, "colour": "red"}, "colour"),
    ],
)
def test_a_bad_product_is_422_and_names_the_field(same: Served, body: dict[str, Any], field: str) -> None:
    refused(same("POST", "/products", body), 422, "invalid", field)


def test_a_put_may_name_its_id_and_no_other(api: Served) -> None:
    assert api("PUT", "/products/p", ROPE | {"product_id": "p"}).status_code == 201
    refused(api("PUT", "/products/p", ROPE), 422, "invalid", "product_id")


def test_what_was_remembered_is_not_told_after_a_write(api: Served) -> None:
    """Planted defect: a PUT or a DELETE that leaves the cache as it is."""
    add(api, "p")
    for _ in range(2):
        api("GET", "/products/p")
    assert api("PUT", "/products/p", {"name": "new", "price": 2}).status_code == 200
    assert api("GET", "/products/p").json()["name"] == "new"
    assert api("DELETE", "/products/p").status_code == 204
    absent(api("GET", "/products/p"), "database")
    absent(api("GET", "/products/p"), "negative_cache")
    add(api, "p")
    assert api("GET", "/products/p").status_code == 200


def test_pages_go_through_all(api: Served) -> None:
    ids = sorted([f"p{number}" for number in range(25)] + ["a/b", "é", "\U0001f600"], key=str.encode)
    for each in ids:
        add(api, each)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = api("GET", f"/products?limit=7&after={quote(after, safe='')}").json()
        assert len(page["products"]) <= 7
        found += [product["product_id"] for product in page["products"]]
        after = page["next"]
    assert found == ids
    assert api("GET", "/products").json()["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "after=%00", "after=%ed%a0%80", "after=" + "x" * 2000]
)
def test_a_bad_page_is_422(same: Served, query: str) -> None:
    """Planted defect: U+FFFD for what is no UTF-8, so that a page begins somewhere else."""
    refused(same("GET", f"/products?{query}"), 422, "invalid")


# --- imports ----------------------------------------------------------------------------------------

CSV = {"content-type": "text/csv"}


def line(product_id: str, price: str = "1") -> str:
    return f'{{"product_id":{json.dumps(product_id)},"name":"n","price":{price}}}\n'


def test_an_import_adds_and_changes(api: Served) -> None:
    add(api, "p0")
    lines = "".join(line(f"p{number}", "0.000001") for number in range(1201)) + "\n"
    answer = api("POST", "/products:import", (lines + line("last").rstrip("\n")).encode())
    assert (answer.status_code, answer.json()) == (200, {"written": 1202, "created": 1201})
    assert api("GET", "/products/p0").json()["price"] == 0.000001
    assert api("GET", "/products/last").json()["source"] == "database"
    assert api("GET", "/bloom/stats").json()["items"] == 1202
    again = api("POST", "/products:import", lines.encode())
    assert again.json() == {"written": 1201, "created": 0}


def test_csv_is_as_rfc_4180_has_it(api: Served) -> None:
    body = b'\xef\xbb\xbfprice,product_id,name\r\n1.50,"a,b","says ""hi""\r\nand more"\r\n\r\n2,\xc3\xa9,n'
    answer = api("POST", "/products:import", body, headers=CSV)
    assert (answer.status_code, answer.json()) == (200, {"written": 2, "created": 2})
    assert api("GET", "/products/a,b").json() == {
        "product_id": "a,b", "name": 'says "hi"\r\nand more', "price": 1.5, "source": "database",
    }  # fmt: skip
    assert api("GET", "/products/%C3%A9").status_code == 200


@pytest.mark.parametrize(
    "bad",
    [
        "{", "[]", "null", '{"product_id":"x"}', '{"product_id":"x","name":"n","price":-1}',
        '{"product_id":"x","name":"n","price":"1"}', '{"product_id":"","name":"n","price":1}', "\0",
        "x" * 70_000,
    ],
)  # fmt: skip
def test_a_bad_line_is_told_and_nothing_behind_it_is_written(same: Served, bad: str) -> None:
    """Planted defects: the lines behind it are written; a line's number in its batch, not in the body."""
    before = "".join(line(f"p{number}") for number in range(700)) + "\n"
    answer = same("POST", "/products:import", (before + bad + "\n" + line("behind")).encode())
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert (answer.json()["line"], answer.json()["written"]) == (702, 700)
    assert "Line 702" in answer.json()["detail"]
    assert same("GET", "/products/p699").status_code == 200
    absent(same("GET", "/products/behind"), "bloom_filter")


@pytest.mark.parametrize(
    ("bad", "at"),
    [
        ("x,n", 4), ("x,n,1,2", 4), ("x,n,NaN", 4), ("x,n,", 4), (",n,1", 4), ('x,"n', 4), ('x,"n"n,1', 4),
        ("x," + "n" * 70_000 + ",1", 4), ('x,"a\nb",-1', 4), ('x,"a\nb",1\ny,n,-1', 6),
    ],
)  # fmt: skip
def test_a_bad_line_of_csv_is_told(same: Served, bad: str, at: int) -> None:
    body = f'product_id,name,price\na,"two\nlines",1\n{bad}\nbehind,n,1\n'.encode()
    answer = same("POST", "/products:import", body, headers=CSV)
    refused(answer, 422, "invalid")
    assert answer.json()["line"] == at, answer.text
    assert answer.json()["written"] == (2 if at == 6 else 1)
    absent(same("GET", "/products/behind"), "bloom_filter")


@pytest.mark.parametrize("body", [b"", b"\n\n", b"product_id,name,price\n", b"a,b\n", b"\xff\xfe", b'"'])
def test_csv_without_products_is_422(same: Served, body: bytes) -> None:
    refused(same("POST", "/products:import", body, headers=CSV), 422, "invalid")


def test_an_import_is_written_as_it_arrives(tmp_path: Path) -> None:
    """Planted defect: the whole body is read first, so that a large one has to fit in memory."""
    with Served(tmp_path) as api:

        async def scenario() -> None:
            chunks = ["".join(line(f"p{part}-{n}") for n in range(600)).encode() for part in range(3)]
            caller = Caller(api, "POST", "/products:import", line("last").encode(), chunks=chunks)
            await settled(lambda: not caller.chunks)
            assert (await api.app.catalogue.get("p0-0")).value is not None
            await caller.task
            assert (caller.status, json.loads(caller.body)) == (200, {"written": 1801, "created": 1801})

        api.run(scenario())


def test_what_was_written_is_told_where_the_database_fails(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    api("GET", "/health")
    put, calls = api.app.catalogue.put, iter(range(10))

    async def failing(several: Any) -> int:
        if next(calls) == 1:
            raise StoreUnavailable("away", retry_after=1)
        return await put(several)

    monkeypatch.setattr(api.app.catalogue, "put", failing)
    body = "".join(line(f"p{number}") for number in range(1500)).encode()
    answer = api("POST", "/products:import", body)
    refused(answer, 503, "store_unavailable")
    assert answer.json()["written"] == 500


# --- the filter, metrics, health --------------------------------------------------------------------


def test_the_stats_are_those_of_the_formulas(api: Served) -> None:
    add(api, "p")
    stats = api("GET", "/bloom/stats").json()
    assert (stats["bits"], stats["hashes"], stats["layers"], stats["items"]) == (9_585_059, 7, 1, 1)
    assert (stats["expected_items"], stats["target_false_positive_rate"]) == (1_000_000, 0.01)
    assert stats["bits_set"] == 7
    assert stats["fill_ratio"] == 7 / 9_585_059
    assert 0 < stats["estimated_false_positive_rate"] < 1e-40
    assert stats["memory_bytes"] > 9_585_059 // 8
    assert stats["state_key"] == "bloom:filter"


def test_a_rebuild_is_asked_for_and_seen_to_its_end(api: Served) -> None:
    """Planted defects: `rebuilding` that is null until the rebuild has begun; a route that asks for none."""
    add(api, "p")
    before = api.app.catalogue.keeper.filter
    asked = api("POST", "/bloom/rebuild")
    assert (asked.status_code, asked.json()["rebuilding"] is not None) == (202, True), asked.text
    until(lambda: api("GET", "/bloom/stats").json()["rebuilding"] is None, 60, "its end")
    stats = api("GET", "/bloom/stats").json()
    assert (stats["items"], stats["rebuild_failed"]) == (1, None)
    assert api.app.catalogue.keeper.filter is not before
    assert api("GET", "/products/p").status_code == 200


def test_settings_make_the_filter(tmp_path: Path) -> None:
    wanted: Any = {"bloom_expected_items": 1000, "bloom_false_positive_rate": 0.001}
    with Served(tmp_path, bloom_state_namespace="shop", **wanted) as api:
        stats = api("GET", "/bloom/stats").json()
    assert (stats["expected_items"], stats["target_false_positive_rate"]) == (1000, 0.001)
    assert (stats["bits"], stats["hashes"]) == (14_378, 10)
    assert stats["state_key"] == "bloom:state:shop"


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("text/plain;q=0.5, application/json", "application/json"),
        ("text/plain;q=0", "application/json"),
        ("text/html", "application/json"),
        ("text/plain;q=nonsense", "application/json"),
        ("text/plain", "text/plain"),
        ("text/*", "text/plain"),
        ("text/plain, */*", "text/plain"),
        ("application/openmetrics-text", "application/openmetrics-text"),
        (PROMETHEUS, "application/openmetrics-text"),
    ],
)
def test_metrics_are_json_unless_text_is_preferred(same: Served, accept: str, kind: str) -> None:
    answer = same("GET", "/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
def test_prometheus_reads_the_same_numbers(api: Served, kind: str) -> None:
    """Read with the parsers of Prometheus's own client."""
    add(api, "p")
    for path in ("p", "p", "absent"):
        api("GET", f"/products/{path}")
    text = api("GET", "/metrics", headers={"accept": kind}).text
    parse: Any = openmetrics if "openmetrics" in kind else prometheus
    samples = {
        (sample.name, sample.labels.get("source")): sample.value
        for family in parse(text)
        for sample in family.samples
    }
    counted = api("GET", "/metrics").json()
    for source in ("bloom_filter", "cache", "database"):
        assert samples["windlass_product_answers_total", source] == counted[source] == 1
    assert samples["windlass_product_lookups_total", None] == counted["requests"] == 3
    assert samples["windlass_product_filter_items", None] == 1


def test_health_has_an_entry_for_each_part(api: Served) -> None:
    answer = api("GET", "/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    parts = dict.fromkeys(("store", "database", "cache", "filter"), "ok")
    survives = api.app.store.durability()["survives"]
    rest = {"live": True, "ready": True, "survives": survives, "lag_seconds": None}
    assert answer.json() == {"status": "healthy", **parts, **rest}


@pytest.mark.parametrize(
    "error", [StoreUnavailable("gone fishing"), ZeroDivisionError(), TimeoutError("of the driver")]
)
def test_health_names_the_part_that_fails(
    api: Served, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Planted defect: an error that is no StoreUnavailable (a table that was dropped) makes a 500 of it."""
    api("GET", "/health")

    async def failing() -> None:
        raise error

    monkeypatch.setattr(api.app.catalogue.products, "ping", failing)
    answer = api("GET", "/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
    parts = {part: answer.json()[part] for part in ("store", "database", "cache", "filter")}
    assert [part for part, said in parts.items() if said != "ok"] == ["database"]
    assert parts["database"]


def test_a_filter_that_is_passed_by_is_told_and_the_server_is_healthy(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(api, "p")
    held: Any = api.app.catalogue.guard.peers
    monkeypatch.setattr(held._lock, "held", lambda: False)  # another has taken it
    held.check()
    answer = api("GET", "/health")
    assert answer.status_code == 200
    assert answer.json()["filter"].startswith("bypassed")
    absent(api("GET", "/products/absent"), "database")


# --- who may ----------------------------------------------------------------------------------------


def test_scopes_open_what_they_name(tmp_path: Path) -> None:
    """Planted defect: a route that forgets to ask."""
    with Served(tmp_path) as api:
        scopes = ("receive", "send", "admin")
        keys = {scope: key(api, f"{scope}:windlass.products")[0] for scope in scopes}
        keys["stranger"] = key(api, "receive:orders", "send:windlass", "admin:products")[0]
        wanted = {
            ("GET", "/products/p"): "receive",
            ("GET", "/products"): "receive",
            ("GET", "/bloom/stats"): "receive",
            ("POST", "/products"): "send",
            ("PUT", "/products/p"): "send",
            ("POST", "/products:import"): "send",
            ("DELETE", "/products/p"): "admin",
            ("POST", "/bloom/rebuild"): "admin",
        }
        for (method, path), scope in wanted.items():
            body = None if method in ("GET", "DELETE") else ROPE | {"product_id": "p"}
            for name, headers in keys.items():
                answer = api(method, path, body, headers=headers)
                assert (answer.status_code == 403) == (name != scope), (method, path, name, answer.text)
            refused(api(method, path, body), 401, "unauthenticated")


def test_read_only_products_cannot_be_changed(tmp_path: Path) -> None:
    with Served(tmp_path, products_read_only=True) as api:
        refused(api("POST", "/products", ROPE), 403, "catalogue_read_only")
        refused(api("PUT", "/products/p", ROPE), 403, "catalogue_read_only")
        refused(api("DELETE", "/products/p"), 403, "catalogue_read_only")
        refused(api("POST", "/products:import", line("p").encode()), 403, "catalogue_read_only")
        absent(api("GET", "/products/p"), "bloom_filter")


# --- initial ids ------------------------------------------------------------------------------------


def test_initial_ids_are_there_before_the_first_request_without_a_lifespan(tmp_path: Path) -> None:
    """Planted defect: they are loaded by the lifespan, which a test client that is not entered never runs."""
    (tmp_path / initial.FILE).write_bytes(b"\xef\xbb\xbfone\r\n\n  two \n\xc3\xa9\na/b\none")
    with Served(tmp_path) as served:
        client = TestClient(served.app, base_url="http://localhost")
        for product_id in ("one", "two", "é", "a/b"):
            found = client.get(f"/products/{quote(product_id, safe='')}").json()
            wanted = {"product_id": product_id, "name": product_id, "price": 0, "source": "database"}
            assert found == wanted
        absent(client.get("/products/three"), "bloom_filter")
        assert client.get("/bloom/stats").json()["items"] == 4


def test_a_file_is_loaded_once_and_what_has_changed_since_stays(tmp_path: Path) -> None:
    """Planted defect: it is loaded at each start: a deleted product is back, a price is 0 again."""
    (tmp_path / initial.FILE).write_text("one\ntwo\n")
    with Served(tmp_path) as api:
        assert api("PUT", "/products/one", {"name": "first", "price": 5}).status_code == 200
        assert api("DELETE", "/products/two").status_code == 204
    with listening() as heard, Served(tmp_path) as api:
        assert api("GET", "/products/one").json()["name"] == "first"
        refused(api("GET", "/products/two"), 404, "product_not_found")
    assert [each for each in heard if each.startswith("INSERT")] == []
    (tmp_path / initial.FILE).write_text("one\ntwo\nthree\n")
    with Served(tmp_path) as api:
        assert api("GET", "/products/one").json()["name"] == "first"
        assert api("GET", "/products/three").status_code == 200


@pytest.mark.parametrize(
    ("content", "word"), [(b"ok\n\0\n", "Line 2"), (b"x" * 2000, "Line 1"), (b"\xff\n", "UTF-8")]
)
def test_a_file_that_is_none_ends_the_start(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "ids").write_bytes(content)
    with (
        Served(tmp_path / "data", products_file=tmp_path / "ids") as api,
        pytest.raises(StartError, match=word),
    ):
        api.app.open()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with (
        Served(tmp_path / "data", products_file=tmp_path / "nothing") as api,
        pytest.raises(StartError, match="nothing"),
    ):
        api.app.open()


def test_a_start_that_fails_can_be_repeated(tmp_path: Path) -> None:
    """Planted defect: the data directory stays locked, or threads of the database stay behind."""
    before = set(threading.enumerate())
    (tmp_path / initial.FILE).write_bytes(b"\0\n")
    with Served(tmp_path) as api:
        with pytest.raises(StartError):
            api.app.open()
        assert set(threading.enumerate()) <= before
        (tmp_path / initial.FILE).write_text("one\n")
        assert api("GET", "/products/one").status_code == 200
