"""How many sessions a drained server still has, from the memory of a running instance."""
from __future__ import annotations

from prefork_lb.config.sticky import DEFAULT_LEARNED_IDLE_S
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.wiring.membership import configuration_of


def remaining(segment: Segment, ledger: Ledger, states: States, pool: str, address: str, slot: int) -> str:
    """The sessions of a pool's server that are left, in words; empty: none, or its pool does not keep them."""
    if states.admin[slot] != Admin.DRAIN:
        return ""
    config = configuration_of(segment)
    sticky = config.pools[pool].sticky if config is not None and pool in config.pools else None
    if sticky is None or 0 < sticky.drain_timeout * 1000 <= now_ms() - states.drained[slot]:
        return ""
    if sticky.mode == "learn" and segment.layout.sessions:
        since_ms = now_ms() - int((sticky.idle or DEFAULT_LEARNED_IDLE_S) * 1000)
        count = SessionTable(segment, ledger).count(SessionKeys(segment.secret, pool).server(address), since_ms)
        return f"{count} session{'s' if count != 1 else ''}" if count else ""
    count = states.session_requests_lately(slot)
    return f"{count} request{'s' if count != 1 else ''} of sessions in the last minute" if count else ""
