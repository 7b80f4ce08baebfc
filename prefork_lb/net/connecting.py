"""One connection on its way to a server, in steps that do not wait."""
from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Generator

from prefork_lb.net.name_lookup import Endpoint
from prefork_lb.net.tls import ClientTLS

FULL_QUEUE_PAUSE_S = 0.005
FULL_QUEUE = 0
"""`waits_for` while a unix socket's queue is full. No event reports room in it, so the caller tries again after a pause."""


class Connecting:
    """A connection to one address in three steps: connect, send the preamble, do the TLS handshake."""

    def __init__(self, endpoint: Endpoint, preamble: bytes, tls: ClientTLS | None) -> None:
        """Raises OSError when no socket can be made."""
        self.endpoint = endpoint
        self.connection = socket.socket(endpoint[0], socket.SOCK_STREAM)
        self.waits_for = 0  # the events of poll(2) that let it go on, or FULL_QUEUE
        self.is_connected = False  # only the TLS handshake is left
        self.is_done = False
        self._preamble = preamble
        self._tls = tls
        self._steps = self._go_on()

    def step(self) -> None:
        """Do all that is possible without waiting. Raises OSError."""
        waits_for = next(self._steps, None)
        if waits_for is None:
            self.is_done = True
        else:
            self.waits_for = waits_for

    def close(self) -> None:
        """Give up the connection."""
        self.connection.close()

    def _go_on(self) -> Generator[int, None, None]:
        family, where = self.endpoint
        connection = self.connection
        connection.setblocking(False)
        if family != socket.AF_UNIX:
            # A small head must not wait for the acknowledgement of the one before (RFC 9293 3.7.4).
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = connection.connect_ex(where)
        while code == errno.EAGAIN and family == socket.AF_UNIX:
            yield FULL_QUEUE
            code = connection.connect_ex(where)
        if code == errno.EINPROGRESS:
            yield select.POLLOUT
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        preamble = self._preamble
        while preamble:
            try:
                preamble = preamble[connection.send(preamble):]
            except BlockingIOError:
                yield select.POLLOUT
        self.is_connected = True
        if self._tls is not None:
            yield from self._secure(self._tls)
        self.connection.setblocking(True)

    def _secure(self, tls: ClientTLS) -> Generator[int, None, None]:
        secured = self.connection = tls.context.wrap_socket(
            self.connection, server_hostname=tls.server_name, do_handshake_on_connect=False, suppress_ragged_eofs=False)
        while True:
            try:
                secured.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield select.POLLIN
            except ssl.SSLWantWriteError:
                yield select.POLLOUT
