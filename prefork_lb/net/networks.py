"""Networks of clients and proxies, as the configuration names them."""
from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Sequence

LiesIn = Callable[[str], bool]


def lies_in(networks: Sequence[str]) -> LiesIn:
    """Whether an address lies in one of `networks`; answers are remembered. Raises ValueError for what is no network.

    An IPv4-mapped address (RFC 4291 2.5.5.2) lies where its IPv4 address does, too. What is no address lies nowhere, such as the
    empty one of a unix socket's client.
    """
    parsed = [ipaddress.ip_network(network, strict=False) for network in networks]
    if not parsed:
        return lambda address: False

    @functools.lru_cache(maxsize=4096)
    def found(address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return any(ip in network or (mapped is not None and mapped in network) for network in parsed)

    return found
