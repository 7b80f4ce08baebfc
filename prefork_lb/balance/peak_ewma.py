"""Peak EWMA: least connections among the servers that are not slow."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.least_connections import LeastConnections
from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo
from prefork_lb.balance.timed_policy import TimedPolicy, peak_ewma_load


class PeakEWMA(LeastConnections, TimedPolicy):
    """Fewest in-flight requests among the servers that answer as quickly as the pool; slow ones only for what is left.

    A slow server's load is (in-flight + 1) times as much as it is slower, so it gets a request when all others have that much
    to do, and else one a second, to hear of it. While no server is slow this is least-connections, turns included.
    """

    def __init__(self, setup: PolicySetup) -> None:
        LeastConnections.__init__(self, setup)
        TimedPolicy.__init__(self, setup)

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        now = self.now()
        times = self.times
        excess = [times.excess(server, now) for server in candidates]
        if not any(excess):
            return super().pick(candidates, request)
        slow = [server for server, above in zip(candidates, excess, strict=True) if above]
        picked = times.due(slow, now)
        if picked is None:
            picked = self._least_of_slow(candidates, excess)
        if picked is None:
            return super().pick([server for server, above in zip(candidates, excess, strict=True) if not above], request)
        self.took(picked, tuple(candidates))
        return picked

    def _least_of_slow(self, candidates: Sequence[Candidate], excess: Sequence[int]) -> Candidate | None:
        """The slow server whose load is less than that of all others; None: another one has the least."""
        best, best_load, best_weight = None, 1, 0  # infinite
        for server, above in zip(candidates, excess, strict=True):
            load = peak_ewma_load(server, above)
            difference = load * best_weight - best_load * server.weight
            if difference < 0 or (difference == 0 and not above and best is not None):
                best, best_load, best_weight = server if above else None, load, server.weight
        return best
