"""A pool: the one filter of candidates, and the claim."""
from __future__ import annotations

from collections.abc import Collection, Sequence

from prefork_lb.accelerate import FastClaims
from prefork_lb.balance.policy import Policy, RequestInfo
from prefork_lb.errors import InvariantError, NoUsableServer, PoolFull
from prefork_lb.shared.ledger import Ledger
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.server import Server


class Pool:
    """A set of servers and the policy that picks among them."""

    def __init__(self, name: str, servers: Sequence[Server], policy: Policy, ledger: Ledger, attempts: int,
                 fast_claims: FastClaims | None = None) -> None:
        """`fast_claims` picks and counts as `policy` does, for servers that are no backups, where it can."""
        self.name = name
        self.servers = servers
        self.attempts = attempts  # tries in all for one exchange
        self._primaries = tuple(server for server in servers if not server.backup)
        self._backups = tuple(server for server in servers if server.backup)
        self._policy = policy
        self._ledger = ledger
        self._fast_claims = fast_claims

    def lease(self, request: RequestInfo, tried: Collection[Server]) -> Lease:
        """Claim a server for `request` that is not in `tried`.

        Pick and count happen under one lock: no other claim, of any worker, comes between. Backups are candidates only
        when no other server is. Raises PoolFull when servers are left but all are at their limit, NoUsableServer when
        none is left.
        """
        ledger = self._ledger
        if self._fast_claims is not None and not tried:
            index = self._fast_claims.claim()
            if index >= 0:
                return Lease(self._primaries[index], ledger)
        ledger.acquire()
        try:
            candidates = self._candidates(self._primaries, tried) or self._candidates(self._backups, tried)
            if not candidates:
                raise self._nobody(tried)
            server = self._policy.pick(candidates, request)
            if not isinstance(server, Server) or server not in candidates:
                raise InvariantError(f"pool {self.name}: the policy {self._policy!r} picked {server!r}, which is no candidate")
            ledger.claim(server.slot)
        finally:
            ledger.release_lock()
        return Lease(server, ledger)

    def expire_idle(self) -> None:
        """Close the idle connections that are too old."""
        for server in self.servers:
            server.idle.expire()

    def close(self) -> None:
        """Close all idle connections."""
        self._fast_claims = None  # it holds buffers of the shared memory
        for server in self.servers:
            server.idle.close()

    def _candidates(self, servers: Sequence[Server], tried: Collection[Server]) -> Sequence[Server]:
        totals = self._ledger.totals
        all_can = not tried
        for server in servers:
            server.in_flight = in_flight = totals[server.slot]
            if in_flight >= server.max_connections:
                all_can = False
        if all_can:
            return servers
        return [server for server in servers if server.in_flight < server.max_connections and server not in tried]

    def _nobody(self, tried: Collection[Server]) -> PoolFull | NoUsableServer:
        if len(tried) < len(self.servers):
            return PoolFull(f"pool {self.name}: every server is at its max_connections")
        return NoUsableServer(f"pool {self.name}: no server is left to try")
