"""What cannot work in `[tracing]`."""
from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.tracing import TracingConfig
from prefork_lb.errors import shown


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
