"""Random: each server with a probability in proportion to its weight."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo
from prefork_lb.balance.weighted_draw import draw


class WeightedRandom:
    """A draw by weight, independent of all others; needs no shared memory."""

    def __init__(self, setup: PolicySetup) -> None:
        self._rng = setup.rng

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        return draw(self._rng, candidates)
