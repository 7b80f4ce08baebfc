"""Smooth weighted round robin: weights in proportion, and never a run of one server longer than it must be."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, Cells, PolicySetup, RequestInfo


class SmoothWeightedRoundRobin:
    """nginx's sequence: with weights 5, 1, 1 it goes a a b a c a a.

    Every candidate's current value grows by its weight; the greatest is picked (the first of equals) and pays the sum of
    all weights. Source: nginx, `ngx_http_upstream_get_peer` in `ngx_http_upstream_round_robin.c`.
    """

    def __init__(self, setup: PolicySetup) -> None:
        self._current = setup.memory.columns[0]

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        return smooth_pick(self._current, candidates)

    def took(self, server: Candidate, candidates: tuple[Candidate, ...]) -> None:
        """As TakesTurns. A server that its sessions have taken often is held back for one round at most, as in nginx 1.29.6."""
        total = sum(candidate.weight for candidate in candidates)
        if self._current[server.slot] > server.weight - total:
            smooth_pick(self._current, candidates, server)


def smooth_pick(current: Cells, candidates: Sequence[Candidate], chosen: Candidate | None = None) -> Candidate:
    """The next of the sequence whose current values are in `current`, by slot. `chosen` takes the turn without being it."""
    total = 0
    best = candidates[0]
    greatest: int | None = None
    for server in candidates:
        slot, weight = server.slot, server.weight
        value = current[slot] = current[slot] + weight
        total += weight
        if greatest is None or value > greatest:
            best, greatest = server, value
    best = chosen or best
    current[best.slot] -= total
    return best
