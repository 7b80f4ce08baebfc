"""Least connections: the server with the fewest requests in flight for its weight."""
from __future__ import annotations

import random
from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicyMemory, RequestInfo
from prefork_lb.balance.rotation import Rotation


class LeastConnections:
    """Fewest in-flight requests per unit of weight; ties take turns over all workers.

    The load of a server is (in-flight + 1/2) / weight: Sainte-Lague's rule for dividing seats, which follows the weights
    without bias. in-flight / weight (nginx) favours small servers, (in-flight + 1) / weight (HAProxy) large ones. When
    nothing at all is in flight every server ties, so that idle traffic, too, is divided by weight.

    Runs under the ledger's lock: the counts are exact across workers, and no other claim comes between this pick and
    its own.
    """

    def __init__(self, rng: random.Random, memory: PolicyMemory) -> None:
        self._rotation = Rotation(memory)

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        tied: list[Candidate] = []
        best_load, best_weight = 1, 0  # infinite
        total_weight = in_flight = 0
        for server in candidates:
            weight, count = server.weight, server.in_flight
            total_weight += weight
            in_flight += count
            load = 2 * count + 1
            # a/wa < b/wb without dividing: exact for integers.
            difference = load * best_weight - best_load * weight
            if difference < 0:
                best_load, best_weight = load, weight
                tied = [server]
            elif difference == 0:
                tied.append(server)
        equal = self._weights_are_equal(candidates, total_weight)
        return self._rotation.pick(tied if in_flight else candidates, total_weight, equal)

    @staticmethod
    def _weights_are_equal(candidates: Sequence[Candidate], total_weight: int) -> bool:
        if total_weight == len(candidates):
            return True  # each is 1
        weight = candidates[0].weight
        return all(server.weight == weight for server in candidates)
