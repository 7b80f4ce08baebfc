"""A server as this worker sees it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefork_lb.net.address import Address
from prefork_lb.net.tls import ClientTLS
from prefork_lb.upstream.idle_connections import IdleConnections

if TYPE_CHECKING:
    from prefork_lb.upstream.queue import Queue

UNLIMITED = 1 << 62


@dataclass(slots=True, eq=False)
class Server:
    """One backend address of a pool; to a policy, a candidate.

    `in_flight` is the count over all workers, set under the ledger's lock when the server becomes a candidate; it includes
    requests that failed a short while ago. `weight` and `max_connections` are those of this moment: less in slow start.
    """

    slot: int
    address: Address
    name: str  # the address as text
    configured_weight: int
    configured_limit: int  # UNLIMITED: no limit
    backup: bool
    idle: IdleConnections
    weight: int = 0
    max_connections: int = 0
    own_limit: int = 0  # for requests of sessions that it has: not less in slow start
    in_flight: int = 0
    tls: ClientTLS | None = None
    route: str = ""  # its name in the session cookies of an application, see `sticky.route`
    public: bytes = b""  # where clients are sent in a pool that redirects: scheme, host and port
    proxy_protocol: int = 0  # version of the PROXY header that each connection begins with; 0: none
    queue: Queue | None = None  # its pool's: each release wakes the first request in it
    own_queue: Queue | None = None  # of sessions that wait for this server alone; they come first

    def __post_init__(self) -> None:
        self.weight, self.max_connections, self.own_limit = self.configured_weight, self.configured_limit, self.configured_limit
