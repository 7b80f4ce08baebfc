"""New connections to servers."""
from __future__ import annotations

import socket
import time

from prefork_lb.errors import ConnectFailed, ConnectTimeout
from prefork_lb.net.address import Address
from prefork_lb.net.sockets import SocketStream

_FULL_QUEUE_PAUSE_S = 0.005


def dial(address: Address, timeout_s: float) -> SocketStream:
    """Connect to a server; of a name, all addresses are tried in the resolver's order within `timeout_s` in all.

    Raises ConnectTimeout or ConnectFailed.
    """
    if address.is_unix:
        return _connect(socket.AF_UNIX, address.path, timeout_s, str(address))
    deadline = time.monotonic() + timeout_s
    failure: ConnectFailed | ConnectTimeout | None = None
    for family, endpoint in _resolve(address):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return _connect(family, endpoint, left, str(address))
        except (ConnectFailed, ConnectTimeout) as exc:
            failure = exc
    raise failure or ConnectTimeout(f"{address}: no connection within {timeout_s:g} s")


def _resolve(address: Address) -> list[tuple[int, tuple[str, int]]]:
    if address.host[-1].isdigit() and address.host.replace(".", "").isdigit():
        return [(socket.AF_INET, (address.host, address.port))]
    if ":" in address.host:
        return [(socket.AF_INET6, (address.host, address.port))]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ConnectFailed(f"{address}: the name does not resolve: {exc.strerror}") from exc
    return [(family, (str(endpoint[0]), int(endpoint[1]))) for family, _, _, _, endpoint in found]


def _connect(family: int, endpoint: tuple[str, int] | str, timeout_s: float, name: str) -> SocketStream:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        if family != socket.AF_UNIX:
            # A small head must not wait for the acknowledgement of the one before (RFC 9293 3.7.4).
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _connect_within(connection, endpoint, timeout_s)
        connection.settimeout(None)
    except TimeoutError as exc:
        connection.close()
        raise ConnectTimeout(f"{name}: no connection within {timeout_s:.3g} s") from exc
    except OSError as exc:
        connection.close()
        raise ConnectFailed(f"{name}: {exc.strerror or exc}") from exc
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
