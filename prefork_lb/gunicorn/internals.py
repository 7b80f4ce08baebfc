"""What prefork_lb takes from gunicorn's modules. Nothing outside this package imports gunicorn.

gunicorn documents its settings, its hooks and the class Worker. The rest is internal, and has been as it is used here from
version 23 to 27. `make gunicorns` runs the oldest and the newest version that setup.py allows.

| what | who uses it | what is relied on |
| --- | --- | --- |
| `Arbiter` | `gunicorn.lingering_master` | see there |
| `Worker` | `worker.proxy_worker`, `wiring` | documented; `ppid`, `PIPE`, `alive`, `tmp`, `sockets`, `timeout` |
| `Worker.handle_quit`, `tpool` | `gunicorn.quick_end` | see there |
| `ssl_context` | `worker.client_tls` | makes the context by the settings, with the hook `ssl_context` applied |
| `parse_address` | `net.bind_check` | how `bind` is read |
| `Logger` | `gunicorn.json_logger` | documented; `setup` gives `error_log` its handlers |
| `AppImportError` | `wiring` | raised while the application is made, it ends the start with its message |
| `create`, `Response`, `Body` | `worker.wsgi_call` | environ and answer of an application that is not ours |
| `ChunkedReader`, `NoMoreData`, `ParseException` | `wsgi.body` | what reads `wsgi.input`, and what that raises; see there |
"""
from __future__ import annotations

from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.wsgi import Response, create
from gunicorn.sock import ssl_context
from gunicorn.util import parse_address
from gunicorn.workers.base import Worker

MALFORMED_FIELDS: tuple[type[Exception], ...] = tuple(
    getattr(errors, name) for name in ("InvalidResponseHeader", "InvalidResponseHeaderName", "InvalidHeader", "InvalidHeaderName")
    if hasattr(errors, name))
"""What `start_response` raises for a malformed header: since version 27 the first two, before that the others."""

__all__ = ["MALFORMED_FIELDS", "AppImportError", "Arbiter", "Body", "ChunkedReader", "Logger", "NoMoreData", "ParseException",
           "Response", "Worker", "create", "parse_address", "ssl_context"]
