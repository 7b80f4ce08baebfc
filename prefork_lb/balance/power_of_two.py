"""Power of two choices: two servers at random, and the less loaded of them."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo
from prefork_lb.balance.weighted_draw import draw


class PowerOfTwo:
    """Two distinct candidates drawn by weight; fewer in-flight requests per weight wins, of equals the first drawn.

    Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (1996). With exact shared counts it is
    seldom better than least-connections; it is the choice when hundreds of servers make a full pass too dear.
    """

    def __init__(self, setup: PolicySetup) -> None:
        self._rng = setup.rng

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        first = draw(self._rng, candidates)
        if len(candidates) == 1:
            return first
        second = draw(self._rng, [server for server in candidates if server is not first])
        if second.in_flight * first.weight < first.in_flight * second.weight:
            return second
        return first
