"""How near several balancers that share come to one limit of a rate: `python -m tests.simulation.rates` writes the table of
docs/cluster.md.

A model of the ways that were weighed. What is in use, the meter, is held with its real parts by `tests/unit/cluster/test_rates`.
"""
from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

WAYS = ("one ledger", "strangers", "adding", "shares", "meter")
EVEN, UNEVEN = (1 / 3, 1 / 3, 1 / 3), (0.8, 0.15, 0.05)
INTERVAL_S, SLACK_S, FADING = 0.05, 0.1, 0.8
EXCHANGE, REQUEST = range(2)


class _Balancer:
    """What one knows of a key."""

    def __init__(self, balancers: int) -> None:
        self.due = self.meter = self.used = self.told = self.metered = self.heard = 0.0
        self.demand, self.share = 0.0, 1 / balancers

    def passes(self, now: float, interval: float, burst: float) -> bool:
        due = max(self.due, now)
        if due - now > (max(1.0, burst) - 1) * interval + 1e-12:
            return False
        self.due = due + interval
        return True


def let_through(way: str, per_second: float, burst: int, parts: Sequence[float], times: float, seconds: float = 10.0,
                seed: int = 1) -> float:
    """Requests that are let through, divided by what the limit allows. `times` the rate come at random, divided by `parts`."""
    rng, found, one = random.Random(seed), 0, 1 / per_second
    if way == "one ledger":
        parts = (1.0,)
    balancers = [_Balancer(len(parts)) for _ in parts]
    events = [(rng.random() * INTERVAL_S, EXCHANGE, place) for place in range(len(parts))]
    events += [(rng.expovariate(times * per_second * part), REQUEST, place) for place, part in enumerate(parts)]
    heapq.heapify(events)
    while events[0][0] <= seconds:
        now, kind, place = heapq.heappop(events)
        mine = balancers[place]
        if kind == EXCHANGE:
            heapq.heappush(events, (now + INTERVAL_S * rng.uniform(0.9, 1.1), EXCHANGE, place))
            _exchange(way, balancers, mine, now)
            continue
        heapq.heappush(events, (now + rng.expovariate(times * per_second * parts[place]), REQUEST, place))
        mine.demand += 1
        share = mine.share if way == "shares" else 1.0
        if mine.passes(now, one / share, burst * share):
            mine.used += one
            found += 1
    return found / (per_second * seconds + burst)


def _exchange(way: str, balancers: Sequence[_Balancer], mine: _Balancer, now: float) -> None:
    mine.told = mine.used
    others = sum(each.told for each in balancers if each is not mine)
    news, mine.heard = others - mine.heard, others
    if way == "adding" and news:
        mine.due = max(mine.due, now) + news
    elif way == "shares":
        mine.demand *= FADING
        mine.share = max(0.001, mine.demand / (sum(each.demand for each in balancers) or 1))
    elif way == "meter":
        mine.meter = max(mine.meter, now - SLACK_S) + news + mine.used - mine.metered
        mine.metered = mine.used
        mine.due = max(mine.due, mine.meter)


def main() -> None:
    """Write the table."""
    for per_second, burst in ((2, 1), (50, 1), (50, 20), (1000, 20)):
        for name, parts in (("evenly", EVEN), ("unevenly", UNEVEN)):
            found = (f"{100 * let_through(way, per_second, burst, parts, 3):.0f} %" for way in WAYS)
            print(f"| {per_second}/s, burst {burst}, {name} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
