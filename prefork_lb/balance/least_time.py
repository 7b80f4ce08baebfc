"""Least time: the server whose answer is due soonest, by its average time and what it has in flight."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo
from prefork_lb.balance.rotation import Rotation
from prefork_lb.balance.timed_policy import TimedPolicy, least_time_load


class LeastTime(TimedPolicy):
    """The least average time x (in-flight + 1) / weight; ties take turns over all workers.

    Source: nginx's documentation of `least_time header`. The average is that of `AnswerTimes`, so failures and silence count as
    slow, a slow server is tried once a second, and one that was not picked for ten seconds is tried, too.
    """

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        self._rotation = Rotation(setup.memory)

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        now, times = self.now(), self.times
        total_weight = sum(server.weight for server in candidates)
        equal = all(server.weight == candidates[0].weight for server in candidates)
        due = times.due([server for server in candidates if times.excess(server, now) or times.is_stale(server, now)], now)
        if due is not None:
            if times.is_stale(due, now):
                times.forget(due)
            self._rotation.taken(due, total_weight, equal)
            return due
        tied: list[Candidate] = []
        best_load, best_weight = 1, 0  # infinite
        for server in candidates:
            load = least_time_load(server, times.microseconds(server, now))
            difference = load * best_weight - best_load * server.weight
            if difference < 0:
                best_load, best_weight, tied = load, server.weight, [server]
            elif difference == 0:
                tied.append(server)
        return self._rotation.pick(tied, total_weight, equal)
