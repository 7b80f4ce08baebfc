"""New connections to servers, over ordinary sockets."""
from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from prefork_lb.errors import ConnectFailed, ConnectTimeout
from prefork_lb.net.address import Address
from prefork_lb.net.failures import connect_error, connect_timeout
from prefork_lb.net.names import Endpoint, known_endpoint, look_up
from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import Stream

_FULL_QUEUE_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """TLS toward a server."""

    context: ssl.SSLContext
    server_name: str  # sent (SNI) and verified


Dial = Callable[[Address, float, ClientTLS | None, bytes], Stream]
"""Connects to a server within some seconds and sends the bytes given before anything else, TLS included."""


def dial(address: Address, timeout_s: float, tls: ClientTLS | None = None, preamble: bytes = b"") -> SocketStream:
    """Connect to a server; of a name, all addresses are tried in the resolver's order within `timeout_s` in all.

    Raises ConnectTimeout, ConnectFailed, OutOfDescriptors.
    """
    deadline = time.monotonic() + timeout_s
    known = known_endpoint(address)
    failure: ConnectFailed | ConnectTimeout | None = None
    for endpoint in [known] if known else look_up(address):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        try:
            return _connect(endpoint, left_s, address, tls, preamble)
        except (ConnectFailed, ConnectTimeout) as exc:
            failure = exc
    raise failure or ConnectTimeout(f"{address}: no connection within {timeout_s:g} s")


def _connect(endpoint: Endpoint, timeout_s: float, name: Address, tls: ClientTLS | None, preamble: bytes) -> SocketStream:
    family, where = endpoint
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise connect_error(name, exc, family, where) from exc
    try:
        connection.settimeout(timeout_s)
        if family != socket.AF_UNIX:
            # A small head must not wait for the acknowledgement of the one before (RFC 9293 3.7.4).
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _connect_within(connection, where, timeout_s)
        if preamble:
            connection.sendall(preamble)
        if tls is not None:
            connection = tls.context.wrap_socket(connection, server_hostname=tls.server_name, suppress_ragged_eofs=False)
        connection.settimeout(None)
    except TimeoutError as exc:
        connection.close()
        raise connect_timeout(name, timeout_s) from exc
    except OSError as exc:
        connection.close()
        raise connect_error(name, exc, family, where) from exc
    except BaseException:
        connection.close()
        raise
    return SocketStream(connection)


def _connect_within(connection: socket.socket, endpoint: tuple[str, int] | str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.connect(endpoint)
            return
        except BlockingIOError as exc:
            # A unix socket whose queue is full says so at once, whatever the timeout (connect(2), EAGAIN).
            if time.monotonic() >= deadline:
                raise TimeoutError from exc
            time.sleep(_FULL_QUEUE_PAUSE_S)
