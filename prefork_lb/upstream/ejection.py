"""Ejection: when a server's failures take it out of the pool, for how long, and the trial that brings it back.

States and transitions are in `shared.transitions`; here is what signals their events. What one worker decides holds for all.
"""
from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.transitions import StateEvent
from prefork_lb.upstream.server import Server

log = logging.getLogger("prefork_lb")

_JITTER = 0.1
# The head of the trial's response came, and its body goes on for longer than this: the server is back. A tunnel or a download of
# hours must not keep it out.
_ANSWERED_MS = 2000
# After a trial whose client left before the answer: a server that hangs gets a fifth of the time one request at most.
_PAUSE_TIMES = 4
_LEAST_PAUSE_MS = 1000


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """Of a pool; see config.pool.EjectionConfig. Times are milliseconds."""

    failures: int = 5
    share: int = 0
    window_ms: int = 10_000
    least_requests: int = 20
    ms: int = 10_000
    max_ms: int = 300_000
    max_ejected: int = 50
    statuses: frozenset[int] = frozenset(range(500, 600))
    penalty_s: float = 1.0


class Trial:
    """The one request that decides whether an ejected server is back. Its lease holds this, and no other lease does.

    It is judged once: by the end of its request, or while a long response goes on.
    """

    __slots__ = ("began_ms", "is_answered", "is_judged", "server")

    def __init__(self, server: Server, began_ms: int) -> None:
        self.server = server
        self.began_ms = began_ms
        self.is_answered = False  # the head of a response came, with a status that is no failure
        self.is_judged = False


class Ejections:
    """Of one pool, in one worker."""

    def __init__(self, pool: str, servers: Sequence[Server], states: States, ledger: Ledger, rules: EjectionRules,
                 rng: random.Random) -> None:
        self._pool = pool
        self._servers = servers
        self._states = states
        self._ledger = ledger
        self._rules = rules
        self._rng = rng
        self._trials: list[Trial] = []  # under way by requests of this worker; changed under the lock

    def use(self, servers: Sequence[Server]) -> None:
        """The pool has these servers from now on."""
        self._servers = servers

    def count_failure(self, server: Server, why: str) -> None:
        """Count a failure of a request that was no trial; the server is ejected if it was one too many. The lock must be held."""
        rules, states, slot = self._rules, self._states, server.slot
        states.streak[slot] += 1
        streak = states.streak[slot]
        reason = ""
        if rules.failures and streak >= rules.failures:
            reason = f"{streak} failures in a row, the last: {why}"
        elif rules.share:
            reason = self._share_reason(slot)
        if reason and self._may_eject(server):
            self._eject(server, StateEvent.FAILED, reason)

    def begin_trial(self, server: Server) -> Trial:
        """The request that has just claimed the server is its trial. The lock must be held; a trial must be due."""
        self._states.begin_trial(server.slot, self._ledger.row)
        for older in [trial for trial in self._trials if trial.server is server]:
            # This worker stood still, the server's trial became due again, and now this worker has it once more.
            self._close(older)
        trial = Trial(server, now_ms())
        self._trials.append(trial)
        return trial

    def pass_trial(self, trial: Trial) -> None:
        """The server did its part: it is back. The lock must be held. Nothing happens when the trial was judged before."""
        if self._judge(trial):
            self._states.pass_trial(trial.server.slot)
            log.warning("pool %s: server %s is back: a request succeeded", self._pool, trial.server.name)

    def fail_trial(self, trial: Trial, why: str) -> None:
        """The server failed: it is out for longer. The lock must be held. Nothing happens when the trial was judged before."""
        if self._judge(trial):
            self._eject(trial.server, StateEvent.TRIAL_FAILED, f"its trial failed: {why}")

    def leave_trial(self, trial: Trial) -> None:
        """The request ended before the server's answer, and not because of the server: another trial is due in a moment.

        The lock must be held. Nothing happens when the trial was judged before.
        """
        if self._judge(trial):
            now = now_ms()
            pause_ms = min(max(_LEAST_PAUSE_MS, _PAUSE_TIMES * (now - trial.began_ms)), self._rules.max_ms)
            self._states.eject(trial.server.slot, StateEvent.TRIAL_LEFT, now + pause_ms)

    def tick(self) -> None:
        """Judge trials whose responses have gone on for long enough, and show that this worker runs, for the sake of the others.

        To be called a few times a second. Takes the lock where there are any.
        """
        if not self._trials:
            return
        with self._ledger.locked():
            before_ms = now_ms() - _ANSWERED_MS
            for trial in list(self._trials):
                if trial.is_answered and trial.began_ms <= before_ms:
                    self.pass_trial(trial)
                else:
                    self._states.renew_trial(trial.server.slot, self._ledger.row)

    def _judge(self, trial: Trial) -> bool:
        """Whether this trial decides: it was not judged before, and was not taken from this worker while that stood still."""
        if trial.is_judged:
            return False
        self._close(trial)
        return self._states.has_trial(trial.server.slot, self._ledger.row)

    def _close(self, trial: Trial) -> None:
        trial.is_judged = True
        self._trials.remove(trial)

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
        out = sum(1 for other in self._servers if states.is_ejected(other.slot))
        is_left = any(other is not server and states.is_usable(other.slot) for other in self._servers)
        # The first one may always go, if another is left (Envoy's rule, with the limit reached counted as allowed).
        return is_left and (not out or 100 * (out + 1) <= self._rules.max_ejected * len(self._servers))

    def _eject(self, server: Server, event: StateEvent, reason: str) -> None:
        rules, states, slot, now = self._rules, self._states, server.slot, now_ms()
        well_ms = now - states.returned[slot] if event is StateEvent.FAILED and states.returned[slot] else 0
        number = max(0, states.ejections[slot] - well_ms // rules.ms) + 1
        ms = min(rules.ms * number, rules.max_ms)
        ms += int(ms * _JITTER * self._rng.random())
        states.eject(slot, event, now + ms, reason)
        states.ejections[slot] = number
        log.warning("pool %s: server %s is ejected for %.1f s: %s", self._pool, server.name, ms / 1000, reason)
