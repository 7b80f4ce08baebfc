"""Streams over sockets, for WSGI workers. The sockets are ordinary ones, or gevent's, whose waits let other greenlets run."""
from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence

from prefork_lb.net.readable import Readable
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout, Watched
from prefork_lb.net.timeouts import Expired, kernel_keeps_time, set_receive_timeout, set_send_timeout

# A wait checks the other side after each interval of this length. It is long, so that a quick answer does not pay for a check.
_LOOK_ASIDE_S = 0.5
_RECORD_BYTES = 16 * 1024  # RFC 8446 5.1


class SocketStream:
    """A connected socket as a Stream. It must be blocking."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # The timeouts as last set; None: never set, so a wait has no end.
        self._receive_timeout_s: float | None = None
        self._send_timeout_s: float | None = None
        self._readable = Readable(connected.fileno())
        self._one_timeout = not kernel_keeps_time(connected)  # for both directions
        self._tls = connected if isinstance(connected, ssl.SSLSocket) else None
        self._ahead = b""  # TLS only: received by a check whether there is data

    def receive(self, limit: int, timeout_s: float) -> bytes:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        if timeout_s != self._receive_timeout_s:
            set_receive_timeout(self._socket, timeout_s)
            self._receive_timeout_s = timeout_s
            if self._one_timeout:
                self._send_timeout_s = timeout_s
        try:
            return self._socket.recv(limit)
        except Expired as exc:
            raise StreamTimeout from exc
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc

    def receive_now(self, limit: int) -> bytes | None:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        try:
            if self._tls is None:
                return self._socket.recv(limit) if self._readable.now() else None
            self._tls.settimeout(0)
            self._receive_timeout_s = self._send_timeout_s = 0.0
            return self._tls.recv(limit)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        while timeout_s > _LOOK_ASIDE_S:
            try:
                return self.receive(limit, _LOOK_ASIDE_S)
            except StreamTimeout:
                if watched.is_gone():
                    return None
                timeout_s -= _LOOK_ASIDE_S
        return self.receive(limit, timeout_s)

    def send(self, data: bytes, timeout_s: float) -> bool:
        self._prepare_send(timeout_s)
        try:
            self._socket.sendall(data)
        except Expired as exc:
            raise StreamTimeout from exc
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc
        return True

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        if self._tls is not None:
            return self._send_tls_unless_answered(data, timeout_s)
        self._prepare_send(timeout_s)
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | select.POLLOUT)
        sent = 0
        with memoryview(data) as view:
            while sent < len(data):
                events = poller.poll(timeout_s * 1000)
                if not events:
                    raise StreamTimeout
                if events[0][1] & ~select.POLLOUT:
                    break
                try:
                    # Writable means room for a part of the data. A blocking send would wait until all of it is sent.
                    sent += self._socket.send(view[sent:], socket.MSG_DONTWAIT)
                except Expired:
                    continue  # a kernel short of memory may refuse although it said writable; poll() above keeps the time
                except OSError as exc:
                    raise StreamClosed(exc.strerror) from exc
        return sent

    def fileno(self) -> int:
        return self._socket.fileno()

    def _send_tls_unless_answered(self, data: bytes, timeout_s: float) -> int:
        # A record is sent whole, so an answer cannot interrupt the wait. The check for an answer is made between two records.
        sent = 0
        while sent < len(data) and not self._has_tls_input():
            piece = data[sent:sent + _RECORD_BYTES]
            self.send(piece, timeout_s)
            sent += len(piece)
        return sent

    def _has_tls_input(self) -> bool:
        # Bytes on the socket may hold no data: TLS 1.3 servers send session tickets (RFC 8446 4.6.1). Only a read can tell.
        if self._ahead:
            return True
        assert self._tls is not None
        if not self._tls.pending() and not self._readable.now():
            return False
        self._tls.settimeout(0)
        self._receive_timeout_s = self._send_timeout_s = 0.0
        try:
            self._ahead = self._tls.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            pass  # the connection has ended: the next receive reports that
        return True

    def is_quiet(self) -> bool:
        return not (self._readable.now() if self._tls is None else self._has_tls_input())

    def close(self) -> None:
        self._socket.close()

    def _prepare_send(self, timeout_s: float) -> None:
        if timeout_s != self._send_timeout_s:
            set_send_timeout(self._socket, timeout_s)
            self._send_timeout_s = timeout_s
            if self._one_timeout:
                self._receive_timeout_s = timeout_s


def wait_any(streams: Sequence[Stream], timeout_s: float, watched: Watched) -> Stream | None:
    """`WaitAny` for these streams."""
    poller = select.poll()
    for stream in streams:
        poller.register(stream.fileno(), select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while True:
        for stream in streams:
            if not stream.is_quiet():
                return stream
        if watched.is_gone():
            return None
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise StreamTimeout
        poller.poll(min(left_s, _LOOK_ASIDE_S) * 1000)
