"""The package's own simulation, as the tests of policies use it: servers by their weights, constant or random service times."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.balance.policy import PolicyOptions
from prefork_lb.simulate.servers import DescribedServer
from prefork_lb.simulate.service_times import Draw, parse_service_times
from prefork_lb.simulate.simulation import SimulatedServer, simulated
from prefork_lb.simulate.simulation import Simulation as Core
from tests.unit.balance.candidates import OPTIONS, new_policy


def fixed(seconds: float) -> Draw:
    return parse_service_times(f"constant:{seconds}").draw


def exponential(mean_s: float) -> Draw:
    return parse_service_times(f"exponential:{mean_s}").draw


@dataclass
class Outcome:
    """What came of a load."""

    picks: list[int]
    spread: float  # time average of the most minus the fewest in flight, for each unit of weight
    per_weight_peak: float  # time average of the highest in-flight per weight

    @property
    def shares(self) -> list[float]:
        return [count / sum(self.picks) for count in self.picks]


class Simulation(Core):
    """Servers with the names a, b, c, ... and no limit but their workers."""

    def __init__(self, policy: str, weights: Sequence[int], seed: int, slots: int | None = None,
                 options: PolicyOptions = OPTIONS) -> None:
        """A server works on `slots` requests at once, in the order in which they came; None: on all of them."""
        names = map(chr, range(ord("a"), ord("a") + len(weights)))
        servers = simulated([DescribedServer(name, weight, slots or 0) for name, weight in zip(names, weights, strict=True)])
        super().__init__(servers, lambda clock: new_policy(policy, seed, servers=servers, options=options, clock=clock))
        self._rng = random.Random(seed)

    def claim(self, service_s: float, candidates: Sequence[SimulatedServer] | None = None,
              key: bytes = b"") -> SimulatedServer:
        self.request.key = key
        server = super().claim(service_s, candidates)
        assert server is not None
        assert any(server is each for each in candidates or self.servers)
        return server

    def poisson(self, rate: float, requests: int, service: Draw, warm_up: int = 0) -> Outcome:
        """`requests` requests at random moments, `rate` a second on average, whatever the servers do (an open loop).

        The first `warm_up` are not counted in the outcome.
        """
        for number in range(warm_up + requests):
            if number == warm_up:
                self.begin_counting()
            self.advance(self.now + self._rng.expovariate(rate))
            self.claim(service(self._rng))
        return Outcome([server.picks for server in self.servers], self.spread_s / self.counted_s, self.peak_s / self.counted_s)
