"""The hot route of products in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from windlass.server.catalogue_bodies import FOUND, answer
from windlass.server.queue_docs import operation

_ID = {
    "name": "product_id",
    "in": "path",
    "required": True,
    "description": "A product's id; slashes may be in it.",
    "schema": {"type": "string"},
    "example": "rope-30",
}


def paths() -> dict[str, dict[str, Any]]:
    """The hot routes by path and method."""
    found = answer("The product, and who knew it.", FOUND)
    return {
        "/products/{product_id}": {
            "get": operation("get_product", "A product", [_ID], {"200": found}, tag="products")
        }
    }
