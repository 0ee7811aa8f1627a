"""Products over plain HTTP.

To look one up is a route of the lean lane (lane.py), described by catalogue_docs.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from windlass.catalogue.product import MAX_ID_BYTES, Product, may_be_an_id
from windlass.catalogue.service import Catalogue
from windlass.errors import CatalogueReadOnly, Invalid, ProductNotFound
from windlass.guard.guard import Answer as Found
from windlass.server.auth import ADMIN, RECEIVE, SEND, Principal
from windlass.server.catalogue_bodies import (
    IMPORT_BODY,
    IMPORTED,
    NEW_BODY,
    PAGE,
    PRODUCT,
    PUT_BODY,
    answer,
    json_of,
    parse_body,
    parse_new,
)
from windlass.server.catalogue_import import MAX_IMPORT, Csv, Import, Ndjson
from windlass.server.lane import Answer, Begun, Handler
from windlass.server.lane import Request as HotRequest
from windlass.server.models import FilterStats
from windlass.server.queue_admin import Caller, no_other_parameters, only

PRODUCTS = "windlass.products"
"""What scopes call the products: `receive:` may look, `send:` add and change, `admin:` delete."""
_IMPORT = "/products:import"

_encode = msgspec.json.Encoder().encode


class _AnyText(PathConvertor):
    """All the rest of a path. Starlette's own `path` ends at a newline, and an id may have one."""

    regex = r"[\s\S]*"


register_url_convertor("product", _AnyText())


class CatalogueApi:
    """The hot route."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._guard = catalogue.guard
        self.routes: dict[tuple[str, str], Handler] = {("GET", "/products/{product_id:path}"): self.get}
        """(method, path) -> handler."""

    def get(self, request: HotRequest) -> Begun:
        request.principal.demand(RECEIVE, PRODUCTS)
        if request.query:
            raise Invalid("This route takes no parameters in the URL.", field="query")
        product_id = product_id_of(request.where, request.path)
        found = self._guard.remembered(product_id)
        if found is not None:
            return None, partial(_found, found)
        return asyncio.ensure_future(self._guard.ask(product_id)), partial(_found)


def _found(found: Found[Product], _: object = None) -> Answer:
    if found.value is None:
        raise ProductNotFound(found.source)
    return 200, b'%b,"source":"%b"}' % (json_of(found.value)[:-1], found.source.encode())


def product_id_of(where: Mapping[str, Any], path: str) -> str:
    """The id in a path. What is no UTF-8 there becomes an id that no product has."""
    raw = where.get("raw_path")
    if raw is None or b"%" not in raw:
        return path.split("/", 2)[2]
    return unquote_to_bytes(raw).split(b"/", 2)[2].decode("utf-8", "surrogateescape")


def _product_id(
    request: Request,
    product_id: Annotated[  # noqa: ARG001 - for the description: it has lost what is no UTF-8
        str, Path(description="A product's id; slashes may be in it.", examples=["rope-30"])
    ],
) -> str:
    return product_id_of(request.scope, request.scope["path"])


ProductId = Annotated[str, Depends(_product_id)]


def upload_limit(method: str, path: str) -> int | None:
    """Bytes of a body that its route reads as it arrives; None for all others, which are read first."""
    return MAX_IMPORT if method == "POST" and path == _IMPORT else None


def judges_its_body(path: str) -> bool:
    """True for the routes that look at their JSON themselves: a price may be a number that no float holds."""
    return path == "/products" or path.startswith("/products/")


def router(catalogue: Catalogue, *, read_only: bool = False) -> APIRouter:
    """The other routes, bound to one catalogue."""
    api = APIRouter(tags=["products"], dependencies=[Depends(no_other_parameters)])

    def demand(caller: Principal, action: str) -> None:
        """Raise Forbidden where this caller, or anybody, may not change the products."""
        caller.demand(action, PRODUCTS)
        if read_only:
            raise CatalogueReadOnly("The products are read-only here: products_read_only is set.")

    @api.post(
        "/products",
        status_code=201,
        openapi_extra=NEW_BODY,
        responses={201: answer("Every server finds it from now on.", PRODUCT), **only(409)},
    )
    async def create_product(request: Request, caller: Caller) -> Response:
        """Add a product."""
        demand(caller, SEND)
        product = parse_new(await request.body())
        await catalogue.insert(product)
        return _json(json_of(product), 201)

    @api.put(
        "/products/{product_id:product}",
        openapi_extra=PUT_BODY,
        responses={200: answer("Changed.", PRODUCT), 201: answer("Added.", PRODUCT), **only()},
    )
    async def put_product(product_id: ProductId, request: Request, caller: Caller) -> Response:
        """Add a product, or change it."""
        demand(caller, SEND)
        product = parse_body(product_id, await request.body())
        return _json(json_of(product), 201 if await catalogue.put([product]) else 200)

    @api.delete("/products/{product_id:product}", status_code=204, responses=only(404))
    async def delete_product(product_id: ProductId, caller: Caller) -> Response:
        """Take a product away."""
        demand(caller, ADMIN)
        if not await catalogue.delete(product_id):
            raise ProductNotFound
        return Response(status_code=204)

    @api.get("/products", responses={200: answer("A page.", PAGE), **only()})
    async def list_products(
        caller: Caller,
        after: Annotated[str, Query(max_length=MAX_ID_BYTES)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """Products in the order of their ids, a page at a time."""
        caller.demand(RECEIVE, PRODUCTS)
        if after and not may_be_an_id(after):
            raise Invalid("No product has such an id.", field="after")
        found = await catalogue.page(after, limit + 1)
        last = _encode(found[limit - 1].product_id) if len(found) > limit else b"null"
        return _json(b'{"products":[%b],"next":%b}' % (b",".join(map(json_of, found[:limit])), last))

    @api.post(
        _IMPORT,
        status_code=200,
        openapi_extra=IMPORT_BODY,
        responses={200: answer("All of them are there.", IMPORTED), **only(408, 413)},
    )
    async def import_products(request: Request, caller: Caller) -> Response:
        """Add and change many products: a line of JSON each, or CSV. They are written as they arrive."""
        demand(caller, SEND)
        is_csv = request.headers.get("content-type", "").lower().startswith("text/csv")
        work = Import(catalogue, Csv() if is_csv else Ndjson())
        await work.run(request.stream())
        return _json(_encode({"written": work.written, "created": work.created}))

    @api.get("/bloom/stats", responses=only())
    async def filter_stats(caller: Caller) -> FilterStats:
        """What the filter is, and how full."""
        caller.demand(RECEIVE, PRODUCTS)
        return FilterStats(**asdict(catalogue.stats()))

    @api.post("/bloom/rebuild", status_code=202, responses=only())
    async def rebuild_filter(caller: Caller) -> FilterStats:
        """Make the filter anew, beside the one in use; `GET /bloom/stats` tells how far it is."""
        caller.demand(ADMIN, PRODUCTS)
        catalogue.begin_rebuild()
        return FilterStats(**asdict(catalogue.stats()))

    return api


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
