"""A WSGI application (PEP 3333) that is not the proxy, called on a client's connection.

gunicorn's own Response writes the answer, so the application finds here what it finds on gunicorn's workers. It runs in the
loop, and all other clients wait while it computes: use it for pages that take milliseconds. Between two chunks of its response
the other clients have their turn.
"""
from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from prefork_lb.errors import ClientGone
from prefork_lb.gunicorn.internals import MALFORMED_FIELDS, Body, Response, create
from prefork_lb.log_summary import summary
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead
from prefork_lb.worker.bodies import ClientBody
from prefork_lb.worker.client import Client
from prefork_lb.worker.service import Service

log = logging.getLogger("prefork_lb")


class _Socket:
    """What gunicorn's Response asks of a socket."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def sendall(self, data: bytes) -> None:
        self._client.send(bytes(data))

    send = sendall


class _Reader:
    """What gunicorn's Body reads from."""

    def __init__(self, body: ClientBody | None) -> None:
        self._body = body

    def read(self, size: int) -> bytes:
        return self._body.read(size) if self._body is not None and size > 0 else b""


class _Request:
    """What gunicorn's `create` asks of a request."""

    def __init__(self, head: RequestHead, peer: ClientInfo, body: ClientBody | None, goes_on: bool) -> None:
        self.method = head.method.decode("latin-1")
        self.uri = head.target.decode("latin-1")
        self.path, _, self.query = self.uri.partition("?")
        self.version = (1, head.minor)
        self.headers = [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in head.fields
                        if b"_" not in name]  # with an underscore it would take another field's name (RFC 3875 4.1.18)
        self.scheme = peer.scheme.decode()
        self.body = Body(_Reader(body))
        self.proxy_protocol_info: dict[str, Any] = {}
        self._expected_100_continue = body is not None and b"expect" in head.index
        self._goes_on = goes_on

    def should_close(self) -> bool:
        return not self._goes_on


class WSGICall:
    """One call of the application."""

    def __init__(self, client: Client, head: RequestHead, body: ClientBody | None, service: Service) -> None:
        self._client, self._head, self._body, self._service = client, head, body, service
        self._response: Any = None

    def run(self, goes_on: bool) -> bool:
        """Call the application and send its response. `goes_on`: the client wants to keep its connection. Return whether it can.

        Raises ClientGone.
        """
        client, service = self._client, self._service
        request = _Request(self._head, client.peer, self._body, goes_on)
        response, environ = create(request, _Socket(client), client.source or client.peer.address, client.destination or "",
                                   service.settings)
        del environ["gunicorn.socket"]  # _Socket is no socket
        self._response = response
        try:
            chunks = service.app(environ, response.start_response)
            try:
                self._write(response, chunks)
            finally:
                close = getattr(chunks, "close", None)
                if close is not None:
                    close()
        except ClientGone:
            raise
        except ConnectionError as exc:
            raise ClientGone(f"the application broke the response off: {exc}") from exc
        except Exception as exc:
            log.exception("%s %s: the application failed", request.method, request.uri)
            return self._fail(request, response, exc)
        return not response.should_close()

    @property
    def status(self) -> int:
        """Of the response that was sent."""
        return int((self._response.status or "500").split()[0])

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Of the response that was sent."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._response.headers]

    @property
    def sent(self) -> int:
        """Bytes of the body."""
        return int(self._response.sent)

    def _write(self, response: Any, chunks: Iterator[bytes]) -> None:
        share = self._service.hub.turns.share
        for chunk in chunks:
            response.write(chunk)
            share()  # a client that takes many chunks at once would else keep the loop
        response.close()

    def _fail(self, request: _Request, response: Any, exc: Exception) -> bool:
        if response.headers_sent:
            raise ClientGone("the application failed in the middle of its response") from exc
        if isinstance(exc, MALFORMED_FIELDS):
            summary.tell(logging.ERROR, "malformed header", "the application wants to send a malformed header: %s", exc)
        self._response = page = Response(request, _Socket(self._client), self._service.settings)
        page.force_close()
        page.start_response("500 Internal Server Error", [("Content-Type", "text/plain"), ("Content-Length", "26")])
        page.write(b"500 Internal Server Error\n")
        page.close()
        return False
