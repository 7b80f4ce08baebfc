"""A server as this worker sees it."""
from __future__ import annotations

from dataclasses import dataclass

from prefork_lb.net.address import Address
from prefork_lb.net.dial import ClientTLS
from prefork_lb.upstream.idle import IdleConnections

UNLIMITED = 1 << 62


@dataclass(slots=True, eq=False)
class Server:
    """One backend address of a pool; to a policy, a candidate.

    `in_flight` is the count over all workers, set under the ledger's lock when the server becomes a candidate.
    """

    slot: int
    address: Address
    name: str  # the address as text
    weight: int
    max_connections: int  # UNLIMITED: no limit
    backup: bool
    idle: IdleConnections
    in_flight: int = 0
    tls: ClientTLS | None = None
    proxy_protocol: int = 0  # version of the PROXY header that each connection begins with; 0: none
