"""The counts of /metrics as Prometheus has them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from windlass.guard.bloom import Stats
from windlass.server.models import Metrics

_SOURCES = ("bloom_filter", "negative_cache", "cache", "database")


def exposed(now: Metrics, stats: Stats, accept: str) -> tuple[bytes, str]:
    """(text, its content type) in the form that an Accept header likes best."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(now, stats))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families(Collector):
    def __init__(self, now: Metrics, stats: Stats) -> None:
        self._now, self._stats = now, stats

    def collect(self) -> Iterator[Metric]:
        now = self._now
        yield CounterMetricFamily("windlass_product_lookups", "Look-ups of products.", value=now.requests)
        answers = CounterMetricFamily(
            "windlass_product_answers", "Look-ups of products by who answered.", labels=["source"]
        )
        for source in _SOURCES:
            answers.add_metric([source], getattr(now, source))
        yield answers
        yield CounterMetricFamily(
            "windlass_product_database_calls", "Look-ups that reached the database.", value=now.database_calls
        )
        for name, text in (
            ("cache_entries", "Products that are remembered."),
            ("cache_bytes", "Memory of those."),
            ("negative_entries", "Absent ids that are remembered."),
            ("negative_bytes", "Memory of those."),
        ):
            yield GaugeMetricFamily(f"windlass_product_{name}", text, value=getattr(now, name))
        for name, text in (
            ("items", "Ids in the filter."),
            ("bits", "Bits of the filter."),
            ("layers", "Layers of the filter."),
            ("fill_ratio", "The part of the filter's bits that are set."),
            ("estimated_false_positive_rate", "How often an absent id passes, as estimated."),
        ):
            yield GaugeMetricFamily(f"windlass_product_filter_{name}", text, value=getattr(self._stats, name))
