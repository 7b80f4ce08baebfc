"""What becomes of a server after its requests: streaks of failures, ejection and the way back, load that failures leave."""
from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States, Trial, now_ms
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.times import ResponseTimes

log = logging.getLogger("prefork_lb")

_JITTER = 0.1
# An answer that takes as long as others takes its share of the load; one that fails in no time must not get more than a
# twentieth for it.
_TIMES_USUAL = 20
_LONGEST_PENALTY_S = 300.0


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """Of a pool; see config.model.EjectionConfig. Times are milliseconds."""

    failures: int = 5
    share: int = 0
    window_ms: int = 10_000
    least_requests: int = 20
    ms: int = 10_000
    max_ms: int = 300_000
    max_ejected: int = 50
    statuses: frozenset[int] = frozenset(range(500, 600))
    penalty_s: float = 1.0


class Outcomes:
    """Of one pool, in one worker; what it decides holds for all workers."""

    def __init__(self, pool: str, servers: Sequence[Server], states: States, ledger: Ledger, rules: EjectionRules,
                 rng: random.Random) -> None:
        self.streaks = states.streak
        self.times = ResponseTimes()
        self.failing = rules.statuses
        self._pool = pool
        self._servers = servers
        self._states = states
        self._ledger = ledger
        self._rules = rules
        self._rng = rng
        self._penalties: deque[tuple[int, int]] = deque()  # when it ends, slot

    def succeeded(self, server: Server) -> None:
        """A request has ended well. To be called when the server's streak is not 0."""
        states, slot = self._states, server.slot
        with self._ledger.locked():
            if states.ejected_until[slot]:
                if states.trial[slot] <= Trial.DUE:
                    return  # it was sent before the ejection
                states.ejected_until[slot] = 0
                states.trial[slot] = Trial.NONE
                states.returned[slot] = states.risen[slot] = now_ms()
                states.changed()
                log.warning("pool %s: server %s is back: a request succeeded", self._pool, server.name)
            states.streak[slot] = 0

    def failed(self, server: Server, why: str, penalty_s: float) -> None:
        """A request has failed. `penalty_s`: for how long it counts as load at least, if anything is set to."""
        self._penalise(server, penalty_s)
        rules, states, slot = self._rules, self._states, server.slot
        with self._ledger.locked():
            if states.ejected_until[slot]:
                if states.trial[slot] > Trial.DUE:
                    self._eject(server, f"its trial failed: {why}")
                return
            states.streak[slot] += 1
            streak = states.streak[slot]
            reason = ""
            if rules.failures and streak >= rules.failures:
                reason = f"{streak} failures in a row, the last: {why}"
            elif rules.share:
                reason = self._share_reason(slot)
            if reason and self._may_eject(server):
                self._eject(server, reason)

    def refused(self, server: Server, penalty_s: float) -> None:
        """A server has told a client to come again later (429): no failure of its own, but no sign of idleness, either."""
        self._penalise(server, penalty_s)

    def begin_trial(self, server: Server, until_ms: int) -> None:
        """The next request of an ejected server is its trial, given up at `until_ms`. The lock must be held."""
        self._states.trial[server.slot] = until_ms
        self._states.changed()

    def tick(self) -> None:
        """Take off the load of failures that are long enough ago. Called a few times a second."""
        now = now_ms()
        waiting, left = self._penalties, []
        while waiting:
            until, slot = waiting.popleft()
            if until <= now:
                self._ledger.penalise(slot, -1)
            else:
                left.append((until, slot))
        waiting.extend(left)

    def _penalise(self, server: Server, penalty_s: float) -> None:
        if not self._rules.penalty_s:
            return
        seconds = max(self._rules.penalty_s, penalty_s, _TIMES_USUAL * self.times.median())
        self._ledger.penalise(server.slot, 1)
        self._penalties.append((now_ms() + int(1000 * min(seconds, _LONGEST_PENALTY_S)), server.slot))

    def _share_reason(self, slot: int) -> str:
        rules, states, now = self._rules, self._states, now_ms()
        requests = self._ledger.requests([slot])
        if now - states.window[slot] >= rules.window_ms:
            states.window[slot], states.window_failures[slot], states.window_requests[slot] = now, 0, requests - 1
        states.window_failures[slot] += 1
        failures, of = states.window_failures[slot], requests - states.window_requests[slot]
        if of >= rules.least_requests and failures * 100 >= rules.share * of:
            return f"{failures} of {of} requests failed"
        return ""

    def _may_eject(self, server: Server) -> bool:
        states = self._states
        out = sum(1 for other in self._servers if states.ejected_until[other.slot])
        is_left = any(other is not server and states.is_usable(other.slot) for other in self._servers)
        # The first one may always go, if another is left (Envoy's rule, with the limit reached counted as allowed).
        return is_left and (not out or 100 * (out + 1) <= self._rules.max_ejected * len(self._servers))

    def _eject(self, server: Server, reason: str) -> None:
        rules, states, slot, now = self._rules, self._states, server.slot, now_ms()
        well_ms = now - states.returned[slot] if states.returned[slot] and not states.ejected_until[slot] else 0
        number = max(0, states.ejections[slot] - well_ms // rules.ms) + 1
        ms = min(rules.ms * number, rules.max_ms)
        ms += int(ms * _JITTER * self._rng.random())
        states.ejections[slot] = number
        states.trial[slot] = Trial.NONE
        states.ejected_until[slot] = now + ms
        states.changed()
        log.warning("pool %s: server %s is ejected for %.1f s: %s", self._pool, server.name, ms / 1000, reason)
