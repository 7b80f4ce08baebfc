"""Limits of requests at once over all balancers: each tells what its keys have in flight, and takes a share of the rest.

A worker decides by its own balancer's table, at once (`shared.key_claims`). Here, after each exchange, a key gets a share of its
limit: what it has in flight here, and its part of what is free. Those that have some of it part what is free between them, and
what is too much as well. So the shares add up to the limit; if each took all that is free, all would, and then none would, and
so on. But each balancer has at least its part of the limit by number: who comes late need not wait until others let go.

Between two exchanges balancers do not know of each other: of a limit that nobody used, each may give all in the same moment.

Few keys are told: of each balancer those that have most of their limit in flight. A key with less than half of its balancer's
part is not told at all.
"""
from __future__ import annotations

import heapq
from collections.abc import Sequence

from prefork_lb.cluster.report import Report
from prefork_lb.shared.key_claims import KeyInFlight, KeyShares
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment

MOST_TOLD = 256  # keys in a report: 4 KiB
_SMALL = 0.5  # of a balancer's part of the limit


class SharedKeyLimits:
    """This balancer's part."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        """The segment has room for keys."""
        self._shares = KeyShares(segment, ledger)
        self._own: dict[int, KeyInFlight] = {}  # at the last look

    def look(self, balancers: int) -> list[tuple[int, int, int]]:
        """What the others are to know: keys, what they have in flight here, and their limits."""
        self._own = {each.key: each for each in self._shares.in_flight()}
        large = [each for each in self._own.values() if each.in_flight * balancers >= _SMALL * each.limit]
        return [*heapq.nlargest(MOST_TOLD, large, key=lambda each: each.in_flight / max(each.limit, 1))]

    def adopt(self, reports: Sequence[Report], balancers: int, place: int) -> None:
        """Take the shares that go with what the balancers tell that are there. `place` is this one's among all `balancers`."""
        told: dict[int, list[KeyInFlight]] = {}
        for report in reports:
            for key in report.keys:
                told.setdefault(key[0], []).append(KeyInFlight(*key))
        self._shares.set({key: self._share(key, others, balancers, place) for key, others in told.items()})

    def _share(self, key: int, others: Sequence[KeyInFlight], balancers: int, place: int) -> int:
        own = self._own.get(key)
        limit = own.limit if own else max(other.limit for other in others)
        mine = own.in_flight if own else 0
        free = limit - mine - sum(other.in_flight for other in others)
        among = len(others) + 1
        # Where the limit cannot be divided, the part by number is larger for some balancers: for others with another key.
        least = limit // balancers + ((place + key) % balancers < limit % balancers)
        return max(least, mine + (-(-free // among) if free > 0 else free // among))
