"""What the client says of products, blocking and with asyncio, and how it reads the answers."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.unit.client.script import Script, ok, problem
from windlass.client import Product, Retry, errors
from windlass.client.product_calls import MAX_BATCH

ROPE = '{"product_id":"rope-30","name":"Rope, 30 m","price":19.90}'
FOUND = ROPE[:-1] + ',"source":"cache"}'
PRODUCT = Product("rope-30", "Rope, 30 m", Decimal("19.90"))


def said(text: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=text)


def test_a_price_keeps_its_digits_both_ways() -> None:
    """Planted defect: a float on its way, or text where the server wants a number."""
    exact = "123456789012.345678"
    script = Script(said(FOUND.replace("19.90", exact)), said(ROPE, 201))
    with script.client() as client:
        found = client.products.get("rope-30")
        assert (str(found.price), found.source) == (exact, "cache")
        client.products.create("rope-30", "Rope, 30 m", Decimal(exact))
    assert script.requests[1].content == (
        b'{"product_id":"rope-30","name":"Rope, 30 m","price":123456789012.345678}'
    )


def test_ids_are_quoted() -> None:
    script = Script(said(FOUND), said(ROPE, 201), ok())
    with script.client() as client:
        client.products.get("a/b c?d%")
        client.products.put("é", "n", 1)
        client.products.delete("\U0001f600")
    assert script.asked == [
        "GET /products/a%2Fb%20c%3Fd%25",
        "PUT /products/%C3%A9",
        "DELETE /products/%F0%9F%98%80",
    ]


@pytest.mark.parametrize("product_id", ["", ".", "..", "\ud800", 7])
def test_an_id_that_would_change_the_path_is_not_sent(product_id: Any) -> None:
    with Script().client() as client, pytest.raises(errors.NotSent):
        client.products.get(product_id)


@pytest.mark.parametrize("price", [Decimal("NaN"), Decimal("Infinity"), 0.1, "1"])
def test_a_price_that_is_none_is_not_sent(price: Any) -> None:
    with Script().client() as client, pytest.raises(errors.NotSent):
        client.products.put_many([Product("p", "n", price)])


def test_absence_says_who_knew() -> None:
    document = {"status": 404, "code": "product_not_found", "detail": "no", "source": "bloom_filter"}
    script = Script(httpx.Response(404, json=document))
    with script.client() as client, pytest.raises(errors.ProductNotFound) as caught:
        client.products.get("absent")
    assert caught.value.source == "bloom_filter"


def test_a_create_is_never_repeated_and_a_delete_is() -> None:
    """Planted defect: a repeated create, told that it exists, passes for done: it may be somebody else's."""
    script = Script(httpx.ReadError("gone"))
    with script.client() as client, pytest.raises(errors.AnswerLost):
        client.products.create("p", "n", 1)
    script = Script(httpx.ReadError("gone"), problem(404, "product_not_found"))
    with script.client() as client:
        client.products.delete("p")
    with Script(problem(409, "product_exists")).client() as client, pytest.raises(errors.ProductExists):
        client.products.create("p", "n", 1)


def test_all_products_come_page_by_page() -> None:
    pages = [
        '{"products":[' + ROPE + '],"next":"a&b"}',
        '{"products":[' + ROPE.replace("rope-30", "z") + '],"next":null}',
    ]
    script = Script(*map(said, pages))
    with script.client() as client:
        assert [each.product_id for each in client.products] == ["rope-30", "z"]
    assert script.asked == ["GET /products?limit=1000", "GET /products?limit=1000&after=a%26b"]


def test_many_go_out_in_batches_that_may_be_repeated() -> None:
    script = Script(
        ok({"written": MAX_BATCH, "created": 7}), httpx.ReadError("gone"), ok({"written": 1, "created": 1})
    )
    with script.client() as client:
        done = client.products.put_many(Product(f"p{n}", "n", Decimal(n)) for n in range(MAX_BATCH + 1))
    assert (done.written, done.created) == (MAX_BATCH + 1, 8)
    assert script.asked == ["POST /products:import"] * 3
    assert script.requests[0].content.count(b"\n") == MAX_BATCH - 1
    assert script.requests[2].content == b'{"product_id":"p1000","name":"n","price":1000}'


def test_an_import_that_ends_early_says_what_is_written() -> None:
    """Planted defect: only the last batch is counted."""
    document = {"status": 422, "code": "invalid", "detail": "Line 5: no", "line": 5, "written": 4}
    script = Script(ok({"written": MAX_BATCH, "created": 0}), httpx.Response(422, json=document))
    with script.client() as client, pytest.raises(errors.InvalidRequest) as caught:
        client.products.put_many([PRODUCT] * (MAX_BATCH + 10))
    assert (caught.value.line, caught.value.written) == (5, MAX_BATCH + 4)


def test_the_asynchronous_client_says_the_same() -> None:
    page = '{"products":[' + ROPE + '],"next":null}'
    stats = dict.fromkeys(("expected_items", "bits", "hashes", "items", "bits_set", "layers"), 1)
    stats |= dict.fromkeys(("memory_bytes", "fill_ratio", "target_false_positive_rate"), 1)
    about = stats | {"estimated_false_positive_rate": 0, "state_key": "bloom:filter"}
    counts = dict.fromkeys(("requests", "bloom_filter", "negative_cache", "cache", "database"), 1)
    metrics = counts | {"database_calls": 1, "database_roundtrips_saved": 0, "roundtrip_reduction": 0.0}

    def steps() -> list[httpx.Response]:  # a response is good for one client
        return [
            said(FOUND), said(ROPE, 201), said(ROPE), ok({"written": 1, "created": 1}), said(page),
            said(page), ok(about), ok(about), ok(metrics), ok(),
        ]  # fmt: skip

    async def scenario(script: Script) -> list[Any]:
        async with script.async_client() as client:
            products = client.products
            found = [
                await products.get("rope-30"),
                await products.create("rope-30", "n", 1),
                await products.put("rope-30", "n", 1),
                await products.put_many([PRODUCT]),
                await products.page("a", 5),
                [each async for each in products],
                await products.stats(),
                await products.rebuild(),
                await products.metrics(),
            ]
            await products.delete("rope-30")
            return found

    script, blocking = Script(*steps()), Script(*steps())
    results = asyncio.run(scenario(script))
    with blocking.client(Retry(limit=0)) as client:
        products = client.products
        assert results == [
            products.get("rope-30"),
            products.create("rope-30", "n", 1),
            products.put("rope-30", "n", 1),
            products.put_many([PRODUCT]),
            products.page("a", 5),
            list(products),
            products.stats(),
            products.rebuild(),
            products.metrics(),
        ]
        products.delete("rope-30")
    assert script.asked == blocking.asked
