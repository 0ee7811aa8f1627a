"""A product, and what may be one."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation

from windlass.errors import Invalid

MAX_ID_BYTES = 1024
"""In UTF-8: what an index of PostgreSQL takes for certain."""
MAX_NAME = 1000
"""Characters."""
DIGITS, PLACES = 18, 6
"""Decimal digits of a price, and how many of them are after the point."""

_UNIT = Decimal(1).scaleb(-PLACES)
_BELOW = Decimal(10) ** (DIGITS - PLACES)
_EXACT = Context(prec=DIGITS, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True, slots=True)
class Product:
    """What is sold. `price` is exact, from 0 to below 10^12, with up to six decimal places."""

    product_id: str
    name: str
    price: Decimal


def may_be_an_id(text: str) -> bool:
    """Whether a product can have this id at all: 1 to 1024 bytes of UTF-8, none of them NUL."""
    try:
        return 0 < len(text.encode()) <= MAX_ID_BYTES and "\0" not in text
    except UnicodeEncodeError:  # a lone surrogate
        return False


def product(product_id: str, name: str, price: Decimal | int) -> Product:
    """A product of these values. Raises Invalid, naming the field."""
    if not may_be_an_id(product_id):
        raise Invalid(
            f"product_id must be 1 to {MAX_ID_BYTES} bytes of UTF-8, without NUL.", field="product_id"
        )
    if not 0 < len(name) <= MAX_NAME or "\0" in name or not _is_unicode(name):
        raise Invalid(f"name must be 1 to {MAX_NAME} characters of Unicode, without NUL.", field="name")
    return Product(product_id, name, _price(price))


def price_text(price: Decimal) -> str:
    """A price as JSON writes it: the shortest decimal form, never with an exponent."""
    text = format(price, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _price(price: Decimal | int) -> Decimal:
    value = Decimal(price)
    if not (value.is_finite() and 0 <= value < _BELOW):
        raise Invalid("price must be from 0 to below 10^12.", field="price")
    try:
        value = abs(value.quantize(_UNIT, context=_EXACT))  # there is a -0, too
    except (Inexact, InvalidOperation):  # the latter where rounding would make it too large
        raise Invalid(f"price must have at most {PLACES} decimal places.", field="price") from None
    return Decimal(price_text(value))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
