"""Which pools can use the compiled picker."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.least_connections import IDLE_PICKS, LeastConnections
from prefork_lb.balance.peak_ewma import PeakEWMA
from prefork_lb.balance.policy import Policy
from prefork_lb.balance.rotation import MEMORY_ROUNDS, UNIT
from prefork_lb.native.loader import FastClaims, native
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.table import PoolSlots
from prefork_lb.upstream.answering import Answering
from prefork_lb.upstream.server import Server


def fast_claims(policy: Policy, servers: Sequence[Server], slots: PoolSlots, ledger: Ledger, seen: int,
                answering: Answering | None = None) -> FastClaims | None:
    """A compiled picker that is equivalent to `policy` for these servers, or None.

    It claims nothing any more once the count of changes (`States.changes`) is another one than `seen`.
    """
    module = native()
    if module is None or ledger.native_claims is None or type(policy) not in (LeastConnections, PeakEWMA):
        return None
    if not 1 <= len(servers) <= module.MOST_SERVERS:
        return None
    last, finish = slots.columns[:2]
    picked = tuple((server.slot, server.weight, server.max_connections) for server in servers)
    return module.LeastConnections(ledger.native_claims, picked, slots.cells, last, finish, UNIT, MEMORY_ROUNDS, IDLE_PICKS,
                                   at.H_CHANGES, seen, answering.native if answering is not None else None)
