"""Taking turns among servers that are equally good, by weight, in one sequence over all workers."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicyMemory

# Divided by a weight it is one turn's length. 2^4 * 3^2 * 5^3 * 7 * 11 * 13 * 5: no remainder for the weights 1 to 16 and
# the usual larger ones (20, 25, 50, 100, 200, 250, 500, 1000); at most 0.006 % off for any weight up to 1000.
UNIT = 18_018_000

# How many rounds a server that was picked often for want of a choice is held back afterwards. More makes the shares a little
# more exact under light load, fewer forgets an uneven past sooner.
MEMORY_ROUNDS = 4


class Rotation:
    """Whose turn it is.

    Of equal weights: the one whose last pick is longest ago, strictly. Of unequal weights: weighted fair queueing's order,
    by finish time in virtual time (Demers, Keshav, Shenker 1989; start-time variant by Goyal, Vin, Cheng 1996), where a
    server that could not be picked for a while gains one turn at most, and one picked for want of others loses at most
    `MEMORY_ROUNDS` rounds. Uses cells 0 (picks) and 1 (virtual time), columns 0 (last pick) and 1 (finish time).
    """

    def __init__(self, memory: PolicyMemory) -> None:
        self._cells = memory.cells
        self._last, self._finish = memory.columns[:2]

    def pick(self, tied: Sequence[Candidate], total_weight: int, equal: bool) -> Candidate:
        """Whose turn it is among `tied`, which is not empty, and account for it.

        `total_weight` is the sum over all candidates, `equal` whether their weights are all the same.
        """
        last = self._last
        best = tied[0]
        if len(tied) > 1:
            if equal:
                oldest = last[best.slot]
                for server in tied:
                    turn = last[server.slot]
                    if turn < oldest:
                        best, oldest = server, turn
            else:
                finish = self._finish
                best = min(tied, key=lambda server: (finish[server.slot], last[server.slot]))
        self.taken(best, total_weight, equal)
        return best

    def taken(self, server: Candidate, total_weight: int, equal: bool) -> None:
        """Account for a pick of `server`; the others as for `pick`."""
        cells, slot = self._cells, server.slot
        cells[0] = self._last[slot] = cells[0] + 1
        if equal:
            return
        step = UNIT // server.weight
        virtual = cells[1]
        start = max(virtual - step, self._finish[slot])
        self._finish[slot] = start + step
        cells[1] = max(virtual + UNIT // total_weight, start - MEMORY_ROUNDS * UNIT)
