"""The access log, written by gunicorn's logger with all its format keys."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefork_lb.proxy.logged import make_printable
from prefork_lb.proxy.pages import reason
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead

FieldPairs = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Response:
    """What gunicorn's logger asks of a response."""

    status: str
    sent: int
    headers: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Request:
    headers: list[tuple[str, str]]


class AccessLog:
    """Takes exchanges to gunicorn's logger."""

    def __init__(self, logger: Any) -> None:
        """`logger` is gunicorn's, with `access(response, request, environ, timedelta)`."""
        make_printable(logger)
        self._logger = logger

    def write(self, head: RequestHead | None, peer: ClientInfo, client_port: int, status: int, fields: FieldPairs, sent: int,
              seconds: float) -> None:
        """One line for one request. `head` is None for one that could not be parsed; `sent` are bytes of the body."""
        request_fields = _texts(head.fields) if head else []
        self._logger.access(_Response(f"{status} {reason(status)}", sent, _texts(fields)), _Request(request_fields),
                            _environ(head, peer, client_port, request_fields), timedelta(seconds=seconds))


def _texts(fields: FieldPairs) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _environ(head: RequestHead | None, peer: ClientInfo, client_port: int, fields: list[tuple[str, str]]) -> dict[str, str]:
    if head is None:
        return {"REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "-", "PATH_INFO": "-", "QUERY_STRING": "",
                "REMOTE_ADDR": peer.address}
    target = head.target.decode("latin-1")
    path, _, query = target.partition("?")
    environ = {"REQUEST_METHOD": head.method.decode("latin-1"), "RAW_URI": target, "SERVER_PROTOCOL": f"HTTP/1.{head.minor}",
               "PATH_INFO": path, "QUERY_STRING": query, "REMOTE_ADDR": peer.address, "REMOTE_PORT": str(client_port),
               "SERVER_PORT": str(peer.port), "wsgi.url_scheme": peer.scheme.decode()}
    for name, value in fields:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
