"""The section `[tracing]`: where spans are sent to."""
from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.section import Section, meta
from prefork_lb.errors import shown


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


def check_tracing(tracing: TracingConfig, report: ReportProblem) -> None:
    """Report what cannot work in the section."""
    if not tracing.otlp:
        return
    try:
        url = urlsplit(tracing.otlp)
        is_good = url.scheme in ("http", "https") and bool(url.hostname) and not url.query and url.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        report(("tracing", "otlp"), f"{shown(tracing.otlp)} is no address of a collector; expected http://HOST:4318")
    elif not _has_extra():
        report(("tracing", "otlp"), "spans need OpenTelemetry's packages; install prefork_lb[otel]")


def _has_extra() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None and find_spec("opentelemetry.sdk") is not None
    except ImportError:
        return False
