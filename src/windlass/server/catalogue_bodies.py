"""Products over plain HTTP: the shapes of bodies and answers, and how `/openapi.json` tells of them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec

from windlass.catalogue.product import DIGITS, MAX_ID_BYTES, MAX_NAME, PLACES, Product, price_text, product
from windlass.errors import Invalid
from windlass.server.body import check_text, decode

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST = 100
"""Characters of a price. More than its digits, as nobody forbids zeros."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Price = Annotated[
    msgspec.Raw,  # its text, as a float would not be what was sent
    msgspec.Meta(
        description=f"Exact; up to {PLACES} decimal places.",
        extra_json_schema={"type": "number", "minimum": 0, "exclusiveMaximum": 10 ** (DIGITS - PLACES)},
    ),
]


class NewProduct(msgspec.Struct, forbid_unknown_fields=True):
    """A product."""

    product_id: Id
    name: Name
    price: Price


class ProductBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a product is to be; its id is in the path, and may be here, too."""

    name: Name
    price: Price
    product_id: Id | None = None


TYPES = (NewProduct, ProductBody)

_new = msgspec.json.Decoder(NewProduct)
_body = msgspec.json.Decoder(ProductBody)
_encode = msgspec.json.Encoder().encode


def parse_new(body: bytes) -> Product:
    """A product from JSON of any origin. Raises BrokenJson, Invalid."""
    check_text(body)
    new = decode(_new, body)
    return product(new.product_id, new.name, parse_price(bytes(new.price).decode()))


def parse_body(product_id: str, body: bytes) -> Product:
    """The product of this id. Raises BrokenJson, Invalid."""
    check_text(body)
    wanted = decode(_body, body)
    if wanted.product_id not in (None, product_id):
        raise Invalid("The path names another product.", field="product_id")
    return product(product_id, wanted.name, parse_price(bytes(wanted.price).decode()))


def parse_price(text: str) -> Decimal:
    """The number that is written there; `product` looks at its size. Raises Invalid."""
    if not _NUMBER.fullmatch(text):
        raise Invalid("price must be a number.", field="price")
    if len(text) > _LONGEST:
        raise Invalid(f"price must have at most {_LONGEST} characters.", field="price")
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        raise Invalid("price must be from 0 to below 10^12.", field="price") from None


def json_of(known: Product) -> bytes:
    """A product as JSON, its price a number of all its digits."""
    return b'{"product_id":%b,"name":%b,"price":%b}' % (
        _encode(known.product_id),
        _encode(known.name),
        price_text(known.price).encode(),
    )


# --- the description ----------------------------------------------------------------------------------

_EXAMPLE = {"product_id": "rope-30", "name": "Rope, 30 m", "price": 19.9}
_PROPERTIES: dict[str, Any] = {
    "product_id": {"type": "string"},
    "name": {"type": "string"},
    "price": {"type": "number", "minimum": 0, "description": "Read it as a decimal number, not as a float."},
}
PRODUCT: dict[str, Any] = {
    "type": "object",
    "required": list(_PROPERTIES),
    "properties": _PROPERTIES,
    "example": _EXAMPLE,
}
FOUND: dict[str, Any] = {
    "type": "object",
    "required": [*_PROPERTIES, "source"],
    "properties": _PROPERTIES | {"source": {"enum": ["cache", "database"], "description": "Who knew."}},
    "example": _EXAMPLE | {"source": "cache"},
}
PAGE: dict[str, Any] = {
    "type": "object",
    "required": ["products", "next"],
    "properties": {
        "products": {"type": "array", "items": PRODUCT},
        "next": {
            "type": ["string", "null"],
            "description": "Ask again with after=next; null: that was all.",
        },
    },
}
IMPORTED: dict[str, Any] = {
    "type": "object",
    "required": ["written", "created"],
    "properties": {
        "written": {"type": "integer", "description": "Products."},
        "created": {"type": "integer", "description": "Those of them that were not there."},
    },
    "example": {"written": 1000, "created": 12},
}


def answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An answer in JSON, for FastAPI's `responses`."""
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _json_body(kind: type, example: dict[str, Any]) -> dict[str, Any]:
    media = {
        "schema": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": {"rope": {"value": example}},
    }
    return {"requestBody": {"required": True, "content": {"application/json": media}}}


NEW_BODY = _json_body(NewProduct, _EXAMPLE)
PUT_BODY = _json_body(ProductBody, {"name": "Rope, 30 m", "price": 17.5})
IMPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "A product a line, as in POST /products."},
                "example": '{"product_id": "rope-30", "name": "Rope, 30 m", "price": 19.9}\n',
            },
            "text/csv": {
                "schema": {"type": "string", "description": "With a header: product_id,name,price."},
                "example": 'product_id,name,price\nrope-30,"Rope, 30 m",19.9\n',
            },
        },
    }
}
