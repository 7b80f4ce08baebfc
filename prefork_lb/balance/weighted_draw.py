"""One random candidate, in proportion to weight."""
from __future__ import annotations

import random
from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate


def draw(rng: random.Random, candidates: Sequence[Candidate]) -> Candidate:
    """Draw one of `candidates` (not empty) with a probability in proportion to its weight."""
    point = rng.randrange(sum(server.weight for server in candidates))
    for server in candidates:
        point -= server.weight
        if point < 0:
            return server
    raise AssertionError("unreachable: the point lies below the sum of the weights")
