"""Round robin: every server in turn, one sequence over all workers."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo


class RoundRobin:
    """The candidate that follows the last pick in the order of the configuration; weights do not count.

    A server that may not be picked is passed over; no other server loses a turn by that, or gets two.
    """

    def __init__(self, setup: PolicySetup) -> None:
        self._cells = setup.memory.cells
        self._turn = setup.memory.columns[0]

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        # The turn of each server's last pick is kept, not a position in the list: positions differ between the
        # workers of two configurations, and after a reload the sequence goes on where it was.
        turn = self._turn
        best = candidates[0]
        oldest = turn[best.slot]
        for server in candidates:
            last = turn[server.slot]
            if last < oldest:
                best, oldest = server, last
        self._cells[0] += 1
        turn[best.slot] = self._cells[0]
        return best

    def took(self, server: Candidate, candidates: tuple[Candidate, ...]) -> None:
        """As TakesTurns."""
        self._cells[0] += 1
        self._turn[server.slot] = self._cells[0]
