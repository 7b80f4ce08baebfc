"""A claim on the server of a session, without a pick. The rules of a pick hold, but drained servers keep their sessions, and slow
start keeps no session from its server."""
from __future__ import annotations

from collections.abc import Collection, Sequence

from prefork_lb.balance.policy import Policy, TakesTurns
from prefork_lb.errors import SessionRefused
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.transitions import Check, Ejection
from prefork_lb.upstream.availability import UsableServers
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import OnFailure, SessionRules


class OwnServer:
    """Of one pool, in one worker. Its methods want the ledger's lock."""

    def __init__(self, pool: str, policy: Policy, ledger: Ledger, states: States, outcomes: Outcomes,
                 rules: SessionRules) -> None:
        self._pool = pool
        self._took = policy.took if isinstance(policy, TakesTurns) else None
        self._ledger = ledger
        self._states = states
        self._outcomes = outcomes
        self._rules = rules

    def claim(self, server: Server, seen: int, choice: UsableServers, tried: Collection[Server]) -> Lease | None:
        """Claim the session's server; None when it may not be used at the moment. `seen` and `choice` as of the pool's view."""
        ledger, states, slot = self._ledger, self._states, server.slot
        if server in tried or ledger.totals[slot] >= server.own_limit:
            return None
        is_ejected = server in choice.trials or (server in choice.keeping and states.is_ejected(slot))
        if is_ejected and states.ejection[slot] != Ejection.TRIAL_DUE:
            return None  # another request is its trial by now
        if server in choice.keeping:
            if self._has_left(server):
                return None
            states.count_session_request(slot)
        elif server in choice.primaries:
            if self._took is not None and not is_ejected:
                self._took(server, choice.primaries)
        # A backup stands in for the others. It may be a page that says sorry: so its sessions leave it, when another can be used.
        elif not is_ejected and (server not in choice.backups or self._has_room(choice.primaries, tried)):
            return None
        ledger.claim(slot)
        trial = self._outcomes.ejections.begin_trial(server) if is_ejected else None
        return Lease(server, ledger, self._outcomes, seen, trial)

    def check_may_move(self, server: Server) -> None:
        """Raise SessionRefused when the session must not go to another server than this one."""
        if not self.may_move(server):
            raise SessionRefused(f"pool {self._pool}: the session's server {server.name} {self._why_not(server)}, and no other "
                                 f'one may have it (sticky.on_failure = "{self._rules.on_failure.value}")')

    def may_move(self, server: Server) -> bool:
        """Whether another server may have the sessions of this one. Needs no lock."""
        return self._rules.on_failure is OnFailure.REBALANCE or self._has_left(server)

    def _has_left(self, server: Server) -> bool:
        """Whether the server is drained, and keeps sessions no more."""
        states, rules = self._states, self._rules
        return bool(states.admin[server.slot] == Admin.DRAIN and (
            not rules.keeps_drained or 0 < rules.drain_ms <= now_ms() - states.drained[server.slot]))

    def _has_room(self, servers: Sequence[Server], tried: Collection[Server]) -> bool:
        totals = self._ledger.totals
        return any(totals[server.slot] < server.max_connections and server not in tried for server in servers)

    def _why_not(self, server: Server) -> str:
        """Why it cannot take the request, in words."""
        states, slot = self._states, server.slot
        if states.admin[slot] == Admin.MAINTENANCE:
            return "is in maintenance"
        if states.check[slot] > Check.UP:
            return "is down"
        if states.is_ejected(slot):
            return "is ejected"
        if self._ledger.totals[slot] >= server.own_limit:
            return "is full"
        return "has just failed" if not server.backup else "is a backup, and others can be used"
