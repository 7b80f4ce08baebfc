"""What a balancer adds to its own counts, so that all balancers together come near one ledger.

A pick goes by this balancer's own requests in flight, which it knows exactly, and by a number for each server that is made here
from what all balancers reported last. That is some 50 ms old, so adding the others' counts as they are makes things worse than
no sharing at all: every balancer sees the same gap, and all of them fill it. (400 requests/s of 30 ms over 4 servers by 3
balancers: a spread of 4.1 on average, where strangers have 1.5. See docs/cluster.md.) Three rules make it better:

- **Each corrects its part.** Of what a server has too many over all, each of B balancers takes 1/B upon itself. All see the same
  reports and do the same, so together they correct it once.
- **Only what lasts is corrected.** Each balancer levels its own requests at every pick, much faster than reports come. What is
  left for the reports are imbalances that stay: long requests, sessions, a balancer that had other servers. So both the total and
  the own count are smoothed over three reports.
- **Fractions fall to different balancers on different servers.** A server with one request too many is left out by one balancer,
  not by all or none.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

_SMOOTHING = 1 / 3  # of the newest report
# A total that is off by less than this counts as level: such a difference comes and goes between two reports.
_NOISE = 0.75


class Leveling:
    """Of one pool, in one balancer. Servers stand in the same order in all balancers."""

    def __init__(self, servers: int) -> None:
        self._totals = [0.0] * servers  # how much a server has more than its share by weight, over all balancers
        self._own = [0.0] * servers  # likewise, of this balancer's requests

    def loads(self, own: Sequence[int], others: Sequence[int], weights: Sequence[int], balancers: int, place: int) -> list[int]:
        """For each server the load to be added to its own count, 0 or more.

        `own` are this balancer's requests in flight when it made its report, `others` the sums of the others' newest reports;
        `weights` of 0 are those of servers that get no requests. `place` is this balancer's among the `balancers`, from 0.
        """
        totals = [mine + theirs for mine, theirs in zip(own, others, strict=True)]
        self._smooth(self._totals, totals, weights)
        self._smooth(self._own, own, weights)
        found = []
        for index, (total, mine) in enumerate(zip(self._totals, self._own, strict=True)):
            exact = total / balancers - mine
            if not weights[index]:
                found.append(0)
            elif abs(total) < _NOISE:
                found.append(round(exact))
            else:
                found.append(math.floor(exact + ((place + index) % balancers + 0.5) / balancers))
        # A policy expects no negative load. As many for each unit of weight more leaves the servers' order as it is.
        lift = max((-load / weight for load, weight in zip(found, weights, strict=True) if weight), default=0.0)
        return [load + math.ceil(lift) * weight for load, weight in zip(found, weights, strict=True)] if lift > 0 else found

    @staticmethod
    def _smooth(kept: list[float], counts: Sequence[int], weights: Sequence[int]) -> None:
        counted = sum(count for count, weight in zip(counts, weights, strict=True) if weight)
        each = counted / (sum(weights) or 1)
        for index, (count, weight) in enumerate(zip(counts, weights, strict=True)):
            kept[index] += _SMOOTHING * (count - each * weight - kept[index]) if weight else -kept[index]
