"""Products as the server tells of them, and what it says of their filter: plain values."""

from __future__ import annotations

from decimal import Decimal

import msgspec


class Product(msgspec.Struct, frozen=True):
    """A product. `price` is exact. `source`: who knew it, where one was looked up: cache or database."""

    product_id: str
    name: str
    price: Decimal
    source: str | None = None


class ProductPage(msgspec.Struct, frozen=True):
    """Some products by their ids; `next`: ask for those after it, None where that was all."""

    products: list[Product]
    next: str | None = None


class Imported(msgspec.Struct, frozen=True):
    """What came of an import: products written, and how many of them were new."""

    written: int = 0
    created: int = 0


class FilterStats(msgspec.Struct, frozen=True, kw_only=True):
    """The filter in front of the products. `bits` and `bits_set` are of all layers, `hashes` of the first."""

    expected_items: int
    target_false_positive_rate: float
    bits: int
    hashes: int
    items: int
    bits_set: int
    fill_ratio: float
    estimated_false_positive_rate: float
    memory_bytes: int
    layers: int
    state_key: str
    deletions: int = 0
    rebuilding: float | None = None
    rebuild_failed: str | None = None


class LookupMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Look-ups of products since the server's start, by who answered them."""

    requests: int
    bloom_filter: int
    negative_cache: int
    cache: int
    database: int
    database_calls: int
    database_roundtrips_saved: int
    roundtrip_reduction: float
    cache_entries: int = 0
    cache_bytes: int = 0
    negative_entries: int = 0
    negative_bytes: int = 0
