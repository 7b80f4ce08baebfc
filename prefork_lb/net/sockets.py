"""Streams over sockets, for WSGI workers: ordinary ones, and gevent's, whose waits let other greenlets run."""
from __future__ import annotations

import select
import socket

from prefork_lb.net.readable import Readable
from prefork_lb.net.stream import StreamClosed, StreamTimeout, Watched
from prefork_lb.net.timeouts import Expired, kernel_keeps_time, set_receive_timeout, set_send_timeout

# How long a wait goes on undisturbed before it looks aside: long enough that a quick answer never pays for it.
_LOOK_ASIDE_S = 0.5


class SocketStream:
    """A connected socket as a Stream. It must be blocking."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._receive_timeout_s = self._send_timeout_s = 0.0
        self._readable = Readable(connected.fileno())
        self._one_timeout = not kernel_keeps_time(connected)  # for both directions

    def receive(self, limit: int, timeout_s: float) -> bytes:
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

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        while timeout_s > _LOOK_ASIDE_S:
            try:
                return self.receive(limit, _LOOK_ASIDE_S)
            except StreamTimeout:
                if watched.is_gone():
                    return None
                timeout_s -= _LOOK_ASIDE_S
        return self.receive(limit, timeout_s)

    def send(self, data: bytes, timeout_s: float) -> None:
        self._prepare_send(timeout_s)
        try:
            self._socket.sendall(data)
        except Expired as exc:
            raise StreamTimeout from exc
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
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
                    # Writable means room for some of it; a blocking send would wait until all of it is out.
                    sent += self._socket.send(view[sent:], socket.MSG_DONTWAIT)
                except Expired:
                    continue  # a kernel short of memory for sockets may refuse all the same; the time is kept above
                except OSError as exc:
                    raise StreamClosed(exc.strerror) from exc
        return sent

    def fileno(self) -> int:
        return self._socket.fileno()

    def is_quiet(self) -> bool:
        return not self._readable.now()

    def close(self) -> None:
        self._socket.close()

    def _prepare_send(self, timeout_s: float) -> None:
        if timeout_s != self._send_timeout_s:
            set_send_timeout(self._socket, timeout_s)
            self._send_timeout_s = timeout_s
            if self._one_timeout:
                self._receive_timeout_s = timeout_s
