"""Policies on virtual time: seeded, exact, thousands of requests in a second."""
from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prefork_lb.balance.policy import Policy, PolicyOptions
from tests.unit.balance.candidates import OPTIONS, REQUEST, AnyRequest, Backend, backends, new_policy

Service = Callable[[random.Random], float]
"""Draws how long a request takes, in seconds."""


def fixed(seconds: float) -> Service:
    return lambda rng: seconds


def exponential(mean_s: float) -> Service:
    return lambda rng: rng.expovariate(1 / mean_s)


@dataclass
class Outcome:
    """What came of a load."""

    picks: list[int]
    spread: float  # time average of the most minus the fewest in flight
    per_weight_peak: float  # time average of the highest in-flight per weight
    samples: list[float] = field(default_factory=list)

    @property
    def shares(self) -> list[float]:
        return [count / sum(self.picks) for count in self.picks]


class Simulation:
    """Servers, a policy, and a heap of the moments at which requests end."""

    def __init__(self, policy: str, weights: Sequence[int], seed: int, slots: int | None = None,
                 options: PolicyOptions = OPTIONS) -> None:
        """A server works on `slots` requests at once, in the order in which they came; None: on all of them."""
        self.servers: list[Backend] = backends(*weights)
        self.policy: Policy = new_policy(policy, seed, servers=self.servers, options=options)
        self.now = 0.0
        self._rng = random.Random(seed)
        self._slots = slots
        # For each server the moments at which its slots are free again.
        self._free: list[list[float]] = [[0.0] * (slots or 0) for _ in weights]
        self._ends: list[tuple[float, int, Backend]] = []
        self._claims = 0

    def claim(self, service_s: float, candidates: Sequence[Backend] | None = None, key: bytes = b"") -> Backend:
        """One request that begins now."""
        picked = self.policy.pick(candidates or self.servers, AnyRequest(key=key) if key else REQUEST)
        server = self.servers[picked.slot]
        assert server is picked
        server.in_flight += 1
        self._claims += 1
        heapq.heappush(self._ends, (self._end(server, service_s), self._claims, server))
        return server

    def advance(self, to: float, watch: Callable[[float], None] | None = None) -> None:
        """Let time pass; `watch` is told how long each state lasted."""
        while self._ends and self._ends[0][0] <= to:
            end, _, server = heapq.heappop(self._ends)
            if watch is not None:
                watch(end - self.now)
            self.now = end
            server.in_flight -= 1
        if watch is not None:
            watch(to - self.now)
        self.now = to

    def drain(self) -> None:
        """Let everything end."""
        while self._ends:
            self.advance(self._ends[0][0])

    def poisson(self, rate: float, requests: int, service: Service, warm_up: int = 0) -> Outcome:
        """`requests` requests at random moments, `rate` a second on average, whatever the servers do (an open loop).

        The first `warm_up` are not counted in the outcome.
        """
        picks = [0] * len(self.servers)
        total_time = spread = peak = 0.0

        def watch(seconds: float) -> None:
            nonlocal total_time, spread, peak
            in_flight = [server.in_flight for server in self.servers]
            total_time += seconds
            spread += seconds * (max(in_flight) - min(in_flight))
            peak += seconds * max(server.in_flight / server.weight for server in self.servers)

        for number in range(warm_up + requests):
            counted = number >= warm_up
            self.advance(self.now + self._rng.expovariate(rate), watch if counted else None)
            server = self.claim(service(self._rng))
            if counted:
                picks[server.slot] += 1
        return Outcome(picks, spread / total_time, peak / total_time)

    def _end(self, server: Backend, service_s: float) -> float:
        if self._slots is None:
            return self.now + service_s
        begin = max(self.now, heapq.heappop(self._free[server.slot]))
        heapq.heappush(self._free[server.slot], begin + service_s)
        return begin + service_s
