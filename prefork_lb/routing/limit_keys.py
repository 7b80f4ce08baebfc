"""What a limit tells requests apart by."""
from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from prefork_lb.routing.template import Facts
from prefork_lb.wire.cookies import cookie
from prefork_lb.wire.query import parameters

KeyOf = Callable[[Facts], bytes]
"""Finds the key of a request; empty: it has none."""


def limit_key_finder(key: str) -> KeyOf:
    """The function for a `key` as the configuration has it; it was checked there."""
    kind, _, text = key.partition(":")
    name = text.encode()
    if kind == "source":
        return lambda facts: network_of(facts.client)
    if kind == "path":
        return lambda facts: facts.path
    if kind == "header":
        name = name.lower()
        return lambda facts: facts.head.index.get(name, _NONE)[0]
    if kind == "cookie":
        return lambda facts: cookie(facts.head.index.get(b"cookie", ()), name) or b""
    return lambda facts: next(parameters(facts.query, name), b"")


_NONE = (b"",)


@lru_cache(maxsize=1024)
def network_of(client: str) -> bytes:
    """A client's address as limits know it: of IPv6 the network of 64 bits, within which one host can take any address."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:  # a client of a unix socket has none
        return b""
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed
    mapped = address.ipv4_mapped
    return mapped.packed if mapped is not None else address.packed[:8]
