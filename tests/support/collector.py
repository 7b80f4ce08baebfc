"""An OpenTelemetry collector that takes OTLP over HTTP and remembers spans. It needs the packages of the extra `otel`."""
from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

from tests.support.place import HOST


def missing() -> str:
    """What is not here, and how it gets here; empty: nothing."""
    try:
        has_it = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ImportError:
        has_it = False
    return "" if has_it else "OpenTelemetry is missing: pip install prefork_lb[otel]"


class Collector:
    """A context manager; `spans` are those that have come, by OTLP's names."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        spans: list[dict[str, Any]] = []
        self.spans = spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in told.resource_spans:
                    shared = {pair.key: _value(pair.value) for pair in resource.resource.attributes}
                    spans.extend({
                        "name": span.name, "kind": {2: "server", 3: "client"}[span.kind], "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(), "parent": span.parent_span_id.hex(), "begun": span.start_time_unix_nano,
                        "ended": span.end_time_unix_nano, "error": span.status.message if span.status.code == 2 else None,
                        "attributes": {pair.key: _value(pair.value) for pair in span.attributes}, "resource": shared,
                    } for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> Collector:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
