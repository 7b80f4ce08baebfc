"""A pool: the one filter of candidates, and the claim."""
from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from prefork_lb.accelerate import FastClaims
from prefork_lb.balance.policy import Policy, RequestInfo
from prefork_lb.errors import InvariantError, NoUsableServer, PoolFull
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States, Trial, now_ms
from prefork_lb.upstream.availability import AvailabilityRules, Choice, choose
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.retries import RetryBudget, RetryRules
from prefork_lb.upstream.server import Server

log = logging.getLogger("prefork_lb")

MakeFastClaims = Callable[[Sequence[Server]], FastClaims | None]
"""What claims the given servers fast, as they are weighted now, where anything does."""

_View = tuple[int, Choice, FastClaims | None]

# A trial that has not ended after so long is given up, and there will be another.
_TRIAL_MS = 30_000


class Pool:
    """A set of servers and the policy that picks among them."""

    def __init__(self, name: str, servers: Sequence[Server], policy: Policy, ledger: Ledger, states: States,
                 outcomes: Outcomes, rules: AvailabilityRules, retries: RetryRules, budget: RetryBudget,
                 make_fast_claims: MakeFastClaims) -> None:
        """`make_fast_claims` gives what picks and counts as `policy` does, for servers that are no backups, where it can."""
        self.name = name
        self.servers = servers
        self.outcomes = outcomes
        self.retries = retries
        self.budget = budget
        self._policy = policy
        self._ledger = ledger
        self._states = states
        self._rules = rules
        self._make_fast_claims = make_fast_claims
        # One object, as several threads read and replace it: the index that a fast claim gives is one of this choice's
        # primaries, and the number is that of the changes which it takes into account.
        self._view: _View = (-1, Choice((), ()), None)

    def lease(self, request: RequestInfo, tried: Collection[Server]) -> Lease:
        """Claim a server for `request` that is not in `tried`.

        Pick and count happen under one lock: no other claim, of any worker, comes between. Backups are candidates only
        when no other server is. Raises PoolFull when servers are left but all are at their limit, NoUsableServer when
        none is left.
        """
        ledger = self._ledger
        changes, choice, fast_claims = self._view
        if changes != self._states.changes:
            _, choice, fast_claims = self._look_anew()
        if fast_claims is not None and not tried:
            index = fast_claims.claim()
            if index >= 0:
                return Lease(choice.primaries[index], ledger, self.outcomes)
        ledger.acquire()
        try:
            server = self._trial(choice, tried) if choice.trials else None
            if server is None:
                candidates = self._candidates(choice.primaries, tried) or self._candidates(choice.backups, tried)
                if not candidates:
                    raise self._nobody(choice, tried)
                picked = self._policy.pick(candidates, request)
                if not isinstance(picked, Server) or picked not in candidates:
                    raise InvariantError(f"pool {self.name}: the policy {self._policy!r} picked {picked!r}: no candidate")
                server = picked
            ledger.claim(server.slot)
        finally:
            ledger.release_lock()
        return Lease(server, ledger, self.outcomes)

    def tick(self) -> None:
        """What a few times a second is often enough for: idle connections too old, penalties that end, weights that grow."""
        for server in self.servers:
            server.idle.expire()
        self.outcomes.tick()
        if self._view[1].is_ramping:
            self._look_anew()

    def close(self) -> None:
        """Close all idle connections."""
        self._view = (-1, Choice((), ()), None)  # it holds buffers of the shared memory
        for server in self.servers:
            server.idle.close()

    def _look_anew(self) -> _View:
        # The number first: a change that comes while we look is looked at again.
        changes = self._states.changes
        was_panic = self._view[1].is_panic
        choice = choose(self.servers, self._states, self._rules, now_ms())
        # While a trial is due, picks must see it.
        fast_claims = self._make_fast_claims(choice.primaries) if choice.primaries and not choice.trials else None
        view = self._view = changes, choice, fast_claims
        if choice.is_panic != was_panic:
            log.warning("pool %s: %s", self.name, "panic: too few servers are up by their checks; all are used" if choice.is_panic
                        else "no panic any more: only servers that are up are used")
        return view

    def _trial(self, choice: Choice, tried: Collection[Server]) -> Server | None:
        """An ejected server whose turn has come to show that it is well."""
        for server in choice.trials:
            if self._states.trial[server.slot] == Trial.DUE and server not in tried:
                self.outcomes.begin_trial(server, now_ms() + _TRIAL_MS)
                return server
        return None

    def _candidates(self, servers: Sequence[Server], tried: Collection[Server]) -> Sequence[Server]:
        totals, penalties = self._ledger.totals, self._ledger.penalties
        all_can = not tried
        for server in servers:
            in_flight = totals[server.slot]
            server.in_flight = in_flight + penalties[server.slot]
            if in_flight >= server.max_connections:
                all_can = False
        if all_can:
            return servers
        return [server for server in servers if totals[server.slot] < server.max_connections and server not in tried]

    def _nobody(self, choice: Choice, tried: Collection[Server]) -> PoolFull | NoUsableServer:
        left = [server for server in (*choice.primaries, *choice.backups) if server not in tried]
        if left:
            return PoolFull(f"pool {self.name}: every server is at its max_connections")
        return NoUsableServer(f"pool {self.name}: no server is left to try")
