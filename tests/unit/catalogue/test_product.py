"""What may be a product, and that its price is exact."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.catalogue.product import may_be_an_id, price_text, product
from windlass.errors import Invalid

prices = st.decimals(0, Decimal("999999999999.999999"), places=6) | st.integers(0, 10**12 - 1)


@pytest.mark.parametrize(
    "good", ["a", "a/b", " ", "%2F", "\n", "\U0001f600", "x" * 1024, "é" * 512, ".", "\ufffe"]
)
def test_ids_that_may_be(good: str) -> None:
    assert may_be_an_id(good)
    assert product(good, "n", 1).product_id == good


@pytest.mark.parametrize("bad", ["", "\0", "a\0b", "\ud83d", "x" * 1025, "é" * 513, "x" * 10_000])
def test_ids_that_may_not_be(bad: str) -> None:
    assert not may_be_an_id(bad)
    with pytest.raises(Invalid) as refused:
        product(bad, "n", 1)
    assert refused.value.field == "product_id"


@pytest.mark.parametrize("bad", ["", "x" * 1001, "a\0", "\ude00"])
def test_names_that_may_not_be(bad: str) -> None:
    with pytest.raises(Invalid) as refused:
        product("a", bad, 1)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    "bad",
    [
        *(-1, 10**12, 10**400, Decimal("-0.000001"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")),
        *(
            Decimal("-Infinity"),
            Decimal("1E+400"),
            Decimal("1E+999999999"),
            Decimal("1E-7"),
            Decimal("1E-999999"),
        ),
        *(Decimal("0.1234567"), Decimal("999999999999.9999999"), Decimal("1." + "0" * 99 + "1")),
    ],
)
def test_prices_that_may_not_be(bad: Any) -> None:
    """Planted defect: rounding instead of refusing (no trap for Inexact)."""
    with pytest.raises(Invalid) as refused:
        product("a", "n", bad)
    assert refused.value.field == "price"


@pytest.mark.parametrize(
    ("given_price", "text"),
    [
        *((0, "0"), (Decimal("-0"), "0"), (Decimal("0E-9"), "0"), (100, "100"), (Decimal("1E+2"), "100")),
        *((Decimal("19.90"), "19.9"), (Decimal("0.000001"), "0.000001"), (Decimal("1.0000000000000"), "1")),
        (Decimal("999999999999.999999"), "999999999999.999999"),
    ],
)
def test_prices_have_one_form(given_price: Any, text: str) -> None:
    assert price_text(product("a", "n", given_price).price) == text


@given(prices)
def test_no_price_drifts(price: Decimal | int) -> None:
    """Planted defect: a float on the way: 999999999999.999999 becomes 10^12."""
    kept = product("a", "n", price).price
    assert kept == price
    assert Decimal(price_text(kept)) == price
    assert msgspec.json.decode(price_text(kept).encode(), type=Decimal) == price
