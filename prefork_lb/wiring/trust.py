"""Whose forwarding fields are believed."""
from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from prefork_lb.proxy.request import TrustCheck


def trust_check(networks: Sequence[str]) -> TrustCheck:
    """Whether an address lies in one of `networks`; answers are remembered."""
    parsed = [ipaddress.ip_network(network, strict=False) for network in networks]
    if not parsed:
        return lambda address: False

    @functools.lru_cache(maxsize=4096)
    def is_trusted(address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(ip in network for network in parsed)

    return is_trusted
