"""The client's connection behind a WSGI environ: its body, and what else the engine asks of it."""
from __future__ import annotations

import ctypes
import logging
import select
import socket
import ssl
import struct
from typing import Any

from gunicorn.http.errors import NoMoreData, ParseException

from prefork_lb.errors import BadRequest, ClientGone, RequestTimeout
from prefork_lb.net.address import unmapped
from prefork_lb.net.readable import Readable
from prefork_lb.net.stream import Stream
from prefork_lb.net.timeouts import Expired, set_receive_timeout, set_send_timeout
from prefork_lb.proxy.pages import reason
from prefork_lb.wire.head import Fields, ResponseHead
from prefork_lb.wire.proxy_protocol import SocketAddress

log = logging.getLogger("prefork_lb")


class WSGIClient:
    """The socket of the client, where the server hands it over (gunicorn does)."""

    def __init__(self, environ: dict[str, Any], idle_timeout_s: float) -> None:
        """A read or a write that stands still for `idle_timeout_s` is broken off, once it was said that there will be some."""
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._version = environ.get("SERVER_PROTOCOL")
        self._idle_timeout_s = idle_timeout_s
        self.is_tls = isinstance(self._socket, ssl.SSLSocket)
        self.waiting: object = None

    def addresses(self, environ: dict[str, Any]) -> tuple[SocketAddress | None, SocketAddress | None]:
        """Where the connection comes from and where it arrived; None for each where that is no IP address."""
        address, port = environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", "")
        if self._socket is None or self._socket.family == socket.AF_UNIX or not port.isdecimal():
            return None, None
        return (unmapped(address), int(port)), self._socket.getsockname()[:2]

    def expect_body(self) -> None:
        """The client's body will be read."""
        if self._socket is not None:
            set_receive_timeout(self._socket, self._idle_timeout_s)

    def expect_slow_reader(self) -> None:
        """The response is larger than what a socket takes at once."""
        if self._socket is not None:
            set_send_timeout(self._socket, self._idle_timeout_s)

    def wait(self, server: Stream, timeout_s: float) -> bool:
        """Wait until the client has sent something (or left); False when the server's stream has something first."""
        if self._socket is None or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        poller.register(server.fileno(), select.POLLIN)
        events = poller.poll(timeout_s * 1000)
        if not events:
            raise RequestTimeout("the client sent nothing of its body for too long")
        return all(descriptor != server.fileno() for descriptor, _ in events)

    def is_gone(self) -> bool:
        """Whether the client has ended its side: it closed, or (which looks the same) sent all that it will ever send."""
        return self._socket is not None and Readable(self._socket.fileno(), select.POLLRDHUP).now()

    def relay(self, head: ResponseHead) -> None:
        """Pass an interim response on. HTTP/1.0 has none (RFC 9110 15.2); 100 gunicorn has sent where it was asked for."""
        if self._socket is None or self._version != "HTTP/1.1" or head.status == 100:
            return
        text = head.reason or reason(head.status).encode()
        block = b"HTTP/1.1 %d %b\r\n" % (head.status, text) + b"".join(b"%b: %b\r\n" % field for field in head.fields) + b"\r\n"
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


class WSGIBody:
    """`wsgi.input` as a body source.

    Facts: gunicorn's `wsgi.input.read(n)` waits until it has all of `n` bytes, and receives up to 1 MiB at a time. A proxy
    passes on what has come, and holds little. So where gunicorn's reader behind it is to be had, that is asked for one
    byte, and then for what has come with it.
    """

    def __init__(self, environ: dict[str, Any], client: WSGIClient) -> None:
        self._input = environ["wsgi.input"]
        self._reader: Any = getattr(self._input, "reader", None)
        self._client = client
        self._begun = False
        length = environ.get("CONTENT_LENGTH", "")
        # None: chunked, the server knows the end. What is no number the engine refuses before it reads.
        self._left = int(length) if length.isdecimal() else None

    def read(self, limit: int) -> bytes:
        if not self._begun:
            self._begin(limit)
        try:
            data = self._input.read(limit) if self._reader is None else self._read_some(limit)
        except Expired as exc:
            raise RequestTimeout("the client sent nothing of its body for too long") from exc
        except (NoMoreData, ConnectionError) as exc:
            raise ClientGone("the client left in the middle of its body") from exc
        except ParseException as exc:
            raise BadRequest(f"malformed body: {exc}") from exc
        if self._left is not None:
            self._left -= len(data)
            if not data and self._left:
                raise ClientGone("the client left in the middle of its body")
        return data

    def wait(self, server: Stream, timeout_s: float) -> bool:
        if self._reader is None or self._left is None:
            return True  # what was read ahead cannot be known, and of that the socket would not tell
        return self._surplus() > 0 or self._client.wait(server, timeout_s)

    def trailers(self) -> Fields:
        """Those that gunicorn kept of a chunked body; its environ has no place for them."""
        message = getattr(self._reader, "req", None)
        found = getattr(message, "trailers", None) or []
        return [(name.title().encode("latin-1"), value.encode("latin-1")) for name, value in found]

    def _begin(self, limit: int) -> None:
        self._begun = True
        self._client.expect_body()
        unreader: Any = getattr(self._reader, "unreader", None)
        if hasattr(unreader, "max_body_chunk"):
            unreader.max_body_chunk = limit

    def _read_some(self, limit: int) -> bytes:
        first: bytes = self._reader.read(1)
        if not first:
            return b""
        at_hand = min(self._surplus(), limit - 1)
        return first + self._reader.read(at_hand) if at_hand else first

    def _surplus(self) -> int:
        # A chunked body's decoded surplus is with the reader, that of one with a length with what it reads from.
        surplus = getattr(self._reader, "buf", None) or self._reader.unreader.buf
        return int(surplus.tell())
