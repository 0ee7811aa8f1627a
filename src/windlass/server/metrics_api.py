"""/metrics: what look-ups cost, as JSON for people and as Prometheus has it for Prometheus."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from windlass.catalogue.service import Catalogue
from windlass.server.models import Metrics
from windlass.server.queue_admin import no_other_parameters, only

_TEXTS = ("text/plain", "application/openmetrics-text")
_TEXT: dict[str, Any] = {"schema": {"type": "string"}}


def router(catalogue: Catalogue) -> APIRouter:
    """The route, bound to one catalogue."""
    api = APIRouter(tags=["status"], dependencies=[Depends(no_other_parameters)])

    @api.get(
        "/metrics",
        response_model=Metrics,
        responses={200: {"content": dict.fromkeys(_TEXTS, _TEXT)}, **only()},
    )
    async def metrics(request: Request) -> Response | Metrics:
        """Look-ups of products, by who answered them; as text where `Accept` prefers Prometheus's."""
        accept = ", ".join(request.headers.getlist("accept"))
        if prefers_text(accept):
            from windlass.server import prometheus  # here, as a start does without

            text, content_type = prometheus.exposed(measured(catalogue), catalogue.stats(), accept)
            return Response(text, headers={"content-type": content_type})
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
