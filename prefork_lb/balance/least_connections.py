"""Least connections: the server with the fewest requests in flight for its weight."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo
from prefork_lb.balance.rotation import Rotation
from prefork_lb.balance.smooth import smooth_pick

IDLE_PICKS = 2  # the cell that counts the picks since something was in flight
_SETTLING_PICKS = 2


class LeastConnections:
    """Fewest in-flight requests per unit of weight; ties take turns over all workers.

    The load of a server is (in-flight + 1/2) / weight: Sainte-Lague's rule for dividing seats, which follows the weights
    without bias. in-flight / weight (nginx) favours small servers, (in-flight + 1) / weight (HAProxy) large ones. When
    nothing at all is in flight every server ties, so that idle traffic, too, is divided by weight: once it has lasted for a
    few picks, in the smooth sequence, which owes nothing to the load that was before.

    Runs under the ledger's lock: the counts are exact across workers, and no other claim comes between this pick and
    its own.
    """

    def __init__(self, setup: PolicySetup) -> None:
        self._rotation = Rotation(setup.memory)
        self._cells = setup.memory.cells
        self._current = setup.memory.columns[2]
        self._weighed: tuple[tuple[Candidate, ...], int, bool] = ((), 0, True)  # candidates, their weights in all, whether equal

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
        if in_flight == 0:
            return self._pick_idle(candidates, total_weight, equal)
        if self._cells[IDLE_PICKS]:
            self._cells[IDLE_PICKS] = 0
        return self._rotation.pick(tied, total_weight, equal)

    def took(self, server: Candidate, candidates: tuple[Candidate, ...]) -> None:
        """As TakesTurns."""
        weighed = self._weighed
        if weighed[0] is not candidates:
            total_weight = sum([candidate.weight for candidate in candidates])
            # One tuple: several threads read and replace it.
            weighed = self._weighed = candidates, total_weight, self._weights_are_equal(candidates, total_weight)
        self._rotation.taken(server, weighed[1], weighed[2])

    def _pick_idle(self, candidates: Sequence[Candidate], total_weight: int, equal: bool) -> Candidate:
        if equal:
            return self._rotation.pick(candidates, total_weight, equal)
        cells, current = self._cells, self._current
        idle_picks = cells[IDLE_PICKS] = cells[IDLE_PICKS] + 1
        if idle_picks > _SETTLING_PICKS:
            server = smooth_pick(current, candidates)
            self._rotation.taken(server, total_weight, equal)
            return server
        if idle_picks == 1:
            for server in candidates:
                current[server.slot] = 0
        # Light load is idle now and then: there the rotation evens out what the picks between were forced to.
        return smooth_pick(current, candidates, self._rotation.pick(candidates, total_weight, equal))

    @staticmethod
    def _weights_are_equal(candidates: Sequence[Candidate], total_weight: int) -> bool:
        if total_weight == len(candidates):
            return True  # each is 1
        weight = candidates[0].weight
        return all(server.weight == weight for server in candidates)
