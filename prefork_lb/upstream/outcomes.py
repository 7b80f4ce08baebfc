"""What becomes of a server after its requests: failures in a row, the verdict of a trial, the load that failures leave."""
from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States, now_ms
from prefork_lb.upstream.answering import Answering
from prefork_lb.upstream.ejection import EjectionRules, Ejections, Trial
from prefork_lb.upstream.response_times import ResponseTimes
from prefork_lb.upstream.server import Server

# A failure counts as load for so many times the usual response time. A server that fails at once would else look idle and attract
# requests; this way it gets a twentieth of its share at most.
_TIMES_USUAL: Final = 20
_LONGEST_PENALTY_S: Final = 300.0


class Outcomes:
    """Of one pool, in one worker; what it decides holds for all workers.

    `seen` is the count of changes that the request's claim took into account. A request that was claimed before its server last
    came back says nothing about the server as it is now, and one that is no trial says nothing about a server that is ejected.
    """

    def __init__(self, states: States, ledger: Ledger, ejections: Ejections, rules: EjectionRules,
                 answering: Answering | None = None) -> None:
        """`answering` hears how long answers take; None: the pool's policy does not go by that."""
        self.answering = answering
        self.streaks = states.streak
        self.times = ResponseTimes()
        self.failing = rules.statuses
        self.ejections = ejections
        self._states = states
        self._ledger = ledger
        self._rules = rules
        self._penalties: deque[tuple[int, int]] = deque()  # when it ends, slot

    def use(self, servers: Sequence[Server]) -> None:
        """The pool has these servers from now on."""
        self.ejections.use(servers)
        if self.answering is not None:
            self.answering.use(len(servers))

    def succeeded(self, server: Server, seen: int, trial: Trial | None) -> None:
        """A request has ended well. To be called when it is a trial or the server's streak is not 0."""
        with self._ledger.locked():
            if trial is not None:
                self.ejections.pass_trial(trial)
            elif self._counts(server, seen):
                self._states.streak[server.slot] = 0

    def failed(self, server: Server, why: str, seen: int, trial: Trial | None) -> None:
        """A request has failed."""
        with self._ledger.locked():
            if trial is not None and not trial.is_judged:
                self.ejections.fail_trial(trial, why)
            elif self._counts(server, seen):
                self.ejections.count_failure(server, why)

    def note_failure(self, server: Server, why: str) -> None:
        """A request got no whole answer from the server: let operators see why, also when the server is well again."""
        with self._ledger.locked():
            self._states.note_failure(server.slot, why)

    def penalise(self, server: Server, penalty_s: float) -> None:
        """Let a request that failed, or was told to come later, count as load for `penalty_s` seconds at least, if the pool has
        `ejection.penalty`. To be called while the claim stands: without one a server that was removed gives its slot away."""
        if not self._rules.penalty_s:
            return
        seconds = max(self._rules.penalty_s, penalty_s, _TIMES_USUAL * self.times.median())
        self._ledger.penalise(server.slot, 1)
        self._penalties.append((now_ms() + int(1000 * min(seconds, _LONGEST_PENALTY_S)), server.slot))

    def refused(self, trial: Trial | None) -> None:
        """A server has told a client to come again later (429): it works, but it is not idle."""
        if trial is not None:
            with self._ledger.locked():
                self.ejections.pass_trial(trial)

    def left(self, trial: Trial) -> None:
        """A trial's request ended for a reason that is not the server's: its client left, or the connection had gone stale."""
        with self._ledger.locked():
            if trial.is_answered:
                self.ejections.pass_trial(trial)
            else:
                self.ejections.leave_trial(trial)

    def tick(self) -> None:
        """Take off the load of failures that are long enough ago, and judge trials that go on. Called a few times a second."""
        self.ejections.tick()
        self.times.take_in()
        now = now_ms()
        waiting, left = self._penalties, []
        while waiting:
            until, slot = waiting.popleft()
            if until <= now:
                self._ledger.penalise(slot, -1)
            else:
                left.append((until, slot))
        waiting.extend(left)

    def _counts(self, server: Server, seen: int) -> bool:
        return not self._states.is_ejected(server.slot) and seen >= self._states.risen_change[server.slot]
