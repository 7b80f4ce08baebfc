"""Several balancers on virtual time before the same servers: strangers, sharing, or one ledger.

`python -m tests.simulation.balancers` prints the table of docs/cluster.md.
"""
from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import Any

from prefork_lb.cluster.leveling import Leveling

SENT_S = 0.005  # from a balancer's report to its effect on another one


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at random moments, through balancers chosen at random or in turn. `service_s` is the mean, or constant."""

    rate: float
    service_s: float
    is_constant: bool = True
    slots: int = 1 << 30  # requests that a server works on at once
    in_turn: bool = False


class Balancers:
    """`how`: "strangers", "sharing", "adding" (the others' counts as they are), "one ledger", or "telling": each claim and each
    end is told to all others by itself, and is known there after `sent_s`; turns go by all picks that are known."""

    def __init__(self, count: int, servers: int, how: str, interval_s: float = 0.05, seed: int = 1,
                 sent_s: float = SENT_S) -> None:
        self.how, self.count, self.servers, self._interval_s, self._sent_s = how, count, servers, interval_s, sent_s
        self._rng = random.Random(seed)
        self.now = 0.0
        self.totals = [0] * servers
        self._own = [[0] * servers for _ in range(count)]
        self._added = [[0] * servers for _ in range(count)]
        self._reports = [[0] * servers for _ in range(count)]
        self._leveling = [Leveling(servers) for _ in range(count)]
        ledgers = 1 if how == "one ledger" else count
        # Balancers that have run for a while: each one's turns are somewhere else.
        self._last = [self._rng.sample(range(servers), servers) for _ in range(ledgers)]
        self._picks = servers
        self._told = [[0] * servers for _ in range(count)]  # by balancer, what the others know of it
        self._told_last = [[0] * servers for _ in range(count)]
        self._busy, self._waiting = [0] * servers, [list[int]() for _ in range(servers)]
        self._events: list[tuple[float, int, str, Any]] = []
        self._number = self._arrived = 0
        self._area = self._began = 0.0
        if how in ("sharing", "adding"):
            for balancer in range(count):
                self._at(self._rng.random() * interval_s, "report", balancer)

    @property
    def spread(self) -> int:
        """The most minus the fewest in flight at the servers."""
        return max(self.totals) - min(self.totals)

    @property
    def average(self) -> float:
        """The average spread since `begin_counting`."""
        return self._area / (self.now - self._began)

    def begin_counting(self) -> None:
        self._area, self._began = 0.0, self.now

    def claim(self, balancer: int, server: int | None = None) -> int:
        """A request that stays; the server that the balancer picks for it, unless one is given."""
        own = self._own[balancer]
        if server is None:
            loads, last = self._known(balancer)
            least = min(loads)
            server = min((index for index, load in enumerate(loads) if load == least), key=last.__getitem__)
            self._picks += 1
            self._last[balancer % len(self._last)][server] = self._picks
        own[server] += 1
        self.totals[server] += 1
        self._tell(balancer, server, 1, self._picks)
        return server

    def _known(self, balancer: int) -> tuple[list[int], list[int]]:
        """The loads of the servers, and when each one had its last turn, as a balancer knows them."""
        last = self._last[balancer % len(self._last)]
        if self.how == "one ledger":
            return self.totals, last
        loads = [mine + more for mine, more in zip(self._own[balancer], self._added[balancer], strict=True)]
        if self.how == "telling":
            others = [other for other in range(self.count) if other != balancer]
            loads = [load + sum(self._told[other][index] for other in others) for index, load in enumerate(loads)]
            last = [max(turn, *(self._told_last[other][index] for other in others)) for index, turn in enumerate(last)]
        return loads, last

    def _tell(self, balancer: int, server: int, change: int, turn: int) -> None:
        if self.how == "telling":
            self._at(self.now + self._sent_s, "known_to_others", (balancer, server, change, turn))

    def _known_to_others(self, what: tuple[int, int, int, int]) -> None:
        balancer, server, change, turn = what
        self._told[balancer][server] += change
        self._told_last[balancer][server] = max(turn, self._told_last[balancer][server])

    def run(self, seconds: float, load: Load | None = None) -> None:
        """Go on for so long."""
        end = self.now + seconds
        if load is not None:
            self._at(self.now + self._rng.expovariate(load.rate), "arrival", load)
        while self._events and self._events[0][0] <= end:
            moment, _, kind, what = heapq.heappop(self._events)
            self._area += self.spread * (moment - self.now)
            self.now = moment
            getattr(self, f"_{kind}")(what)
        self._area += self.spread * (end - self.now)
        self.now = end

    def _at(self, moment: float, kind: str, what: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, kind, what))

    def _arrival(self, load: Load) -> None:
        self._at(self.now + self._rng.expovariate(load.rate), "arrival", load)
        self._arrived += 1
        balancer = self._arrived % self.count if load.in_turn else self._rng.randrange(self.count)
        server = self.claim(balancer)
        if self._busy[server] < load.slots:
            self._begin(load, server, balancer)
        else:
            self._waiting[server].append(balancer)

    def _begin(self, load: Load, server: int, balancer: int) -> None:
        self._busy[server] += 1
        service_s = load.service_s if load.is_constant else self._rng.expovariate(1 / load.service_s)
        self._at(self.now + service_s, "end", (load, server, balancer))

    def _end(self, what: tuple[Load, int, int]) -> None:
        load, server, balancer = what
        self._busy[server] -= 1
        self._own[balancer][server] -= 1
        self.totals[server] -= 1
        self._tell(balancer, server, -1, 0)
        if self._waiting[server]:
            self._begin(load, server, self._waiting[server].pop(0))

    def _report(self, balancer: int) -> None:
        self._at(self.now + self._interval_s * self._rng.uniform(0.9, 1.1), "report", balancer)
        self._reports[balancer] = own = list(self._own[balancer])
        self._at(self.now + self._sent_s, "news", (balancer, own))

    def _news(self, what: tuple[int, list[int]]) -> None:
        balancer, own = what
        others = [sum(counts) - mine for mine, *counts in zip(self._reports[balancer], *self._reports, strict=True)]
        self._added[balancer] = others if self.how == "adding" else self._leveling[balancer].loads(
            own, others, [1] * self.servers, self.count, balancer)


def burst(how: str, count: int = 3, servers: int = 4, ahead: int = 6, seed: int = 1) -> tuple[int, int]:
    """One balancer has requests `ahead` on one server; 96 come 20 ms apart: the spread after 200 ms, the greatest afterwards."""
    found = Balancers(count, servers, how, seed=seed)
    for _ in range(ahead):
        found.claim(0, 0)
    found.run(1.0)
    spreads = []
    for number in range(96):
        found.claim(number % count)
        spreads.append(found.spread)
        found.run(0.020)
    return spreads[9], max(spreads[9:])


def steady(how: str, count: int, servers: int, load: Load, seconds: float = 20.0, seed: int = 1, sent_s: float = SENT_S
           ) -> float:
    """The average spread."""
    found = Balancers(count, servers, how, seed=seed, sent_s=sent_s)
    found.run(seconds / 10, load)
    found.begin_counting()
    found.run(seconds)
    return found.average


def lasting(how: str, count: int, servers: int, interval_s: float = 0.05, seed: int = 1) -> tuple[float, float]:
    """Every tenth server has ten long requests of one balancer more than the others have; as many more come within two seconds
    as level all. The spread before and after."""
    found = Balancers(count, servers, how, interval_s, seed)
    for server in range(0, servers, 10):
        for _ in range(10):
            found.claim(server % count, server)
    found.run(0.5)
    before, number = found.spread, 9 * servers
    rng = random.Random(seed)
    for _ in range(200):
        for _ in range(number // 200):
            found.claim(rng.randrange(count))
        found.run(0.010)
    return before, found.spread


def least_without_news(servers: int = 4) -> float:
    """The least average spread of three balancers that know nothing of one another, of which each keeps its own requests level.

    Such a balancer can only choose which servers have one request more than the others, by how many it has. Of that number only
    the rest by the number of servers counts, which is taken as random. All choices are tried.
    """
    extra = [list(itertools.combinations(range(servers), count)) for count in range(servers)]
    found = list(itertools.chain(*extra))
    spreads = {}
    for chosen in itertools.product(found, repeat=3):
        counts = [sum(server in some for some in chosen) for server in range(servers)]
        spreads[chosen] = max(counts) - min(counts)
    # Of the third one the best choice for each number can be told apart from those for the others.
    return min(sum(min(sum(spreads[a, b, c] for a in first for b in second) for c in some) for some in extra)
               for first, second in itertools.product(itertools.product(*extra), repeat=2)) / servers ** 3


def main() -> None:
    print("burst: after 200 ms, most afterwards")
    for how in ("one ledger", "strangers", "adding", "sharing"):
        results = [burst(how, seed=seed) for seed in range(20)]
        print(f"  {how:12} {sum(early for early, _ in results) / 20:.1f} {max(most for _, most in results)}")
    print("400 requests/s over 4 servers by 3 balancers, average spread")
    for load in (Load(400, 0.030, slots=4), Load(400, 0.030, slots=4, in_turn=True), Load(400, 0.030, False, 4),
                 Load(400, 0.5, False), Load(50, 2.0, False)):
        row = [f"{how} {steady(how, 3, 4, load):.2f}" for how in ("one ledger", "strangers", "adding", "sharing")]
        print(f"  {load}: {', '.join(row)}")
    print(f"  without news at best {least_without_news():.2f}")
    for sent_s in (0.0, 0.0003, 0.001, 0.002, 0.004):
        found = [steady("telling", 3, 4, Load(400, 0.030, slots=4, in_turn=in_turn), sent_s=sent_s) for in_turn in (False, True)]
        print(f"  each claim and end is known after {1000 * sent_s:g} ms: {found[0]:.2f}, in turn {found[1]:.2f}")
    print("lasting imbalance of 10, 1000 servers: spread left, by balancers and interval")
    for count in (2, 4, 16, 64):  # takes minutes
        row = [f"{interval:g} s: {lasting('sharing', count, 1000, interval)[1]:.0f}" for interval in (0.05, 0.2, 1.0)]
        print(f"  {count:2} balancers: strangers {lasting('strangers', count, 1000)[1]:.0f}, {', '.join(row)}", flush=True)


if __name__ == "__main__":
    main()
