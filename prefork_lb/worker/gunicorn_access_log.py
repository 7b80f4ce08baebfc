"""gunicorn's own access log, written by gunicorn's logger with all its format keys."""
from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefork_lb.proxy.error_pages import reason
from prefork_lb.proxy.logged_text import make_printable
from prefork_lb.proxy.request import NO_HEAD, FieldPairs, Request


@dataclass(frozen=True, slots=True)
class _Response:
    """What gunicorn's logger asks of a response."""

    status: str
    sent: int
    headers: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Request:
    headers: list[tuple[str, str]]


class GunicornAccessLog:
    """Takes exchanges to gunicorn's logger."""

    def __init__(self, logger: Any) -> None:
        """`logger` is gunicorn's, with `access(response, request, environ, timedelta)`."""
        make_printable(logger)
        self._logger = logger

    def write(self, request: Request) -> None:
        """One line for one exchange that is over."""
        fields = _texts(request.head.fields)
        response = _Response(f"{request.status} {reason(request.status)}", request.bytes_out,
                             _texts(request.reply.fields if request.reply is not None else request.page))
        self._logger.access(response, _Request(fields), _environ(request, fields),
                            timedelta(seconds=request.ended_at - request.started))


def _texts(fields: FieldPairs) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _environ(request: Request, fields: list[tuple[str, str]]) -> dict[str, str]:
    head, peer = request.head, request.peer
    if head is NO_HEAD:
        return {"REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "-", "PATH_INFO": "-", "QUERY_STRING": "",
                "REMOTE_ADDR": peer.address}
    target = head.target.decode("latin-1")
    path, _, query = target.partition("?")
    port = request.source[1] if request.source else 0
    environ = {"REQUEST_METHOD": head.method.decode("latin-1"), "RAW_URI": target, "SERVER_PROTOCOL": f"HTTP/1.{head.minor}",
               "PATH_INFO": path, "QUERY_STRING": query, "REMOTE_ADDR": peer.address, "REMOTE_PORT": str(port),
               "SERVER_PORT": str(peer.port), "wsgi.url_scheme": peer.scheme.decode()}
    for name, value in fields:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
