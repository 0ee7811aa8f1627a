"""/metrics: what look-ups cost, as JSON for people and as Prometheus has it for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from windlass.catalogue.service import Catalogue
from windlass.server.models import Metrics
from windlass.server.queue_admin import no_other_parameters, only

_SOURCES = ("bloom_filter", "negative_cache", "cache", "database")
_TEXTS = ("text/plain", "application/openmetrics-text")
_TEXT: dict[str, Any] = {"schema": {"type": "string"}}


def router(catalogue: Catalogue) -> APIRouter:
    """The route, bound to one catalogue."""
    api = APIRouter(tags=["status"], dependencies=[Depends(no_other_parameters)])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(catalogue))

    @api.get(
        "/metrics",
        response_model=Metrics,
        responses={200: {"content": dict.fromkeys(_TEXTS, _TEXT)}, **only()},
    )
    async def metrics(request: Request) -> Response | Metrics:
        """Look-ups of products, by who answered them; as text where `Accept` prefers Prometheus's."""
        accept = ", ".join(request.headers.getlist("accept"))
        if prefers_text(accept):
            encode, content_type = choose_encoder(accept)
            return Response(encode(registry), headers={"content-type": content_type})
        return measured(catalogue)

    return api


def measured(catalogue: Catalogue) -> Metrics:
    """The counts as they are now."""
    counts = catalogue.guard.counts()
    return Metrics(
        **asdict(counts),
        database_roundtrips_saved=counts.database_roundtrips_saved,
        roundtrip_reduction=counts.roundtrip_reduction,
        **catalogue.guard.sizes(),
    )


def prefers_text(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) likes text better than JSON.

    Where both are liked as much it is JSON; but what is named itself counts before what a star names.
    """
    text = json = (0, 0.0)
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = _quality(parameters)
        exact = 0 if kind == "*/*" else 1 if kind.endswith("/*") else 2
        if kind in (*_TEXTS, "text/*"):
            text = max(text, (exact, quality))
        elif kind in ("application/json", "application/*", "*/*"):
            json = max(json, (exact, quality))
    return text[1] > 0 and text[::-1] > json[::-1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class _Families(Collector):
    """The same numbers as Prometheus has them, made when they are asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def collect(self) -> Iterator[Metric]:
        now = measured(self._catalogue)
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
        stats = self._catalogue.stats()
        for name, text in (
            ("items", "Ids in the filter."),
            ("bits", "Bits of the filter."),
            ("layers", "Layers of the filter."),
            ("fill_ratio", "The part of the filter's bits that are set."),
            ("estimated_false_positive_rate", "How often an absent id passes, as estimated."),
        ):
            yield GaugeMetricFamily(f"windlass_product_filter_{name}", text, value=getattr(stats, name))
