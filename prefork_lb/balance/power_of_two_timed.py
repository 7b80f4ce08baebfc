"""Power of two choices by the times of answers."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo
from prefork_lb.balance.timed_policy import TimedPolicy, least_time_load, peak_ewma_load
from prefork_lb.balance.weighted_draw import draw


class PowerOfTwoTimed(TimedPolicy):
    """Two distinct candidates drawn by weight; the lower load by `peak-ewma` or `least-time` wins, of equals the first drawn.

    A slow server that is due to be tried wins when it is drawn.
    """

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        self._rng = setup.rng
        self._is_least_time = setup.options.load == "least-time"

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        first = draw(self._rng, candidates)
        if len(candidates) == 1:
            return first
        second = draw(self._rng, [server for server in candidates if server is not first])
        now, times = self.now(), self.times
        due = times.due([server for server in (first, second)
                         if times.excess(server, now) or (self._is_least_time and times.is_stale(server, now))], now)
        if due is not None:
            if self._is_least_time and times.is_stale(due, now):
                times.forget(due)
            return due
        return second if self._load(second, now) * first.weight < self._load(first, now) * second.weight else first

    def _load(self, server: Candidate, now: int) -> int:
        if self._is_least_time:
            return least_time_load(server, self.times.microseconds(server, now))
        return peak_ewma_load(server, self.times.excess(server, now))
