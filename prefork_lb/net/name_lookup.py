"""Turns a server's host into addresses to connect to."""
from __future__ import annotations

import socket

from prefork_lb.errors import ConnectFailed, OutOfDescriptors
from prefork_lb.net.address import Address
from prefork_lb.net.descriptors import is_out_of_descriptors

Endpoint = tuple[int, tuple[str, int] | str]
"""An address family, and an address as `socket.connect` takes it."""


def known_endpoint(address: Address) -> Endpoint | None:
    """The endpoint of an address that needs no look-up; None for a name."""
    if address.is_unix:
        return socket.AF_UNIX, address.path
    if address.host[-1].isdigit() and address.host.replace(".", "").isdigit():
        return socket.AF_INET, (address.host, address.port)
    if ":" in address.host:
        return socket.AF_INET6, (address.host, address.port)
    return None


def look_up(address: Address) -> list[Endpoint]:
    """All endpoints of a name, in the resolver's order. Waits for the resolver. Raises ConnectFailed, OutOfDescriptors."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        if is_out_of_descriptors(exc):
            raise OutOfDescriptors(f"{address}: the name cannot be looked up: {exc.strerror}") from exc
        raise ConnectFailed(f"{address}: the name does not resolve: {exc.strerror}") from exc
    return [(family, (str(endpoint[0]), int(endpoint[1]))) for family, _, _, _, endpoint in found]
