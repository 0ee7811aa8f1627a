"""The requests for products; as in calls.py, without any IO.

looking                  may be repeated
put, import              yes: the second time changes nothing
create                   never: "it exists" on a repeat may be somebody else's
delete                   yes: "not there" on a repeat means that the first one did it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from windlass.client.call import Call, Plan, nothing, reader
from windlass.client.errors import NotSent, WindlassError
from windlass.client.product_values import FilterStats, Imported, LookupMetrics, Product, ProductPage

MAX_BATCH = 1000
"""Products in one request of an import: seconds for a slow database."""
_SECONDS = 0.01
"""What a slow database needs for one of them."""

_encoder = msgspec.json.Encoder(decimal_format="number")


def get(product_id: str) -> Call[Product]:
    return Call(method="GET", path=_path(product_id), parse=reader(Product), repeatable=True)


def create(product: Product) -> Call[Product]:
    return Call(method="POST", path="/products", body=to_json(product), parse=reader(Product))


def put(product: Product) -> Call[Product]:
    return Call(
        method="PUT",
        path=_path(product.product_id),
        body=to_json(product),
        parse=reader(Product),
        repeatable=True,
    )


def delete(product_id: str) -> Call[None]:
    return Call(
        method="DELETE",
        path=_path(product_id),
        parse=nothing,
        repeatable=True,
        done_on_repeat=frozenset({"product_not_found"}),
    )


def page(after: str, limit: int) -> Call[ProductPage]:
    query = {"limit": str(limit)} | ({"after": after} if after else {})
    return Call(method="GET", path="/products", query=query, parse=reader(ProductPage), repeatable=True)


def put_batch(lines: Sequence[str]) -> Call[Imported]:
    """`lines`: products as JSON, at most MAX_BATCH; one that is empty stands for nothing."""
    return Call(
        method="POST",
        path="/products:import",
        body="\n".join(lines),
        parse=reader(Imported),
        repeatable=True,
        hold=len(lines) * _SECONDS,
    )


def put_many(products: Iterable[Product]) -> Plan[Imported]:
    """Import in batches; when one fails, the error's `written` tells how many products are there."""
    written = created = 0
    batch: list[str] = []
    try:
        for product in products:
            batch.append(to_json(product))
            if len(batch) == MAX_BATCH:
                done: Imported = yield put_batch(batch)
                written, created, batch = written + done.written, created + done.created, []
        if batch:
            done = yield put_batch(batch)
            written, created = written + done.written, created + done.created
    except WindlassError as error:
        error.written += written
        raise
    return Imported(written, created)


def stats() -> Call[FilterStats]:
    return Call(method="GET", path="/bloom/stats", parse=reader(FilterStats), repeatable=True)


def rebuild() -> Call[FilterStats]:
    return Call(method="POST", path="/bloom/rebuild", parse=reader(FilterStats), repeatable=True)


def metrics() -> Call[LookupMetrics]:
    return Call(method="GET", path="/metrics", parse=reader(LookupMetrics), repeatable=True)


def to_json(product: Product) -> str:
    """A product as the server takes it, its price a number of all its digits. NotSent where it has none."""
    price: Any = product.price
    if not isinstance(price, Decimal | int) or not Decimal(price).is_finite():
        raise NotSent(f"the price of {product.product_id!r} is no number: use a Decimal, not {price!r}")
    try:
        body = {"product_id": product.product_id, "name": product.name, "price": price}
        return _encoder.encode(body).decode()
    except (TypeError, ValueError) as error:
        raise NotSent(f"this product is not JSON: {error}") from error


def _path(product_id: str) -> str:
    if not isinstance(product_id, str) or not product_id.strip("."):
        raise NotSent(f"{product_id!r} cannot be a product's id in a path")
    try:
        return f"/products/{quote(product_id, safe='')}"
    except UnicodeEncodeError as error:
        raise NotSent(f"{product_id!r} cannot be a product's id: {error.reason}") from error
