"""Connections of checks: every read ends with the check that it is for.

A timeout of requests and urllib3 is one for each read, and a server that sends a byte a second never exceeds it. So the
sockets here know the deadline of the check, and every read waits only for what is left of it.
"""
from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from prefork_lb.controller.words import lower
from prefork_lb.errors import ConnectFailed, ConnectTimeout
from prefork_lb.net.address import Address
from prefork_lb.net.failures import failure_text
from prefork_lb.net.names import Endpoint, known_endpoint, look_up

_FULL_QUEUE_PAUSE_S = 0.005


class Route:
    """Where the connections of one client go, and until when the check under way may last."""

    def __init__(self, address: Address, server_name: str, context: ssl.SSLContext | None) -> None:
        """`context` is for TLS, `server_name` is sent (SNI) and verified then."""
        self.address = address
        self.deadline = 0.0
        self.connections = 0
        self._server_name = server_name
        self._context = context
        if context is not None:
            context.sslsocket_class = _TLSSocket

    def connect(self) -> _Socket | _TLSSocket:
        """Raises ConnectFailed or ConnectTimeout."""
        connection: _Socket | _TLSSocket = connect(self.address, self.deadline)
        if self._context is not None:
            connection = _secure(connection, self._context, self._server_name, self.deadline)
        connection.route = self
        self.connections += 1
        return connection

    def left_s(self) -> float:
        """Seconds that are left of the check. Raises TimeoutError when none are."""
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return left_s


class _Socket(socket.socket):
    """A socket whose reads end with the check, however many they are."""

    route: Route | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if self.route is not None:
            self.settimeout(self.route.left_s())
        return super().recv_into(buffer, nbytes, flags)


class _TLSSocket(ssl.SSLSocket):
    """The same over TLS."""

    route: Route | None = None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.route is not None:
            self.settimeout(self.route.left_s())
        return super().recv_into(buffer, nbytes, flags)


def connect(address: Address, deadline: float) -> _Socket:
    """Of a name, all addresses are tried in the resolver's order. Raises ConnectFailed or ConnectTimeout."""
    known = known_endpoint(address)
    failure: ConnectFailed | ConnectTimeout | None = None
    for endpoint in [known] if known else look_up(address):
        if time.monotonic() >= deadline:
            break
        try:
            return _connect_endpoint(endpoint, deadline)
        except TimeoutError as exc:
            failure = ConnectTimeout("no connection")
            failure.__cause__ = exc
        except OSError as exc:
            failure = ConnectFailed(lower(failure_text(exc)))
            failure.__cause__ = exc
    raise failure or ConnectTimeout("no connection")


def _connect_endpoint(endpoint: Endpoint, deadline: float) -> _Socket:
    family, where = endpoint
    connection = _Socket(family, socket.SOCK_STREAM)
    try:
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection.connect(where)
                return connection
            except BlockingIOError as exc:
                # A unix socket whose queue is full says so at once, whatever the timeout (connect(2), EAGAIN).
                if time.monotonic() >= deadline:
                    raise TimeoutError from exc
                time.sleep(_FULL_QUEUE_PAUSE_S)
    except BaseException:
        connection.close()
        raise


def _secure(connection: _Socket | _TLSSocket, context: ssl.SSLContext, server_name: str, deadline: float) -> _TLSSocket:
    try:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        secure = context.wrap_socket(connection, server_hostname=server_name)
        assert isinstance(secure, _TLSSocket)
        return secure
    except BaseException as exc:
        connection.close()
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise ConnectFailed(f"certificate verify failed: {lower(exc.verify_message).rstrip('.')}") from exc
        if isinstance(exc, TimeoutError):
            raise ConnectTimeout("no TLS handshake") from exc
        if isinstance(exc, OSError):
            raise ConnectFailed(f"TLS handshake: {lower(failure_text(exc).removeprefix('TLS: ')).replace('_', ' ')}") from exc
        raise
