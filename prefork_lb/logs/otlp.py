"""Spans to an OpenTelemetry collector, by OTLP over HTTP. It loads the packages of the extra `otel`: import it when needed."""
from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from prefork_lb import __version__
from prefork_lb.logs.spans import Export, Span

_SCOPE = InstrumentationScope("prefork_lb", __version__)
_TIMEOUT_S = 5.0


def make_export(url: str, service: str) -> Export:
    """The function that sends spans to the collector at `url`, such as http://127.0.0.1:4318.

    The process that calls this sends: it must not fork later. The exporter's variables of the environment count, too
    (`OTEL_EXPORTER_OTLP_HEADERS` and so on; `OTEL_RESOURCE_ATTRIBUTES`).
    """
    # It tells each failure; `SpanLog` tells the first one.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces", timeout=_TIMEOUT_S)
    resource = Resource.create({"service.name": service, "service.version": __version__, "process.pid": os.getpid()})

    def export(spans: Sequence[Span]) -> bool:
        return exporter.export([_readable(span, resource) for span in spans]) is SpanExportResult.SUCCESS

    return export


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    parent = _context(span.trace_id, span.parent_id, is_remote=not span.is_client) if span.parent_id else None
    return ReadableSpan(
        span.name, _context(span.trace_id, span.span_id, is_remote=False), parent, resource, span.attributes,
        kind=SpanKind.CLIENT if span.is_client else SpanKind.SERVER,
        status=Status(StatusCode.ERROR, span.error) if span.error is not None else Status(StatusCode.UNSET),
        start_time=span.begun, end_time=span.ended, instrumentation_scope=_SCOPE)


def _context(trace_id: str, span_id: str, is_remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(TraceFlags.SAMPLED))
