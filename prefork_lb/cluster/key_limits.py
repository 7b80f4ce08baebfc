"""Limits of requests at once over all balancers: each tells what its keys have in flight, and takes a share of the rest.

A worker decides by its own balancer's table, at once (`shared.key_claims`). Here, after each exchange, a key gets a share of its
limit: what it has in flight here, and its part of what is free. Those that have some of it part what is free between them, and
what is too much as well. If each took all that is free, all would, and then none would, and so on. But two things count more than
that the shares add up to the limit:

- Each balancer has at least its part of the limit by number. Else one that has the whole limit in flight, and gives each place
  that becomes free to the next request, would keep all others out.
- One that has none of a key may have one as long as any is free.

Between two exchanges balancers do not know of each other: of a limit that nobody used, each may give all in the same moment.

Few keys are told: of each balancer those that have most of their limit in flight. A key with less than a tenth of its balancer's
part is not told at all.
"""
from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from prefork_lb.cluster.report import Report
from prefork_lb.shared.key_claims import KeyInFlight, KeyShares
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment

MOST_TOLD = 256  # keys in a report: 4 KiB
_SMALL = 0.1  # of a balancer's part of the limit


class SharedKeyLimits:
    """This balancer's part."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        """The segment has room for keys."""
        self._shares = KeyShares(segment, ledger)
        self._own: dict[int, KeyInFlight] = {}  # at the last look

    def look(self, balancers: int) -> list[tuple[int, int, int]]:
        """What the others are to know: keys, what they have in flight here, and their limits."""
        self._own = {each.key: each for each in self._shares.in_flight()}
        large = [each for each in self._own.values() if each.in_flight > 0 and each.in_flight * balancers >= _SMALL * each.limit]
        return [*heapq.nlargest(MOST_TOLD, large, key=_use)]

    def adopt(self, reports: Sequence[Report], names: Sequence[str], name: str) -> None:
        """Take the shares that go with what the other balancers tell. `names` are all that are there, in order, `name` is this
        one's."""
        told: dict[int, dict[str, KeyInFlight]] = {}
        for report in reports:
            for each in report.keys[:MOST_TOLD]:
                told.setdefault(each[0], {})[report.balancer] = KeyInFlight(*each)
        keys = list(told)
        if len(keys) > self._shares.most:
            keys = heapq.nlargest(self._shares.most, keys, key=lambda key: self._urgency(key, told[key]))
        self._shares.set({key: self._share(key, told[key], names, name) for key in keys})

    def _urgency(self, key: int, others: Mapping[str, KeyInFlight]) -> tuple[bool, float]:
        """Keys that are in use here come first, then those that have most of their limits."""
        own = self._own.get(key)
        return own is not None and own.in_flight > 0, sum(map(_use, others.values()))

    def _share(self, key: int, others: Mapping[str, KeyInFlight], names: Sequence[str], name: str) -> int:
        own = self._own.get(key) or KeyInFlight(key, 0, 0)
        # Of balancers with different limits each goes by its own, as soon as a request has asked for it.
        limit = own.limit or max(other.limit for other in others.values())
        free = limit - own.in_flight - sum(other.in_flight for other in others.values())
        # What cannot be divided goes to some: by the key, so that no balancer has more of all keys.
        least = limit // len(names) + ((names.index(name) + key) % len(names) < limit % len(names))
        among = sorted([name, *others])
        part = free // len(among) + ((among.index(name) + key) % len(among) < free % len(among))
        if free > 0 and not own.in_flight:
            part = max(part, 1)
        return max(least, own.in_flight + part)


def _use(key: KeyInFlight) -> float:
    """How much of its limit a key has in flight."""
    return key.in_flight / max(key.limit, 1)
