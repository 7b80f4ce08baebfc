"""The section `[tracing]`: where spans are sent to."""
from __future__ import annotations

from typing import Annotated

from prefork_lb.config.section import Section, meta


class TracingConfig(Section, frozen=True):
    """Spans of OpenTelemetry, by the extra `prefork_lb[otel]`; see [logs.md](logs.md#spans). With it each request has a
    traceparent and an X-Request-ID, as `proxy.request_id` says."""

    otlp: Annotated[str, meta(
        'A collector that takes OTLP over HTTP: "http://127.0.0.1:4318". None: there are no spans.'
    )] = ""
    sample: Annotated[float, meta(
        "Share of requests that have spans. Where a trusted proxy tells a trace, its own decision counts.", ge=0, le=1
    )] = 1.0
    service: Annotated[str, meta("`service.name` of the spans.", min_length=1, max_length=255)] = "prefork_lb"
