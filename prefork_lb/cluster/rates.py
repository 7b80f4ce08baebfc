"""Limits of a rate over all balancers: each tells what its keys use, and takes away what they use at others.

A worker lets a request through by its own balancer's table, at once. Here, after each exchange, a meter for each key adds up the
uses of all balancers, by the same algorithm as the table (`shared.rate_table`), and the table's instant is raised to the meter's.
What was let through too much since the last exchange is so taken off from what comes next: in the long run the rate is kept,
whatever the interval.

The meter reckons with the time between exchanges as if it were one moment. If it added what others have used to the table's
instant, a key with a small burst would get too little: of the time in which others used the rate, the table has no memory.
(Three balancers, 50/s with a burst of 1, three times as many requests at random: 73 % of what the limit allows, by the meter
100 %. To divide the rate by shares of the demand gives 70 %, and 14 % at 2/s. See docs/cluster.md.)

Few keys are told: of each balancer those that use most of their rate. A key that uses less than a tenth of it, divided by the
balancers, is not told at all.
"""
from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefork_lb.clock import Clock
from prefork_lb.cluster.report import Report
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.rate_table import RateTable
from prefork_lb.shared.rate_uses import RateUses
from prefork_lb.shared.segment import Segment

MOST_TOLD = 256  # keys in a report: 4 KiB
_CANDIDATES = 4096
_HALF_S = 1.0  # after so long a use counts half
_STEADY_S = 1.44 * _HALF_S  # what the whole rate, used steadily, adds up to by that
_SMALL = 0.1  # keys count that use so much of their rate, divided by the balancers
_MOST_SLACK_S = 1.0
_LAST_NS = 1 << 62


@dataclass(slots=True)
class _Own:
    """A key that this balancer lets through."""

    used_ns: int = 0  # of its rate, since the key is known
    recent_ns: float = 0.0  # the same, fading


@dataclass(slots=True)
class _Heard:
    """What another balancer has told last."""

    run: int
    number: int
    used_us: Mapping[int, int]


class SharedRates:
    """This balancer's part."""

    def __init__(self, segment: Segment, ledger: Ledger, clock: Clock) -> None:
        self._uses, self._table, self._clock = RateUses(segment), RateTable(segment, ledger), clock
        self._own: dict[int, _Own] = {}
        self._told: set[int] = set()
        self._meters: dict[int, int] = {}  # by key the instant up to which all balancers together have used its rate
        self._heard: dict[str, _Heard] = {}
        self._looked, self._slack_ns = clock(), 0

    def look(self, balancers: int) -> list[tuple[int, int]]:
        """What the others are to know: keys, and the microseconds of their rate that they have used here. To be asked once an
        exchange."""
        elapsed_s = self._clock() - self._looked
        self._looked += elapsed_s
        # Uses that come together now may be as old as two exchanges.
        self._slack_ns = int(1e9 * min(2 * elapsed_s, _MOST_SLACK_S))
        news = self._uses.news()
        self._meter(news)
        self._forget_meters()
        fading = 0.5 ** (elapsed_s / _HALF_S)
        for own in self._own.values():
            own.recent_ns *= fading
        for key, used_ns in news.items():
            own = self._own.setdefault(key, _Own())
            own.used_ns += used_ns
            own.recent_ns += used_ns
        self._choose(1e9 * _STEADY_S * _SMALL / balancers)
        return [(key, self._own[key].used_ns // 1000) for key in self._told]

    def adopt(self, reports: Sequence[Report]) -> None:
        """Take away what the balancers that are there have let through since their reports before."""
        heard, used = self._heard, dict[int, int]()
        self._heard = {report.balancer: _Heard(report.run, report.number, dict(report.rates)) for report in reports}
        for name, now in self._heard.items():
            before = heard.get(name)
            # The first report of a run says where it begins.
            if before is not None and before.run == now.run and before.number != now.number:
                for key, total in now.used_us.items():
                    known = before.used_us.get(key, 0)
                    # Fewer: the key was left out meanwhile, and begins anew.
                    used[key] = used.get(key, 0) + 1000 * (total - known if total >= known else total)
        used = {key: ns for key, ns in used.items() if ns}
        self._meter(used)
        self._table.raise_to({key: self._meters[key] for key in used}, self._now_ns())

    def go_alone(self) -> None:
        """What others tell from now on does not go on from what they have told."""
        self._heard = {}

    def _now_ns(self) -> int:
        return int(1e9 * self._clock())

    def _meter(self, used: Mapping[int, int]) -> None:
        earliest = self._now_ns() - self._slack_ns
        for key, ns in used.items():
            self._meters[key] = min(max(self._meters.get(key, 0), earliest) + ns, _LAST_NS)

    def _forget_meters(self) -> None:
        earliest = self._now_ns() - self._slack_ns
        self._meters = {key: at for key, at in self._meters.items() if at > earliest}
        if len(self._meters) > 2 * _CANDIDATES:
            self._meters = dict(heapq.nlargest(_CANDIDATES, self._meters.items(), key=lambda item: item[1]))

    def _choose(self, least_ns: float) -> None:
        """Choose the keys that are told. One that is told no more is forgotten: the others begin anew with it, too."""
        if len(self._own) > _CANDIDATES:
            self._own = dict(heapq.nlargest(_CANDIDATES, self._own.items(), key=lambda item: item[1].recent_ns))
        wanted = {key: own.recent_ns for key, own in self._own.items() if own.recent_ns >= least_ns}
        chosen = set(heapq.nlargest(MOST_TOLD, wanted, key=wanted.__getitem__))
        self._own = {key: own for key, own in self._own.items()
                     if key in chosen or (key not in self._told and own.recent_ns >= least_ns / 64)}
        self._told = chosen
