"""A worker's access log and its spans, by the configuration."""
from __future__ import annotations

import atexit

from prefork_lb.config.log import LogConfig
from prefork_lb.config.tracing import TracingConfig
from prefork_lb.logs.lines import make_format
from prefork_lb.logs.sinks import make_sink
from prefork_lb.logs.spans import SpanLog
from prefork_lb.logs.writer import AccessLog
from prefork_lb.wiring import host


def make_span_log(config: TracingConfig) -> SpanLog | None:
    """The spans of this process, which ends with it; None: there are none."""
    if not config.otlp:
        return None
    from prefork_lb.logs.otlp import make_export  # loads OpenTelemetry's packages

    made = SpanLog(config.otlp, make_export(config.otlp, config.service))
    atexit.register(made.close)
    return made


def make_access_log(config: LogConfig) -> AccessLog | None:
    """The access log of this process, which ends with it; None: there is none."""
    if not config.access:
        return None
    made = AccessLog(config.access, make_format(config.format, config.request_fields, config.response_fields),
                     make_sink(config.access), config.sample)
    host.on_reopen(made.reopen_soon)
    atexit.register(made.close)
    return made
