"""The client's connection behind a WSGI environ, as the engine needs it. The request's body is in `wsgi.body`."""
from __future__ import annotations

import ctypes
import logging
import select
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Any

from prefork_lb.errors import ClientGone
from prefork_lb.net.address import unmapped
from prefork_lb.net.readable import Readable
from prefork_lb.net.stream import Stream
from prefork_lb.net.timeouts import set_receive_timeout, set_send_timeout
from prefork_lb.proxy.error_pages import reason
from prefork_lb.wire.certificates import ClientCertificate, client_certificate
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.head import HeadLimits, ResponseHead
from prefork_lb.wire.proxy_protocol import SocketAddress

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True, slots=True)
class ClientRules:
    """The limits of a client's connection."""

    limits: HeadLimits  # of chunked bodies' lines and trailers
    idle_timeout_s: float  # between two reads, or writes, of a body
    body_timeout_s: float = 0.0  # how long, in all, the worker waits for a request's body; 0: no limit
    body_rate: int = 500  # every so many received bytes of it add one second
    ahead_bytes: int = 0  # of a response, received before the client is sent to


class WSGIClient:
    """The socket of the client, where the server hands it over (gunicorn does)."""

    def __init__(self, environ: dict[str, Any], rules: ClientRules) -> None:
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._version = environ.get("SERVER_PROTOCOL")
        self._idle_timeout_s = rules.idle_timeout_s
        self.is_tls = isinstance(self._socket, ssl.SSLSocket)
        self.waiting: object = None

    def addresses(self, environ: dict[str, Any]) -> tuple[SocketAddress | None, SocketAddress | None]:
        """Where the connection comes from and where it arrived; None for each where that is no IP address."""
        address, port = environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", "")
        if self._socket is None or self._socket.family == socket.AF_UNIX or not port.isdecimal():
            return None, None
        return (unmapped(address), int(port)), self._socket.getsockname()[:2]

    def certificate(self) -> ClientCertificate | None:
        """The one that the client has shown."""
        if not isinstance(self._socket, ssl.SSLSocket) or self._socket.context.verify_mode is ssl.CERT_NONE:
            return None
        return client_certificate(self._socket.getpeercert(), self._socket.getpeercert(True))

    def limit_receive(self, seconds: float) -> None:
        """Let a read of the client's body fail when no byte comes for `seconds`."""
        if self._socket is not None:
            set_receive_timeout(self._socket, seconds)

    def expect_slow_reader(self) -> None:
        """Let a send of a long response fail when the client takes nothing for the idle timeout."""
        if self._socket is not None:
            set_send_timeout(self._socket, self._idle_timeout_s)

    def wait(self, server: Stream, timeout_s: float) -> bool | None:
        """Wait for the client and the server. True: the client has sent something, or left. False: the server's stream
        has something first. None: neither has in time."""
        if self._socket is None or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        poller.register(server.fileno(), select.POLLIN)
        events = poller.poll(timeout_s * 1000)
        if not events:
            return None
        return all(descriptor != server.fileno() for descriptor, _ in events)

    def is_gone(self) -> bool:
        """Whether the client has ended its side: it closed, or (which looks the same) sent all that it will ever send."""
        return self._socket is not None and Readable(self._socket.fileno(), select.POLLRDHUP).now()

    def relay(self, head: ResponseHead) -> None:
        """Pass an interim response on. HTTP/1.0 has none (RFC 9110 15.2); gunicorn itself sends 100."""
        if self._socket is None or self._version != "HTTP/1.1" or head.status == 100:
            return
        text = head.reason or reason(head.status).encode()
        block = b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, text, field_lines(head.fields))
        try:
            self._socket.sendall(block)
        except OSError as exc:
            raise ClientGone("the client left before the response") from exc

    def reset(self) -> None:
        """Break the connection off, so that what was sent does not look whole: TCP's reset instead of its normal end.

        connect(2) to AF_UNSPEC dissolves a connection with a reset and leaves the descriptor to its owner; closing it
        under gunicorn would break its count of connections.
        """
        if self._socket is None or self._socket.family == socket.AF_UNIX:
            return
        address = struct.pack("@H14x", socket.AF_UNSPEC)
        if ctypes.CDLL(None, use_errno=True).connect(self._socket.fileno(), address, len(address)):
            log.debug("the client's connection could not be reset: errno %d", ctypes.get_errno())
